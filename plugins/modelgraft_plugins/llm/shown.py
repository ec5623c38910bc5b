"""What the tokens of a prompt look at: the conditions of a decoder with gated cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The media of each record, and what its tokens see of them.

    media  float[batch images latents width]
    seen   int64[tokens] per prompt: the number of the medium that each token sees, from 1; 0: none
    ahead  tokens see what stands behind them, so that new ones see nothing; otherwise these see what the last of the prompt sees
    """

    media: Tensor
    seen: Sequence[Tensor]
    ahead: bool = False

    @property
    def new(self) -> Tensor:
        """What new tokens see, int64[prompts]."""
        last = torch.stack([row[-1] for row in self.seen])
        return torch.zeros_like(last) if self.ahead else last

    def is_like(self, other: Shown, tokens: int) -> bool:
        """Whether the first tokens of a single record see the same."""
        if not torch.equal(self.seen[0][:tokens], other.seen[0][:tokens]):
            return False
        return self.media.shape == other.media.shape and torch.equal(self.media, other.media)
