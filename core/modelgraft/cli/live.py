"""How far a run is, on stderr: a view that moves on a terminal, plain lines elsewhere, or its warnings alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from modelgraft.cli.screen import Screen
from modelgraft.engine.events import Event

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

Take = Callable[[Event], None]
EVERY_S = 2.0  # between two plain lines about the same loop
WORTH_S = 0.05  # a load that is faster has no line of its own
BYTES = "bytes of "  # how the label of a download starts
TAIL = 400  # letters of the text being written that the view shows


@contextmanager
def watching(screen: Screen, *, is_on: bool) -> Iterator[Take]:
    """Give a function that takes the events of a run and shows them while the block lasts; the same warning of a node once."""
    if not is_on:  # warnings are no matter of how far a run is
        lines = _Lines(screen)
        yield _once(lambda event: lines.take(event) if event.kind == "warning" else None)
    elif screen.err.isatty():
        with _Live(screen) as live:
            yield _once(live.take)
    else:
        yield _once(_Lines(screen).take)


def _once(take: Take) -> Take:
    """The same without warnings that say nothing new, such as one for each of several sounds."""
    told: set[tuple[str, str]] = set()

    def taking(event: Event) -> None:
        if event.kind == "warning":
            said = (event.node, said_of(event))
            if said in told:
                return
            told.add(said)
        take(event)

    return taking


class _Lines:
    """One line for each thing that happens, for logs."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._last: dict[str, float] = {}
        self._since: dict[str, float] = {}  # when the load of a node began

    def take(self, event: Event) -> None:
        text = _words(event)  # a failure is not among them: it ends the run, and is told then
        if event.kind == "node-loading":
            self._since[event.node] = time.monotonic()
        elif event.kind == "node-loaded":
            self._since.pop(event.node, None)
        elif event.kind == "progress":
            now = time.monotonic()
            if now - self._last.get(event.node, 0.0) < EVERY_S and event.facts.get("done") != event.facts.get("total"):
                return
            self._last[event.node] = now
            if (since := self._since.get(event.node)) is not None and now - since >= 1:
                text = f"{text}, {now - since:.0f} s"
        if text:
            self._screen.note(f"{event.node}: {text}" if event.node else text)


def _words(event: Event) -> str:
    facts = event.facts
    match event.kind:
        case "node-loaded" if facts["seconds"] >= WORTH_S:
            return f"loaded in {facts['seconds']:.2f} s"
        case "node-finished":
            return f"done in {facts['seconds']:.3f} s"
        case "node-cached":
            return "from the cache"
        case "progress":
            return amount(facts)
        case "warning":
            return f"warning: {said_of(event)}"
    return ""


def said_of(event: Event) -> str:
    """The text of a warning without the name of its node, which stands before it."""
    return str(event.facts.get("text", "")).removeprefix(f"{event.node}: ")


def amount(facts: Mapping[str, Any]) -> str:
    """How far a loop or a download is: `step 3 of 50`, `fetching NAME 12.3 of 92.9 MB`."""
    done, total, label = facts.get("done", 0), facts.get("total"), str(facts.get("label", "step"))
    if label.startswith(BYTES):
        end = f" of {total / 1e6:.1f}" if total else ""
        return f"fetching {label.removeprefix(BYTES)} {done / 1e6:.1f}{end} MB"
    return f"{label} {done:,}" + (f" of {total:,}" if total else "")


class _Live:
    """Nodes at work with their clocks and bars, and the end of the text that is being written."""

    def __init__(self, screen: Screen) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(file=screen.err)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._bars: Progress = Progress(*columns, console=self._console)
        self._tasks: dict[str, TaskID] = {}
        self._text = ""
        self._live = Live(get_renderable=self._render, console=self._console, transient=True, refresh_per_second=10)

    def __enter__(self) -> _Live:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def take(self, event: Event) -> None:
        match event.kind:
            case "node-loading":
                self._work(event.node, "loading")
            case "node-started":
                self._work(event.node, "running")
            case "progress":
                self._step(event)
            case "token" if event.facts.get("record", 0) == 0:
                self._text += str(event.facts.get("text", ""))
            case "node-loaded" | "node-finished" | "node-failed" | "node-cached" | "node-skipped":
                self._end(event.node)
            case "warning":
                where = f"{event.node}: " if event.node else ""
                self._console.print(f"[yellow]warning[/]: {_safe(where + said_of(event))}")

    def _work(self, node: str, note: str) -> TaskID:
        if node not in self._tasks:
            self._tasks[node] = self._bars.add_task(_safe(node), total=None, note=note)
        self._bars.update(self._tasks[node], note=note)
        return self._tasks[node]

    def _step(self, event: Event) -> None:
        done, total = event.facts.get("done", 0), event.facts.get("total")
        note = amount(event.facts)
        self._bars.update(self._work(event.node, note), completed=done, total=total)

    def _end(self, node: str) -> None:
        task = self._tasks.pop(node, None)
        if task is not None:
            self._bars.remove_task(task)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = [self._bars]
        if self._text:
            parts.append(Text(self._text[-TAIL:], style="dim"))
        return Group(*parts)


def _safe(text: str) -> str:
    """Brackets are mark-up to rich."""
    return text.replace("[", "\\[")
