"""A session on an exported node, as something that is called with arrays on the host, and with tensors on a device. Light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.plugin import InputError, as_array, as_tensor, option
from modelgraft_plugins.onnx.binding import bind, place_of, ports
from modelgraft_plugins.onnx.runtime import TYPES

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft_plugins.onnx.streams import Order


class Exported:
    """A session that is called like the flat module: on the host with arrays or tensors, and gives arrays; on a device with tensors.

    Inputs come to the types that the graph takes, as floating ones of a module come to the module's. On the host, outputs
    with NaN or infinity are refused: torch has given none on the sizes of the parity gate.
    """

    def __init__(self, session: Any, *, device: str, order: Order | None = None) -> None:
        """order: who waits for whom on the device; None: as `streams.order_of` says. `Any`: onnxruntime has no types."""
        self.session, self.device = session, device
        self.inputs = [(entry.name, TYPES[entry.type]) for entry in session.get_inputs()]
        self.order = order or (None if device == "cpu" else _order_of(device))
        self.bound = None if self.order is None else _Bound(session, device, self.order)
        self.run = session.run

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """Run once; the outputs own their memory. `Any`: tensors, or arrays of numpy.

        Raises InputError for sizes that the graph does not take, and for outputs that are not finite.
        """
        try:
            if self.bound is not None:
                return self.bound(values)
            feed = {name: _array(value, kind) for (name, kind), value in zip(self.inputs, values, strict=True)}
            arrays = self.run(None, feed)
        except Exception as error:  # the classes that onnxruntime raises have no base of their own
            raise InputError(self._why(values, error)) from error
        for array in arrays:
            if array.dtype.kind == "f" and not numpy.isfinite(array).all():
                self._refuse(arrays)
        return tuple(arrays)

    def _why(self, values: Sequence[Any], error: Exception) -> str:
        """What a run was given that the graph does not take; what onnxruntime says when nothing is seen."""
        sizes: dict[str, int] = {}
        for entry, value in zip(self.session.get_inputs(), values, strict=False):
            shape = list(value.shape)
            wanted = [
                sizes.setdefault(axis, size) if isinstance(axis, str) else axis for axis, size in zip(entry.shape, shape, strict=False)
            ]
            if len(shape) != len(entry.shape) or wanted != shape:
                return (
                    f"input '{entry.name}' is {_shape(shape)}, and the graph takes {_shape(entry.shape)}{_known(entry.shape, sizes, shape)}"
                )
        if len(values) != len(self.inputs):
            return f"{len(values)} inputs came, and the graph takes {len(self.inputs)}: {', '.join(name for name, _ in self.inputs)}"
        given = ", ".join(f"{name} {_shape(value.shape)}" for (name, _), value in zip(self.inputs, values, strict=True))
        said = str(error).strip().partition("\n")[0]
        return f"the export cannot run on {given}, sizes that it does not serve; {option('backend', 'torch')} may. onnxruntime said: {said}"

    def _refuse(self, arrays: Sequence[Any]) -> None:
        """Raise InputError for the first output, as numpy has it, that is not finite."""
        for entry, array in zip(self.session.get_outputs(), arrays, strict=True):
            wrong = ~numpy.isfinite(array)
            if wrong.any():
                kind = "NaN" if numpy.isnan(array).any() else "infinite"
                records = sorted({int(record) for record in wrong.nonzero()[0]}) if array.ndim else []
                raise InputError(
                    f"output '{entry.name}' of the export has {int(wrong.sum()):,} of {array.size:,} numbers that are {kind} "
                    f"(records {', '.join(map(str, records))}); wanted: finite ones. Look for such numbers in the inputs; float16 "
                    f"overflows above 65504: run the node with precision float32"
                )


def _order_of(device: str) -> Order | None:
    from modelgraft_plugins.onnx.streams import order_of  # which imports torch

    return order_of(device)


def _array(value: Any, kind: str) -> Any:
    """As the session takes it, on the memory of an array or a tensor of that type on the host (`Any`: numpy's types say no more)."""
    found = as_array(value.cpu() if hasattr(value, "detach") else value)
    with numpy.errstate(over="ignore"):  # of float64, as torch does; what comes of it is looked at
        return found.astype(kind, order="C", copy=False)


class _Bound:
    """A session on device memory: inputs by pointer, outputs in memory of torch's where their sizes follow from the inputs'.

    Integers that the graph reads on the host, such as sizes, are bound there: the session says which
    (`get_input_memory_infos`). Of outputs whose sizes are known only afterwards onnxruntime owns the memory, and uses it again
    in the next run: they are copied, on the device.
    """

    def __init__(self, session: Any, device: str, order: Order) -> None:
        self.session, self.device, self.order = session, device, order
        self.inputs = ports(session.get_inputs(), session.get_input_memory_infos(), self.device)
        self.outputs = ports(session.get_outputs(), session.get_output_memory_infos(), self.device)

    def __call__(self, given: Sequence[Any]) -> tuple[Tensor, ...]:
        import torch

        binding, values = self.session.io_binding(), [*map(as_tensor, given)]
        with self.order(*values):
            sizes: dict[str, int] = {}
            kept = []
            for (name, axes, kind, place), value in zip(self.inputs, values, strict=True):
                kept.append(value.detach().to(place, getattr(torch, kind)).contiguous())
                sizes.update((axis, size) for axis, size in zip(axes, value.shape, strict=True) if isinstance(axis, str))
                bind(binding.bind_input, name, kept[-1])
            made = [self._make(binding, sizes, *port) for port in self.outputs]
            self.session.run_with_iobinding(binding, self.order.options)
            if any(place == "cpu" for *_, place in self.outputs):
                self.order.wait()  # the host reads these
            values_of_session = binding.get_outputs()
            found = tuple(
                _read(value, kind) if mine is None else mine
                for mine, value, (_, _, kind, _) in zip(made, values_of_session, self.outputs, strict=True)
            )
        self.order.hand_over(found)
        return found

    def _make(self, binding: Any, sizes: dict[str, int], name: str, axes: Sequence[Any], kind: str, place: str) -> Tensor | None:
        """Memory for an output whose sizes are known; None when onnxruntime is to make it."""
        import torch

        shape = [sizes.get(axis, -1) if isinstance(axis, str) else axis for axis in axes]
        if -1 in shape or None in shape:
            binding.bind_output(name, *place_of(place))
            return None
        made = torch.empty(shape, dtype=getattr(torch, kind), device=place)
        bind(binding.bind_output, name, made)
        return made


def _read(value: Any, kind: str) -> Tensor:
    """A copy of what onnxruntime has made. DLPack calls truth values uint8."""
    import torch

    made: Tensor = torch.utils.dlpack.from_dlpack(value)
    return made.to(getattr(torch, kind), copy=True)


def _shape(axes: Sequence[Any]) -> str:
    return f"[{' '.join(map(str, axes))}]"


def _known(axes: Sequence[Any], sizes: dict[str, int], shape: Sequence[int]) -> str:
    """Say where other inputs have decided a size."""
    clash = [f"{axis} is {sizes[axis]} in another input" for axis, size in zip(axes, shape, strict=False) if sizes.get(axis, size) != size]
    return f" ({', '.join(clash)})" if clash else ""
