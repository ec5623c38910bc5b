"""The work of the routers: one mask per way, of which exactly one is true for each record."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.routers import ELSE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.routers import Bounds, Length, Match, Threshold

Masks = dict[str, "NDArray[np.bool_]"]  # bool[batch] by way

# Where a pattern must stand, as what is put around it.
AROUND = {
    "anywhere": ("", ""),
    "word": (r"(?<!\w)", r"(?!\w)"),
    "start": (r"\A", ""),
    "end": ("", r"\Z"),
    "whole": (r"\A", r"\Z"),
}


def match(config: Match, _context: LoadContext) -> Callable[[list[Any]], Masks]:
    """Make the function from texts, or lists of texts, to a mask for each way."""
    before, after = AROUND[config.where]
    flags = re.DOTALL if config.case else re.DOTALL | re.IGNORECASE
    tried = {
        name: [re.compile(f"{before}{expression}{after}", flags) for expression in expressions]
        for name, expressions in config.searched().items()
    }

    def way_of(record: str | Sequence[str]) -> str:
        texts = [record] if isinstance(record, str) else record
        hits = (name for name, tests in tried.items() if any(test.search(text) for test in tests for text in texts))
        return next(hits, ELSE)

    return lambda records: _masks(config.one_of(), [way_of(record) for record in records])


def threshold(config: Threshold, _context: LoadContext) -> Callable[[Any], Masks]:
    """Make the function from scores to a mask for each way."""

    def decisive(score: Any) -> list[float]:  # Any: float[batch] or float[batch scores]
        if config.of == "one":
            return score.tolist()  # type: ignore[no-any-return]
        if isinstance(config.of, int):
            if config.of >= score.shape[1]:
                raise InputError(f"there are {score.shape[1]} scores, and number {config.of} is looked at, counted from 0")
            return score[:, config.of].tolist()  # type: ignore[no-any-return]
        found = score.max(1) if config.of == "largest" else score.min(1)
        return found.tolist()  # type: ignore[no-any-return]

    return lambda score: _compared(config, decisive(score))


def length(config: Length, _context: LoadContext) -> Callable[[Any], Masks]:
    """Make the function from what is measured to a mask for each way."""
    measures: dict[str, Callable[[Any], list[float]]] = {
        "letters": lambda texts: [len(text) for text in texts],
        "words": lambda texts: [len(text.split()) for text in texts],
        "items": lambda lists: [len(items) for items in lists],
        "tokens": lambda mask: mask.sum(1).tolist(),
        "seconds": lambda sounds: [sound.samples.shape[1] / sound.sample_rate_hz for sound in sounds],
    }
    measure = measures[config.unit]
    return lambda records: _compared(config, measure(records))


def _compared(config: Bounds, numbers: list[float]) -> Masks:
    """A number that is none (NaN) is neither above nor below."""
    return _masks(config.one_of(), [_side(config, number) for number in numbers])


def _side(config: Bounds, number: float) -> str:
    if config.above is not None and number > config.above:
        return "above"
    return "below" if config.below is not None and number < config.below else ELSE


def _masks(ways: Sequence[str], taken: Sequence[str]) -> Masks:
    return {way: np.array([one == way for one in taken], dtype=bool) for way in ways}
