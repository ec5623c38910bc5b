"""Answers on stdout while they are made: a text as it grows, or with `--json` the events of the run, one in a line.

In the end stdout holds what it holds without `--stream`: the text that grows is the beginning of the answer, and the rest
follows when it is whole. A graph whose first output is no text that a node writes piece by piece is answered at the end.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.cli.screen import Screen
from modelgraft.cli.written import Targets, say_outputs
from modelgraft.engine.events import Event, RunFailed, Token
from modelgraft.kernel.planning.planner import find_output
from modelgraft.records.json_text import json_text
from modelgraft.records.readers import for_command
from modelgraft.records.showing import plain

if TYPE_CHECKING:
    from modelgraft.kernel.words.graph import SolvedGraph

TakeEvent = Callable[[Event], None]


class Growing:
    """The beginning of an answer, printed as its node writes it."""

    def __init__(self, screen: Screen, solved: SolvedGraph, targets: Targets) -> None:
        """targets: what is wanted, and what of it goes into files."""
        self._screen = screen
        shown = [name for name in targets.wanted or tuple(solved.outputs) if name not in targets.files]
        self._node = find_output(solved, shown[0]).node if shown else ""
        self._head = "" if len(shown) == 1 else f"{screen.paint(shown[0], 'bold')}: " if shown else ""
        self._said = ""

    def take(self, event: Event) -> None:
        """Print a piece of the first record. Raises BrokenPipeError when nobody reads any more."""
        if isinstance(event, Token) and event.node == self._node and event.record == 0:
            self._write(event.text if self._said else self._head + event.text)
            self._screen.flush()

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """End the line of a text that a failure has cut, so that the error stands on one of its own."""
        if self._said and kind is not None and not issubclass(kind, BrokenPipeError):
            self._write("\n")
            self._screen.flush()

    def finish(self, outputs: Mapping[str, Any], files: Mapping[str, list[str]]) -> None:
        """Print what is left of the answer."""
        whole = _Copy(is_terminal=self._screen.out.isatty())
        say_outputs(outputs, files, Screen(whole, self._screen.err, is_json=False))
        text = whole.getvalue()
        if self._said and not text.startswith(self._said):
            self._screen.note("the text was changed after it was written; the whole of it follows")
            self._write("\n" + text)
        else:
            self._write(text[len(self._said) :])
        self._screen.flush()

    def _write(self, text: str) -> None:
        text = for_command(text)
        self._screen.write(text)
        self._said += text


class Lines:
    """Every event of a run as JSON, one in a line: see `modelgraft schema --events`."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def take(self, event: Event) -> None:
        """Print an event. Raises BrokenPipeError when nobody reads any more."""
        self._screen.write(for_command(json_text(event.as_dict(plain))) + "\n")
        self._screen.flush()
        self._screen.is_told = isinstance(event, RunFailed)  # its error stands in this line


class _Copy(io.StringIO):
    """What would be printed to a stream."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        """Whether the stream is a terminal, which gets colours."""
        return self._is_terminal
