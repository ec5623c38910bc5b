"""A graph in two forms, one for few rows and one for many: each run that is bound goes to the one that is faster for its rows."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from modelgraft.plugin import Array, Bound
from modelgraft_plugins.onnx.graphs import SessionGraph


class ByRows:
    """A Graph on the host. Rows are all axes but the last of what it takes first: those of a batch, and the tokens of each."""

    is_ordered = False

    def __init__(self, few: SessionGraph, open_many: Callable[[], SessionGraph], *, many: int) -> None:
        """open_many: the graph for so many rows and more, `many`; it is opened when they come the first time."""
        self.few, self.open_many, self.many = few, open_many, many
        self.device, self.inputs, self.outputs = few.device, few.inputs, few.outputs
        self.opened: SessionGraph | None = None
        self.opening = threading.Lock()

    def __call__(self, *values: Array) -> tuple[Array, ...]:
        """See Graph."""
        return self._for(values[0])(*values)

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array | None]) -> Bound:
        """See Graph."""
        return self._for(inputs[self.inputs[0].name]).bind(inputs, outputs)

    def turn(self, *given: Array) -> AbstractContextManager[None]:
        """See Graph."""
        return self.few.turn(*given)

    def hand_over(self, made: Sequence[Array]) -> None:
        """See Graph."""

    def replay(self, _bound: Any, _run: Any) -> None:
        """See Graph: nothing is recorded on the host."""

    def _for(self, first: Array) -> SessionGraph:
        if math.prod(first.shape[:-1]) < self.many:
            return self.few
        with self.opening:
            self.opened = self.opened or self.open_many()
        return self.opened
