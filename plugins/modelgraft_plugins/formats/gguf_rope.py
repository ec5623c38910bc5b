"""How a GGUF file scales the frequencies of rotary positions, in the words of transformers' `rope_parameters`.

    rope_freqs.weight      float32[head/2]: what each frequency is divided by (Llama 3.1 and later)
    <arch>.rope.scaling.*  linear and yarn, by numbers

Nothing but `struct` is needed: a graph is checked with these numbers before anything is converted.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from modelgraft_plugins.formats.gguf_file import GgufFile, Stored

FREQUENCIES = "rope_freqs.weight"
FLOAT32 = 0  # the number of that quantisation
CLOSE = 1e-5  # as a part: the divisors are stored in float32
LOW, HIGH = 1.0, 4.0  # of every published Llama 3
FACTORS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
LARGEST_POWER = 21  # original contexts that are tried are powers of two up to 2**20

Get = Callable[..., Any]  # Any: metadata are numbers of several types


def rope_parameters(source: GgufFile, get: Get, *, head_size: int) -> dict[str, Any]:
    """The `rope_parameters` of a config. Raises ValueError for a scaling that transformers has no words for."""
    base = float(get("rope.freq_base", 10_000.0))  # the default of GGUF
    kind, factor = get("rope.scaling.type", "linear"), float(get("rope.scaling.factor", get("rope.scale_linear", 0.0)))
    by_numbers = _by_numbers(get, kind, factor)
    stored = next((stored for stored in source.tensors if stored.name == FREQUENCIES), None)
    divisors = _read(source, stored, head_size // 2) if stored is not None else None
    if divisors is None or all(math.isclose(divisor, 1.0, rel_tol=CLOSE) for divisor in divisors):
        return {"rope_theta": base, **by_numbers}
    if by_numbers["rope_type"] != "default":
        raise ValueError(f"it scales its rotary positions twice, by {FREQUENCIES} and by rope.scaling.type = '{kind}'")
    return {"rope_theta": base, **_by_divisors(divisors, base, longest=get("context_length"))}


def _by_numbers(get: Get, kind: str, factor: float) -> dict[str, Any]:
    if kind == "none" or (kind in ("linear", "yarn") and factor in (0.0, 1.0)):
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise ValueError(f"it scales its rotary positions in the way '{kind}'; the ways read are none, linear, yarn")
    stretched = get("rope.scaling.attn_factor", 1.0) * get("rope.scaling.yarn_attn_factor", 1.0)
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": get("rope.scaling.original_context_length", get("context_length")),
        "attention_factor": stretched * (1.0 + 0.1 * math.log(factor)),  # llama.cpp: rope_yarn, mscale
        "beta_fast": float(get("rope.scaling.yarn_beta_fast", 32.0)),
        "beta_slow": float(get("rope.scaling.yarn_beta_slow", 1.0)),
    }


def _read(source: GgufFile, stored: Stored, wanted: int) -> tuple[float, ...]:
    if stored.kind != FLOAT32 or stored.shape != (wanted,):
        raise ValueError(f"its {FREQUENCIES} has the shape {list(stored.shape)} (quantisation {stored.kind}), wanted float32 [{wanted}]")
    with source.path.open("rb") as file:
        file.seek(stored.start)
        raw = file.read(4 * wanted)
    if len(raw) != 4 * wanted:
        raise ValueError(f"it is cut: tensor '{FREQUENCIES}' is not whole")
    return struct.unpack(f"<{wanted}f", raw)


def _by_divisors(divisors: Sequence[float], base: float, *, longest: int) -> dict[str, Any]:
    """Llama 3's rule where it gives these divisors; otherwise the divisors themselves, which LongRoPE takes one by one."""
    frequencies = [base ** (-index / len(divisors)) for index in range(len(divisors))]
    factors = (max(divisors), *(factor for factor in FACTORS if factor > max(divisors)))  # the longest wave may be on its way to it
    for factor, low, high, original in ((each, *guess) for each in factors for guess in _guesses(divisors, frequencies, each)):
        made = [_llama3(frequency, factor, low, high, original) for frequency in frequencies]
        if all(math.isclose(one, other, rel_tol=CLOSE) for one, other in zip(made, divisors, strict=True)):
            return {
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }  # fmt: skip
    each = list(divisors)
    return {
        "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": each, "long_factor": each,
        "original_max_position_embeddings": longest,
    }  # fmt: skip


def _llama3(frequency: float, factor: float, low: float, high: float, original: int) -> float:
    """What a frequency is divided by: 1 for short waves, `factor` for long ones, and something between on the way."""
    turns = original * frequency / (2 * math.pi)  # within the original context
    if turns > high:
        return 1.0
    if turns < low:
        return factor
    smooth = (turns - low) / (high - low)
    return 1.0 / ((1.0 - smooth) / factor + smooth)


def _guesses(divisors: Sequence[float], frequencies: Sequence[float], factor: float) -> Iterator[tuple[float, float, int]]:
    """Numbers of Llama 3's rule that may have made the divisors: low, high, original context.

    Between its ends the rule is a line over the frequency, which two points decide; with the usual ends one does.
    """
    between = [
        (frequency, (1 / divisor - 1 / factor) / (1 - 1 / factor))
        for frequency, divisor in zip(frequencies, divisors, strict=True)
        if 1.0 + CLOSE < divisor < factor * (1.0 - CLOSE)
    ]
    if len(between) > 1:
        (one, smooth), (other, smoother) = between[0], between[-1]
        slope = (smooth - smoother) / (one - other)
        start = smooth - slope * one
        if start < 0 < slope:
            span = -LOW / start
            yield LOW, LOW + span, round(2 * math.pi * slope * span)
    for frequency, smooth in between[:1]:
        yield LOW, HIGH, round(2 * math.pi * (smooth * (HIGH - LOW) + LOW) / frequency)
    yield from ((LOW, HIGH, 2**power) for power in range(1, LARGEST_POWER))
