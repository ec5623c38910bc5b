"""Hidden states where the tokens of prompts stand, noted while the prompts are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelgraft.records.arrays import as_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(slots=True, eq=False)
class Places:
    """Places of prompts whose hidden states are wanted. Whoever reads the prompts fills `found`.

    wanted  of each row the places of its prompt, in their order, from 0
    found   of each row float[layers places width], on the host
    """

    wanted: Sequence[Sequence[int]]
    found: list[Tensor] = field(default_factory=list)

    @property
    def first(self) -> int | None:
        """The first place that is wanted of any row; None where none is."""
        return min((places[0] for places in self.wanted if places), default=None)

    def numbers(self, last: Sequence[int], *, offsets: Sequence[int] | None = None) -> list[list[int]]:
        """[batch places+1]: where to look in what is read in one call; filled up, and at least once, with the last position.

        last     the last position of each row in that call
        offsets  where the first position of each prompt stands there, below 0 where it was read before; None: at 0
        """
        most = max(map(len, self.wanted))
        return [
            [*(place + offset for place in places), *[end] * (most + 1 - len(places))]
            for places, end, offset in zip(self.wanted, last, offsets or [0] * len(last), strict=True)
        ]

    def index(self, last: Sequence[int], device: torch.device | str, *, offsets: Sequence[int] | None = None) -> Tensor:
        """The same as a tensor, int64[batch places+1]."""
        import torch

        return torch.tensor(self.numbers(last, offsets=offsets), dtype=torch.int64, device=device)

    def take(self, states: Any) -> Any:
        """Note float[batch layers places+1 width] at `index`; gives those of the last positions, float[batch layers width]."""
        kept: Tensor = as_tensor(states).float().cpu()
        self.found = [kept[row, :, : len(places)].clone() for row, places in enumerate(self.wanted)]
        return states[:, :, -1]


def picked(states: Tensor, index: Tensor) -> Tensor:
    """float[batch tokens width] at some places of each row, int64[batch places] -> float[batch places width]."""
    return states.gather(1, index[:, :, None].expand(-1, -1, states.shape[-1]))
