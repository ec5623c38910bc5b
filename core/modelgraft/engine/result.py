"""What a run gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelgraft.engine.outputs import as_they_lie
from modelgraft.engine.shown import Page, brief
from modelgraft.engine.together import Groups
from modelgraft.kernel.words.errors import ModelgraftError, choices, nearest
from modelgraft.records import markup
from modelgraft.records.amounts import in_seconds

if TYPE_CHECKING:
    from modelgraft.engine.events import Event


@dataclass(frozen=True, slots=True)
class Span:
    """When a node ran, by the clock `time.perf_counter`, and on which thread."""

    node: str
    component: str
    start: float
    end: float
    thread: str


@dataclass(slots=True)
class Timeline:
    """The spans of a run; of straight code they are made of its stamps only when somebody asks.

    groups  of the nodes that one stamp ends; None: each has its own
    events  of its nodes, in a pipeline opened with `trace=True`
    """

    names: Sequence[tuple[str, str]] = ()
    stamps: Sequence[float] = ()
    groups: Groups | None = None
    spans: tuple[Span, ...] = ()
    events: Sequence[Event] = ()

    def read(self) -> tuple[Span, ...]:
        """The spans, in the order in which the nodes ran."""
        if not self.spans and self.stamps:
            stamps = self.stamps if self.groups is None else self.groups.spread(self.stamps)
            ends = zip(self.names, stamps, stamps[1:], strict=False)
            self.spans = tuple(Span(node, component, start, end, "main") for (node, component), start, end in ends)
        return self.spans


@dataclass(slots=True, eq=False, repr=False)  # not frozen: made in every run, and freezing triples the cost
class Result(Mapping[str, Any]):
    """The outputs of a run, by name. Of one record an output is the value itself, of a batch a list; tensors stay whole.

    outputs   the same as a mapping
    cached    the nodes that the cache spared: their results were there, or nothing but such nodes reads them
    warnings  what works but not as one may expect
    error     of `map`: why this record has no outputs; reading an output then raises it
    """

    outputs: Mapping[str, Any]
    cached: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    timeline: Timeline = field(default_factory=Timeline, repr=False, compare=False)
    error: ModelgraftError | None = None

    @property
    def timings(self) -> dict[str, float]:
        """Seconds per node that ran; empty when the pipeline was opened with `timings=False`.

        Neighbours of less than a microsecond are timed together, and divide it as they did when each was timed by itself.
        """
        return {span.node: span.end - span.start for span in self.timeline.read()}

    def __getitem__(self, name: str) -> Any:
        if self.error is not None:
            raise self.error
        try:
            return self.outputs[name]
        except KeyError:
            text = f"there is no output '{name}'; there are: {choices(self.outputs)}. {nearest(name, self.outputs)}"
            raise KeyError(text.strip()) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<Result failed: {str(self.error).partition(chr(10))[0]}>"
        told = ", ".join(f"{name}={brief(value)}" for name, value in as_they_lie(self.outputs).items())
        return f"<Result {'; '.join([told or 'nothing', *self._remarks()])}>"

    def _remarks(self) -> list[str]:
        """What a run cost and spared, and how much there is to read of it."""
        timings = self.timings
        said = [in_seconds(sum(timings.values()))] if timings else []
        said += [f"{len(self.cached)} node{'s' * (len(self.cached) != 1)} from the cache"] if self.cached else []
        return said + ([f"{len(self.warnings)} warning{'s' * (len(self.warnings) != 1)}"] if self.warnings else [])

    def _repr_html_(self) -> str:
        """Pictures, players and texts, for notebooks; all of it is in the page, as far as there is room."""
        if self.error is not None:
            return markup.title("failed", type(self.error).__name__) + markup.words(str(self.error))
        page = Page()
        shown = "".join(markup.title(name) + page.value(value) for name, value in as_they_lie(self.outputs).items())
        said = "".join(markup.faint(f"warning: {text}") for text in self.warnings)
        return f"<div>{shown}{markup.faint(', '.join(self._remarks()))}{said}</div>"
