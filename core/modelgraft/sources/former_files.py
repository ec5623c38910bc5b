"""Files that torch.save wrote before it wrote archives, and writes still where it is asked to: mapped, tensor by tensor.

torch reads them whole into memory. Behind the orders the numbers of each storage lie one after the other, so they can be mapped where
they are, as those of an archive are; but they begin at any byte, so who computes with them brings them to a place of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft.sources import torch_files
from modelgraft.sources.headers import ITEM_BYTES, damaged
from modelgraft.sources.scripted import AS_TORCH

if TYPE_CHECKING:
    from torch import Tensor


def readers(path: Path) -> dict[str, Callable[[str], Tensor]]:
    """What reads each tensor by its key; nothing where not all of the file is understood, which torch then reads or refuses."""
    found = torch_files.look(path)
    if not found.places or found.named:
        return {}
    import torch

    whole = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)  # not shared: nothing is written to it

    def read(key: str) -> Tensor:
        stored = found.tensors[key]
        start, end = found.places[stored.store]
        last = stored.offset + sum((size - 1) * step for size, step in zip(stored.shape, stored.stride, strict=True))
        if 0 not in stored.shape and (last + 1) * ITEM_BYTES[stored.dtype] > end - start:
            raise damaged(path, f"the numbers of its tensor {key} are cut: {end - start:,} bytes")
        numbers = torch.empty(0, dtype=getattr(torch, AS_TORCH[stored.dtype]))
        return numbers.set_(whole[start:end], stored.offset, stored.shape, stored.stride)

    return dict.fromkeys(found.tensors, read)
