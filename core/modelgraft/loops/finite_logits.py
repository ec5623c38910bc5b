"""Logits that are not numbers: caught at the token where they appear, before anything is chosen from them."""

from __future__ import annotations

import math

from torch import Tensor

from modelgraft.kernel.words.errors import InputError


def check_finite(logits: Tensor, *, length: int) -> None:
    """Raise InputError when the logits of a row have no largest number: one of them is NaN or infinite.

    logits  float[batch vocab] as the decoder gave them;  length  tokens that were written before
    """
    largest: list[float] = logits.amax(-1).tolist()  # NaN counts as larger than any number; a few microseconds
    if all(map(math.isfinite, largest)):
        return
    record = next(row for row, value in enumerate(largest) if not math.isfinite(value))
    raise InputError(
        f"the logits of record {record} are {largest[record]} after {length} tokens of its answer, wanted finite numbers: look for NaN "
        f"in the weights and in what the prompt embeds; float16 overflows above 65504, so run the node in float32"
    )
