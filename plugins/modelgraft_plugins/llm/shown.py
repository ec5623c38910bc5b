"""What the tokens of a prompt look at: the conditions of a decoder with gated cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.plugin import Array, as_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The media of each record, and what its tokens see of them.

    media  float[batch images latents width]: an array, or in torch a tensor
    seen   on the host, int64[tokens] per prompt: the number of the medium that each token sees, from 1; 0: none
    ahead  tokens see what stands behind them, so that new ones see nothing; otherwise these see what the last of the prompt sees
    """

    media: Array
    seen: Sequence[NDArray[numpy.int64]]
    ahead: bool = False

    @property
    def new(self) -> NDArray[numpy.int64]:
        """What new tokens see, int64[prompts]."""
        return numpy.array([0 if self.ahead else row[-1] for row in self.seen], dtype=numpy.int64)

    def is_like(self, other: Shown, tokens: int) -> bool:
        """Whether the first tokens of a single record see the same."""
        if not numpy.array_equal(self.seen[0][:tokens], other.seen[0][:tokens]):
            return False
        mine: Any = self.media
        if hasattr(mine, "equal"):  # a tensor, which may lie on a device
            return bool(mine.shape == other.media.shape and mine.equal(other.media))
        return numpy.array_equal(mine, as_array(other.media))
