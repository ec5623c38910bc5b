"""What happens during a run, as values: the live view, the server and notebooks read the same events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from modelgraft.engine.shown import brief

KINDS: Mapping[str, str] = {
    "node-loading": "the weights of a node are being loaded",
    "node-loaded": "a node is ready: seconds",
    "node-started": "a node runs",
    "node-finished": "a node is done: seconds",
    "node-cached": "the result of a node came from the cache",
    "node-failed": "a node failed: error",
    "token": "a piece of text was written: text, and record, its number in the batch",
    "progress": "a loop went on: done, total",
    "output": "an output of the graph is ready: name, value",
    "warning": "something works but not as one may expect: text",
    "result": "the run is over: result; always the last",
}


@dataclass(frozen=True, slots=True, repr=False)
class Event:
    """One thing that happened: its kind (see KINDS), the node it happened in, and its facts by name."""

    kind: str
    node: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __getitem__(self, name: str) -> Any:
        """A fact, as in `event["text"]`."""
        return self.facts[name]

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={brief(value)}" for name, value in self.facts.items())
        return f"<Event {self.kind}{f' {self.node}' * bool(self.node)}{f': {told}' * bool(told)}>"


Sink = Callable[[Event], None]  # takes events as they happen, on the thread where they do
