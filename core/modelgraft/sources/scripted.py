"""The tensors of an archive of TorchScript, such as the files that CLIP was published in. Its program is neither read nor run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft.sources import torch_files
from modelgraft.sources.headers import ITEM_BYTES, damaged

if TYPE_CHECKING:
    from torch import Tensor

AS_TORCH = {
    "F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def readers(path: Path) -> dict[str, Callable[[str], Tensor]]:
    """What reads each tensor by its name in the modules of the program."""
    found = torch_files.look(path)

    def read(name: str) -> Tensor:
        stored = found.tensors[name]
        with zipfile.ZipFile(path) as archive:
            return _tensor(path, archive.read(f"{found.prefix}data/{stored.store}"), name, stored)

    return dict.fromkeys(found.tensors, read)


def _tensor(path: Path, numbers: bytes, name: str, stored: torch_files.Stored) -> Tensor:
    import torch

    last = stored.offset + sum((size - 1) * step for size, step in zip(stored.shape, stored.stride, strict=True))
    if 0 in stored.shape:
        return torch.empty(stored.shape, dtype=getattr(torch, AS_TORCH[stored.dtype]))
    if (last + 1) * ITEM_BYTES[stored.dtype] > len(numbers):
        raise damaged(path, f"the numbers of its tensor {name} are cut: {len(numbers):,} bytes")
    flat = torch.frombuffer(bytearray(numbers), dtype=getattr(torch, AS_TORCH[stored.dtype]))
    return flat.as_strided(stored.shape, stored.stride, stored.offset).clone()
