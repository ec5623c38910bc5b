"""What a decoder must offer to be generated from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """A language model with its own memory of what it has read: torch, ONNX Runtime or anything else.

    A run is one `prefill`, then any number of `step` and `reorder`. The decoder chooses on which side it pads prompts of
    unequal length; no answer may depend on the other rows of the batch beyond rounding.
    """

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:
        """Forget everything, then read one prompt per row.

        prompts  float[tokens width] each: embedded tokens, spliced with whatever else the model can read; at least one token
        room     the most tokens that `step` will add, so that memory can be laid out once
        returns  float[batch vocab]: logits after each prompt's last position
        """
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token per row, int64[batch]; gives float[batch vocab]: the logits after it."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """Replace row i by what row `rows[i]` holds, int64[new batch]; the batch may grow, as when beams start."""
        ...
