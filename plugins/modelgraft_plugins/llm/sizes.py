"""The sizes of a decoder graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Caches:
    """The sizes of a decoder graph. `dtype` is that of its cache and of what goes in and out, by its name.

    axes   how many numbers say where a token stands, of a model that counts frames, rows and columns; 0: one, without an axis of its own
    deep   how many first layers hear inner layers of an eye: `deep` float[batch tokens deep width], zeros where there is nothing
    most   positions that it tells apart, and no more may be read; 0: any number
    reads  which tokens of a prompt see those behind them: none, all ("both"), or those of one medium ("media")
    """

    layers: int
    kv_heads: int
    head_width: int
    width: int
    vocab: int
    dtype: str = "float32"
    axes: int = 0
    deep: int = 0
    reads: str = "onward"
    most: int = 0

    @property
    def in_torch(self) -> torch.dtype:
        """The dtype as torch has it."""
        import torch

        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def cache_bytes(self, batch: int, capacity: int) -> int:
        """What the keys and values of so many rows and tokens take."""
        return 2 * self.layers * batch * self.kv_heads * capacity * self.head_width * ITEM_BYTES[self.dtype]

    def plain(self) -> dict[str, Any]:
        """As plain values, to be noted in an export."""
        return {**asdict(self), "dtype": f"torch.{self.dtype}"}  # as exports have always said it


def layout_of(noted: Mapping[str, Any]) -> Caches:
    """The layout that an export has noted."""
    return Caches(**{**noted, "dtype": named(noted["dtype"])})


def named(dtype: Any) -> str:
    """The name of a dtype of torch, which it says itself."""
    return str(dtype).removeprefix("torch.")
