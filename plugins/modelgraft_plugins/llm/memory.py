"""The memory that sessions of an exported decoder are bound to: its cache, and what its runs write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelgraft_plugins.llm.holding import Held, Holding
    from modelgraft_plugins.llm.looking import Look
    from modelgraft_plugins.llm.stepping import DecodeStep

FEWER = "take fewer records at once, a shorter prompt, or a smaller max_new_tokens"  # what helps where it does not suffice


@dataclass(slots=True, eq=False)
class Memory:
    """What the sessions of a decoder are bound to, one after the other: arrays on the host, tensors on a device.

    cache     keys and values of the layers by turns, float[batch kv_heads capacity head_width];  outputs  what runs write beside these
    capacity  tokens that may be read into it
    beside  further inputs that stay where they are, by name;  one  what reads one token per row, bound to all of it
    looks   what reads several, by their number
    logits  float[batch vocab]: behind the last position of each row, as the outputs hold them
    """

    cache: list[Held]
    capacity: int
    outputs: dict[str, Held]
    beside: dict[str, Held] = field(default_factory=dict)
    one: DecodeStep | None = None
    looks: dict[int, Look] = field(default_factory=dict)
    logits: Held = field(init=False)

    def __post_init__(self) -> None:
        logits = self.outputs["logits"]
        self.logits = logits if logits.ndim == 2 else logits[:, 0]

    @property
    def bytes(self) -> int:
        """What it takes."""
        return sum(held.nbytes for held in (*self.cache, *self.outputs.values(), *self.beside.values()))

    def row(self, row: int) -> Memory:
        """The memory of one row, which is a part of this."""
        one = slice(row, row + 1)
        cache, outputs = [slab[one] for slab in self.cache], {name: held[one] for name, held in self.outputs.items()}
        return Memory(cache, self.capacity, outputs, {name: held[one] for name, held in self.beside.items()})

    def picked(self, rows: Sequence[int], holding: Holding) -> Memory:
        """Other memory, with these rows; nothing is bound to it."""
        cache = [holding.rows(slab, rows) for slab in self.cache]
        outputs = {name: holding.rows(held, rows) for name, held in self.outputs.items()}
        return Memory(cache, self.capacity, outputs, {name: holding.rows(held, rows) for name, held in self.beside.items()})


def sizes_of(axes: Sequence[int | str], places: int) -> list[int]:
    """The sizes of an output behind its batch: the one that is open is that of places."""
    return [places if isinstance(axis, str) else axis for axis in axes[1:]]
