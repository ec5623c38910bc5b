"""What happens during a run, as values: one class for each kind. The live view, `stream`, `--trace`, hooks and servers read the same ones.

`modelgraft schema --events` is their JSON Schema; `as_dict` gives what it describes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from modelgraft.engine.outputs import Lying, as_they_lie, to_be_read
from modelgraft.engine.result import Result
from modelgraft.engine.shown import brief
from modelgraft.kernel.words.errors import ModelgraftError, choices, where_of
from modelgraft.kernel.words.guard import said

Plain = Callable[[Any], Any]  # makes of a value what JSON has


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Event:
    """One thing that happened. What it has beside its kind, node, run and time are its facts: attributes, or `event["text"]`."""

    kind: ClassVar[str] = ""
    node: Annotated[str, "the node that it happened in; empty when it was none"] = ""
    run: Annotated[str, "the id of the run"] = ""
    time: Annotated[float, "when, in seconds since 1970"] = field(default_factory=time.time)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What it tells, by name."""
        return to_be_read({name: object.__getattribute__(self, name) for name in facts_of(type(self))})

    def __getitem__(self, name: str) -> Any:
        """A fact, as in `event["text"]`."""
        if name not in facts_of(type(self)):
            raise KeyError(name)
        return getattr(self, name)

    def as_dict(self, plain: Plain = brief) -> dict[str, Any]:
        """The event as JSON has it.

        plain  makes of the value of an output what JSON has; by default, it is told in a few words
        """
        told = {name: _as_json(value, plain) for name, value in as_they_lie(self.facts).items()}
        return {"kind": self.kind, "run": self.run, "time": self.time, "node": self.node, **told}

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={brief(value)}" for name, value in as_they_lie(self.facts).items())
        return f"<Event {self.kind}{f' {self.node}' * bool(self.node)}{f': {told}' * bool(told)}>"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class RunStarted(Event):
    """A run began: always the first."""

    kind = "run-started"
    graph: Annotated[str, "the name of the graph"]
    seed: Annotated[int, "the seed of everything that is drawn in the run"]
    outputs: Annotated[tuple[str, ...], "what is wanted"]


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class NodeLoading(Event):
    """The weights of a node are being loaded."""

    kind = "node-loading"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class NodeLoaded(Event):
    """A node is ready."""

    kind = "node-loaded"
    seconds: Annotated[float, "that the load took"]
    bytes: Annotated[int | None, "that it takes, as far as that can be measured; null for what has no weights"] = None


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class NodeReleased(Event):
    """A node was let go of; the next use loads it anew."""

    kind = "node-released"
    reason: Annotated[str, "why, in a few words"]
    bytes: Annotated[int, "that it took"]


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class NodeStarted(Event):
    """A node runs."""

    kind = "node-started"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class NodeFinished(Event):
    """A node is done."""

    kind = "node-finished"
    seconds: Annotated[float, "that it took"]
    thread: Annotated[str, "the thread that it ran on"] = ""
    bytes: Annotated[int | None, "that its outputs take, in a pipeline opened with `trace`"] = None


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class NodeCached(Event):
    """The result of a node came from the cache."""

    kind = "node-cached"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class NodeSkipped(Event):
    """A node was not run, because nothing needs it in this run."""

    kind = "node-skipped"
    reason: Annotated[str, "why, in a few words"]


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class NodeFailed(Event):
    """A node failed; the run ends with it."""

    kind = "node-failed"
    error: Annotated[BaseException, "what it raised"]


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Token(Event):
    """A piece of text was written; the pieces of a record joined are its text."""

    kind = "token"
    text: Annotated[str, "the piece"]
    record: Annotated[int, "the number of the record in the batch"] = 0


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class PromptRead(Event):
    """A prompt began as an earlier one did, whose beginning was kept and is not read again; told behind the answer."""

    kind = "prompt-read"
    kept: Annotated[int, "how many of its tokens were read before"]
    tokens: Annotated[int, "how many it has"]
    record: Annotated[int, "the number of the record in the batch"] = 0


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Guessed(Event):
    """Tokens of answers were guessed ahead and read together, which changes none of them; told behind the answers."""

    kind = "guesses"
    passes: Annotated[int, "calls of the model behind the prompts"]
    guessed: Annotated[int, "tokens that were guessed and read"]
    right: Annotated[int, "how many of these were chosen: each saved a call"]


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Piece(Event):
    """A piece of an output is ready before the whole is, such as a second of a sound; the pieces of a record joined are the output."""

    kind = "piece"
    port: Annotated[str, "the output of the node that it is a piece of"]
    value: Annotated[Any, "the piece, as the output will be"]
    record: Annotated[int, "the number of the record in the batch"] = 0


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Preview(Event):
    """How far an output is, as a small picture that costs little; told by loops that were asked to."""

    kind = "preview"
    image: Annotated[Any, "the picture"]
    done: Annotated[int, "steps that are done"]
    total: Annotated[int, "of how many"]
    record: Annotated[int, "the number of the record in the batch"] = 0


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Progress(Event):
    """A loop, a load or a download went on."""

    kind = "progress"
    done: Annotated[float, "how much is done"]
    total: Annotated[float | None, "of how much; null when that is not known"] = None
    label: Annotated[str, "what is counted"] = "step"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Output(Event):
    """An output is ready."""

    kind = "output"
    name: Annotated[str, "of the output"]
    value: Annotated[Any, "what it is: of one record the record, of a batch a list"]

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        return found.read() if type(found) is Lying else found


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Warned(Event):
    """Something works, but not as one may expect."""

    kind = "warning"
    text: Annotated[str, "a sentence"]
    lasting: Annotated[bool, "it was found when a node was loaded, and is so in every run"] = False


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class RunFailed(Event):
    """A run ended with an error: always the last of one that did."""

    kind = "run-failed"
    error: Annotated[BaseException, "what `run` raises"]


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class RunResult(Event):
    """A run is over: always the last of one that gave a result."""

    kind = "result"
    result: Annotated[Result, "what `run` gives"]


