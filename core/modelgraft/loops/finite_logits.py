"""Logits that are not numbers, or leave nothing to choose: caught at the token where they appear, before anything is chosen from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modelgraft.kernel.words.errors import InputError


def check_finite(logits: Tensor, *, length: int, records: Sequence[int] | None = None) -> None:
    """Raise InputError when the logits of a row have no largest number: one of them is NaN or infinite.

    logits   float[batch vocab] as the decoder gave them;  length  tokens that were written before
    records  the number of each row's record, where that is not the row's own
    """
    largest: list[float] = _largest(logits)
    if all(map(math.isfinite, largest)):
        return
    row = next(row for row, value in enumerate(largest) if not math.isfinite(value))
    record = row if records is None else records[row]
    raise InputError(
        f"the logits of record {record} are {largest[row]} after {length} tokens of its answer, wanted finite numbers: look for NaN "
        f"in the weights and in what the prompt embeds; float16 overflows above 65504, so run the node in float32"
    )


def check_allowed(scores: Tensor, rows: Sequence[int], *, length: int) -> None:
    """Raise InputError when rules have forbidden every token of a row that goes on.

    scores  float[batch vocab], what rules have made of logits;  length  tokens that were written before
    """
    largest: list[float] = _largest(scores)
    stuck = [row for row in rows if largest[row] == -math.inf]
    if stuck:
        raise InputError(
            f"the answer of record {stuck[0]} cannot go on after {length} tokens: its rules forbid every token; allow some, by "
            f"suppress_tokens, begin_suppress_tokens, bad_words_ids, sequence_bias, no_repeat_ngram_size or min_new_tokens"
        )


def _largest(logits: Tensor) -> list[float]:
    """The largest number of each row; NaN counts as larger than any."""
    if logits.device.type == "cpu" and logits.dtype is torch.float32:
        return list(logits.detach().numpy().max(-1).tolist())  # two thirds of what torch takes
    return list(logits.amax(-1).tolist())
