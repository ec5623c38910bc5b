"""A session as those see it who bind their own memory to it: see `modelgraft.plugin.Graph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.plugin import Array, Repeatable, Slot
from modelgraft_plugins.onnx.binding import bind, place_of, ports
from modelgraft_plugins.onnx.calling import Exported

if TYPE_CHECKING:
    from modelgraft_plugins.onnx.capturing import Captured
    from modelgraft_plugins.onnx.streams import Order


class SessionGraph:
    """A Graph. `Any`: onnxruntime has no types."""

    def __init__(self, session: Any, *, device: str, order: Order | None = None) -> None:
        """order: who waits for whom on the device; None: as `streams.order_of` says."""
        self.session, self.device = session, device
        self.order = order or _order_of(device)
        self.is_ordered = self.order is not None
        self.options = self.order.options if self.order is not None else None
        self.inputs = _slots(session.get_inputs(), session.get_input_memory_infos(), self.device)
        self.outputs = _slots(session.get_outputs(), session.get_output_memory_infos(), self.device)
        self.captures = self.is_ordered and _can_capture(session)
        self.numbers = count(1)  # ids of captured runs: one is never used for other addresses

    @cached_property
    def _exported(self) -> Exported:
        return Exported(self.session, device=self.device, order=self.order)

    def __call__(self, *values: Array) -> tuple[Array, ...]:
        """See Graph."""
        return self._exported(*values)

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array | None]) -> SessionBound:
        """See Graph."""
        return SessionBound(self, inputs, outputs)

    def turn(self, *given: Array) -> AbstractContextManager[None]:
        """See Graph."""
        return nullcontext() if self.order is None else self.order(*given)

    def hand_over(self, made: Sequence[Array]) -> None:
        """See Graph."""
        if self.order is not None:
            self.order.hand_over(made)

    def replay(self, bound: SessionBound, run: Repeatable) -> Captured | None:
        """See Graph."""
        if not self.captures:
            return None
        from modelgraft_plugins.onnx.capturing import Captured

        return Captured(self.session, bound.binding, run, graph=next(self.numbers))


class SessionBound:
    """A Bound."""

    def __init__(self, graph: SessionGraph, inputs: Mapping[str, Array], outputs: Mapping[str, Array | None]) -> None:
        self.binding = binding = graph.session.io_binding()
        binding.kept, self.outputs = inputs, outputs  # it holds addresses only
        for name, held in inputs.items():
            bind(binding.bind_input, name, held)
        free = [name for name, held in outputs.items() if held is None]
        for name in free:  # the first, so that onnxruntime gives them in this order
            binding.bind_output(name, *place_of(graph.device))
        for name, mine in outputs.items():
            if mine is not None:
                bind(binding.bind_output, name, mine)
        self.free, self.is_ordered = free, graph.is_ordered
        self.run = partial(graph.session.run_with_iobinding, binding, graph.options)

    def made(self) -> dict[str, Array]:
        """See Bound. The memory is onnxruntime's, and is handed on as it lies."""
        found = zip(self.free, self.binding.get_outputs(), strict=False)
        if not self.is_ordered:
            return {name: numpy.from_dlpack(value) for name, value in found}
        import torch

        return {name: torch.utils.dlpack.from_dlpack(value) for name, value in found}


def _order_of(device: str) -> Order | None:
    """See streams.order_of, which is torch's affair."""
    if device == "cpu":
        return None
    from modelgraft_plugins.onnx.streams import order_of

    return order_of(device)


def _can_capture(session: Any) -> bool:
    """See capturing.can_capture."""
    from modelgraft_plugins.onnx.capturing import can_capture

    return can_capture(session)


def _slots(entries: Sequence[Any], places: Sequence[Any], device: str) -> tuple[Slot, ...]:
    return tuple(Slot(name, tuple(axes), kind, place) for name, axes, kind, place in ports(entries, places, device))
