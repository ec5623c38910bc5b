"""Inputs and outputs of sessions as those see them who lay their memory: names, sizes, types and places, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelgraft_plugins.onnx.runtime import TYPES


def ports(entries: Sequence[Any], places: Sequence[Any], device: str) -> list[tuple[str, list[Any], str, str]]:
    """Name, axes (numbers, or names where open), name of the dtype, and place ("cpu" or `device`) of each input or output of a session.

    `Any`: onnxruntime has no types.
    """
    return [
        (entry.name, list(entry.shape), TYPES[entry.type], "cpu" if place.name.lower() == "cpu" else device)
        for entry, place in zip(entries, places, strict=True)
    ]


def place_of(device: str) -> tuple[str, int]:
    """The kind of a device and its number, as onnxruntime names it: "cuda:0" -> ("cuda", 0)."""
    kind, _, number = device.partition(":")
    return kind, int(number or 0)


def bind(method: Any, name: str, held: Any) -> None:
    """Bind the memory of an array or a tensor as input or output.

    Onnxruntime looks neither at strides nor at lifetime, so the caller does.
    """
    if hasattr(held, "data_ptr"):
        assert held.is_contiguous(), name
        address = held.data_ptr() or held.new_empty(1).data_ptr()  # of a tensor without elements it is 0, which is refused
        place = held.device.type, held.device.index or 0
        method(name, *place, str(held.dtype).removeprefix("torch."), tuple(held.shape), address)
    else:
        assert held.flags.c_contiguous, name
        method(name, "cpu", 0, held.dtype.name, held.shape, held.__array_interface__["data"][0])
