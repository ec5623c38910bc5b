"""Logits that are not numbers, or leave nothing to choose: caught at the token where they appear, before anything is chosen from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelgraft.kernel.words.errors import InputError


@dataclass(frozen=True, slots=True)
class Largest:
    """Of each row of logits the largest number, and the first token that has it: found once, for all who look for it."""

    values: list[float]
    tokens: Tensor  # int64[batch]


def check_finite(logits: Tensor, *, length: int, records: Sequence[int] | None = None) -> Largest:
    """Raise InputError when the logits of a row have no largest number: one of them is NaN or infinite.

    logits   float[batch vocab] as the decoder gave them;  length  tokens that were written before
    records  the number of each row's record, where that is not the row's own
    """
    found = largest_of(logits)
    largest = found.values
    if all(map(math.isfinite, largest)):
        return found
    row = next(row for row, value in enumerate(largest) if not math.isfinite(value))
    record = row if records is None else records[row]
    raise InputError(
        f"the logits of record {record} are {largest[row]} after {length} tokens of its answer, wanted finite numbers: look for NaN "
        f"in the weights and in what the prompt embeds; float16 overflows above 65504, so run the node in float32"
    )


def check_allowed(scores: Tensor, rows: Sequence[int], *, length: int) -> Largest:
    """Raise InputError when rules have forbidden every token of a row that goes on.

    scores  float[batch vocab], what rules have made of logits;  length  tokens that were written before
    """
    found = largest_of(scores)
    stuck = [row for row in rows if found.values[row] == -math.inf]
    if stuck:
        raise InputError(
            f"the answer of record {stuck[0]} cannot go on after {length} tokens: its rules forbid every token; allow some, by "
            f"suppress_tokens, begin_suppress_tokens, bad_words_ids, sequence_bias, no_repeat_ngram_size or min_new_tokens"
        )
    return found


def largest_of(logits: Tensor) -> Largest:
    """Of each row; NaN counts as larger than any. float[batch vocab]"""
    if logits.device.type == "cpu" and logits.dtype is torch.float32:
        rows = logits.detach().numpy()
        tokens = rows.argmax(-1)  # the first of equal ones, as torch, which takes ten times as long
        return Largest([float(row[token]) for row, token in zip(rows, tokens, strict=True)], torch.from_numpy(tokens))
    return Largest(list(logits.amax(-1).tolist()), logits.argmax(-1))
