"""The memory that sessions of an exported decoder are bound to: its cache, and what its runs write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from modelgraft_plugins.llm.looking import Look
from modelgraft_plugins.llm.stepping import DecodeStep


@dataclass(slots=True, eq=False)
class Memory:
    """What the sessions of a decoder are bound to, one after the other.

    cache     keys and values of the layers by turns, float[batch kv_heads capacity head_width];  outputs  what runs write beside these
    capacity  tokens that may be read into it
    beside  further inputs that stay where they are, by name;  one  what reads one token per row, bound to all of it
    looks   what reads several, by their number
    logits  float[batch vocab]: behind the last position of each row, as the outputs hold them
    """

    cache: list[Tensor]
    capacity: int
    outputs: dict[str, Tensor]
    beside: dict[str, Tensor] = field(default_factory=dict)
    one: DecodeStep | None = None
    looks: dict[int, Look] = field(default_factory=dict)
    logits: Tensor = field(init=False)

    def __post_init__(self) -> None:
        logits = self.outputs["logits"]
        self.logits = logits if logits.ndim == 2 else logits[:, 0]

    @property
    def bytes(self) -> int:
        """What it takes."""
        return sum(tensor.nbytes for tensor in (*self.cache, *self.outputs.values(), *self.beside.values()))

    def row(self, row: int) -> Memory:
        """The memory of one row, which is a part of this."""
        one = slice(row, row + 1)
        cache, outputs = [slab[one] for slab in self.cache], {name: tensor[one] for name, tensor in self.outputs.items()}
        return Memory(cache, self.capacity, outputs, {name: tensor[one] for name, tensor in self.beside.items()})

    def picked(self, rows: Tensor) -> Memory:
        """Other memory, with these rows, int64[n] on its device; nothing is bound to it."""
        cache = [slab.index_select(0, rows) for slab in self.cache]
        outputs = {name: tensor.index_select(0, rows) for name, tensor in self.outputs.items()}
        return Memory(cache, self.capacity, outputs, {name: tensor.index_select(0, rows) for name, tensor in self.beside.items()})


def sizes_of(axes: Sequence[int | str], places: int) -> list[int]:
    """The sizes of an output behind its batch: the one that is open is that of places."""
    return [places if isinstance(axis, str) else axis for axis in axes[1:]]
