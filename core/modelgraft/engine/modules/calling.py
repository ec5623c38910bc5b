"""Where modules run, and how they are called. Light: torch is imported by what computes with it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from modelgraft.engine.backend import LoadContext
from modelgraft.kernel.words.errors import InputError
from modelgraft.records.arrays import as_array
from modelgraft.records.owning import is_tensor

LEARNING: ContextVar[bool] = ContextVar("learning", default=False)  # this call is a part of a training step, and keeps what gradients need


def resolve_device(device: str | None) -> str:
    """Turn "auto", None, "cuda" or "cpu" into a device that is there.

    Raises InputError when it is not, with the devices that are.
    """
    import torch

    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if device in (None, "auto"):
        return there[1] if len(there) > 1 else "cpu"
    found = "cuda:0" if device == "cuda" else str(device)
    if found not in there:
        reason = f"; torch {torch.__version__} is built without CUDA" if torch.version.cuda is None and found.startswith("cuda") else ""
        raise InputError(f"device '{device}' is not here; there is: {', '.join(there)}{reason}")
    return found


def placed(context: LoadContext) -> LoadContext:
    """The context with a device that is there, such as "cuda:0" for "cuda". Raises InputError that names the node."""
    if context.device == "cpu":
        return context
    try:
        return replace(context, device=resolve_device(context.device))
    except InputError as error:
        raise InputError(f"{context.node.name}: {error.unworded}") from error


def in_torch(module: Callable[..., Any], context: LoadContext) -> Callable[..., Any]:
    """Call a module, or code like one, without gradients, except where something learns by what it gives.

    Tensors come to the device of the module, floating ones to the dtype of its weights.
    """
    import torch

    from modelgraft.engine.modules.building import DTYPES

    device, dtype = torch.device(context.device), DTYPES[context.dtype]
    is_ordered = device.type != "cpu"  # a device works in order; on the host a copy that nobody waits for is read before it is there

    def at_home(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, dtype if value.is_floating_point() else None, non_blocking=is_ordered)

    def call(*values: Any) -> Any:
        if LEARNING.get():
            return module(*map(at_home, values))
        with torch.no_grad():
            return module(*map(at_home, values))

    return call


def in_numpy(code: Callable[..., Any], context: LoadContext) -> Callable[..., Any]:
    """Call code on the host, such as a session, whose numbers are numpy's: what `in_torch` is where torch computes.

    Tensors come as arrays, from a device too; floating numbers in the dtype of the context, which is one that numpy has.
    """

    import numpy

    def at_home(value: Any) -> Any:
        found = as_array(value.cpu() if is_tensor(value) else value)
        if not isinstance(found, numpy.ndarray) or found.dtype.kind != "f":
            return found
        with numpy.errstate(over="ignore"):  # of float64, as torch does
            return found.astype(context.dtype, copy=False)

    return lambda *values: code(*map(at_home, values))
