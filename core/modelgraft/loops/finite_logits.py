"""Logits that are not numbers, or leave nothing to choose: caught at the token where they appear, before anything is chosen from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from modelgraft.kernel.words.errors import InputError
from modelgraft.loops.chosen import Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft.records.arrays import Array

    Row = NDArray[numpy.floating[Any]]  # float32[vocab]


FLOAT32 = numpy.dtype(numpy.float32)  # one object, unless its bytes are swapped


class Largest(NamedTuple):
    """Of each row of logits the largest number, and the first token that has it: found once, for all who look for it.

    rows  the logits as numpy sees them, where they are arrays, or float32 on the host; None: they are not
    """

    values: list[float]
    tokens: Tokens
    rows: Sequence[Row] | None = None


def seen_by_numpy(logits: Array) -> Array:
    """Logits as an array on the same memory where they are float32 on the host; all others as they are."""
    if isinstance(logits, numpy.ndarray) or not logits.is_cpu or str(logits.dtype) != "torch.float32":
        return logits
    return (logits.detach() if logits.requires_grad else logits).numpy()


def check_finite(logits: Array, *, length: int, records: Sequence[int] | None = None) -> Largest:
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


def check_allowed(scores: Array, running: Sequence[int], *, length: int) -> Largest:
    """Raise InputError when rules have forbidden every token of a row that goes on.

    scores  float[batch vocab], what rules have made of logits;  length  tokens that were written before
    """
    found = largest_of(scores)
    stuck = [row for row in running if found.values[row] == -math.inf]
    if stuck:
        raise InputError(
            f"the answer of record {stuck[0]} cannot go on after {length} tokens: its rules forbid every token; allow some, by "
            f"suppress_tokens, begin_suppress_tokens, bad_words_ids, sequence_bias, no_repeat_ngram_size or min_new_tokens"
        )
    return found


def largest_of(logits: Array) -> Largest:
    """Of each row; NaN counts as larger than any. float[batch vocab]."""
    seen = seen_by_numpy(logits)
    if not isinstance(seen, numpy.ndarray):
        return Largest(list(seen.amax(-1).tolist()), Tokens(tensor=seen.argmax(-1)))
    rows = list(seen if seen.dtype is FLOAT32 else seen.astype(numpy.float32, copy=False))
    tokens = [int(row.argmax()) for row in rows]  # the first of equal ones, as torch, which takes ten times as long
    return Largest([row.item(token) for row, token in zip(rows, tokens, strict=True)], Tokens(tokens), rows)