CLASSES: Mapping[str, type[Event]] = {
    each.kind: each
    for each in (
        RunStarted, NodeLoading, NodeLoaded, NodeReleased, NodeStarted, NodeFinished, NodeCached, NodeSkipped, NodeFailed, Token,
        PromptRead, Guessed, Piece, Preview, Progress, Output, Warned, RunFailed, RunResult,
    )
}  # fmt: skip
EVENT_KINDS: Mapping[str, str] = {kind: (each.__doc__ or "").partition("\n")[0] for kind, each in CLASSES.items()}
TRACED_KINDS = (NodeLoading, NodeLoaded, NodeStarted, NodeFinished, NodeCached, NodeSkipped, NodeFailed)  # what a trace is made of
OF_NODES: Mapping[str, type[Event]] = {
    each.kind: each for each in (Token, PromptRead, Guessed, Piece, Preview, Progress, Warned)
}  # what code of a node may tell

Sink = Callable[[Event], None]  # takes events as they happen, on the thread where they do

_FACTS = {each: tuple(one.name for one in fields(each) if one.name not in Event.__dataclass_fields__) for each in CLASSES.values()}

_NEEDED = {
    each: frozenset(one.name for one in fields(each) if one.name in _FACTS[each] and one.default is MISSING) for each in OF_NODES.values()
}


def facts_of(kind: type[Event]) -> tuple[str, ...]:
    """The names of what events of a class tell."""
    return _FACTS.get(kind, ())


@lru_cache(maxsize=128)  # asked for each token of an answer
def misfit(kind: str, facts: tuple[str, ...]) -> str:
    """What is wrong with what code of a node tells, as "'tokens'; wanted: piece, preview, ..."; nothing when it is an event."""
    event = OF_NODES.get(kind)
    if event is None:
        return f"'{kind}'; wanted: {choices(OF_NODES)}"
    given, known = set(facts), set(facts_of(event))
    if given <= known and _NEEDED[event] <= given:
        return ""
    return f"'{kind}' with {choices(given)}; wanted: {choices(known)}"


def error_document(error: BaseException) -> dict[str, Any]:
    """An error as JSON has it: its class, its sentence, and where it happened."""
    kind = type(error).__name__ if isinstance(error, ModelgraftError) else "defect"
    where = where_of(error)
    return {"kind": kind, "message": said(error), **where}


def _as_json(value: Any, plain: Plain) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, BaseException):
        return error_document(value)
    if isinstance(value, Result):
        return {
            "outputs": {name: plain(output) for name, output in as_they_lie(value.outputs).items()},
            "timings": dict(value.timings),
            "cached": sorted(value.cached),
            "warnings": list(value.warnings),
        }
    return list(value) if isinstance(value, tuple) else plain(value)
