"""Write a safetensors file one tensor at a time, so that a large checkpoint is never whole in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ITEM_BYTES = {"F32": 4, "F16": 2}
# name, shape, what makes the tensor, or runs of its rows, when its turn comes
Entry = tuple[str, tuple[int, ...], "Callable[[], np.ndarray | Iterator[np.ndarray]]"]


def write(path: Path, entries: Sequence[Entry], *, dtype: str) -> None:
    """Write tensors in the given order; `dtype` is F32 or F16.

    Raises ValueError when a tensor does not have the shape that was announced.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    reached = 0
    for name, shape, _ in entries:
        end = reached + ITEM_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [reached, end]}
        reached = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8, as the format asks
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape, make in entries:
            made = make()
            rows = 0
            for tensor in made if isinstance(made, Iterator) else (made,):
                rows += tensor.shape[0] if tensor.shape else 0
                if tensor.shape[1:] != shape[1:] or len(tensor.shape) != len(shape) or rows > math.prod(shape[:1]):
                    raise ValueError(f"tensor '{name}' is {tensor.shape} where {shape} is wanted")
                file.write(tensor.astype({"F32": "<f4", "F16": "<f2"}[dtype], order="C", copy=False).data)
            if shape and rows != shape[0]:
                raise ValueError(f"tensor '{name}' has {rows} rows where {shape} is wanted")
