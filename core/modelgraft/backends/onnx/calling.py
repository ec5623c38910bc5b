"""A session on an exported node, as something that is called with torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from modelgraft.backends.onnx.runtime import TYPES


class Exported:
    """A session that is called like the flat module: torch tensors in and out, on the host without copies in.

    Floating inputs come to the type that the graph takes, as those of a module come to the module's.
    """

    def __init__(self, session: Any, *, device: str) -> None:
        self.session, self.device = session, device
        self.inputs = [(entry.name, getattr(torch, TYPES[entry.type])) for entry in session.get_inputs()]
        self.run = session.run

    def __call__(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run once; the outputs own their memory."""
        if self.device != "cpu":
            return self._bound(values)
        given = zip(self.inputs, values, strict=True)
        feed = {name: value.detach().to("cpu", kind).contiguous().numpy() for (name, kind), value in given}
        return tuple(torch.from_numpy(array) for array in self.run(None, feed))

    def _bound(self, values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Run on device memory: inputs by pointer, outputs where the session puts them, read without a copy."""
        binding = self.session.io_binding()
        kept = [value.detach().to(kind).contiguous() for (_, kind), value in zip(self.inputs, values, strict=True)]
        torch.cuda.current_stream().synchronize()  # the session runs on a stream of its own
        for (name, kind), value in zip(self.inputs, kept, strict=True):
            shape, where = tuple(value.shape), (value.device.type, value.device.index or 0)
            binding.bind_input(name, *where, str(kind).removeprefix("torch."), shape, value.data_ptr())
        for entry in self.session.get_outputs():
            binding.bind_output(entry.name, "cuda", int(self.device.partition(":")[2] or 0))
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return tuple(torch.utils.dlpack.from_dlpack(value._ortvalue.to_dlpack()) for value in binding.get_outputs())
