"""A language model of n-grams, read from a file in ARPA format: log10 probabilities of words behind others, with back-off weights.

    \\data\\                 the number of n-grams of each order
    \\1-grams:              log10 probability, words, log10 back-off weight; parted by tabs or spaces
    \\end\\

P(word | words before) is that of the longest n-gram that is there; for each word that had to be dropped, the back-off weight of what was
before counts too. Source: the format as SRILM and KenLM write it (Katz, 1987).
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from modelgraft.plugin import InputError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
History = tuple[str, ...]
LN10 = math.log(10.0)
MOST_ORDER = 12
MOST_GRAMS = 20_000_000  # held in memory, at some 200 bytes each


class Ngrams:
    """Words behind words: `score` gives natural logarithms.

    order    of the longest n-grams;  unknown  log10 that is added for a word that is not there
    """

    def __init__(self, path: Path, *, unknown: float = -10.0) -> None:
        self.unknown = unknown
        self._known: dict[History, tuple[float, float]] = {}
        self.order = 0
        try:
            with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
                self._read(file, str(path))
        except (OSError, UnicodeDecodeError, EOFError) as error:
            raise InputError(f"{path} cannot be read as an n-gram in ARPA format: {error}; binary ones of KenLM are not read") from error

    def start(self) -> History:
        """What stands before the first word."""
        return (BEGIN,) if (BEGIN,) in self._known else ()

    def score(self, history: History, word: str) -> tuple[float, History]:
        """The natural logarithm of P(word | history), and the history behind it."""
        is_known = (word,) in self._known
        found = self._log10(history, word if is_known else UNKNOWN) + (0.0 if is_known else self.unknown)
        return LN10 * found, (*history, word)[-(self.order - 1) :] if self.order > 1 else ()

    def end(self, history: History) -> float:
        """The natural logarithm of the end of a sentence; 0 where the model has none."""
        return LN10 * self._log10(history, END) if (END,) in self._known else 0.0

    def _log10(self, history: History, word: str) -> float:
        dropped = 0.0
        for cut in range(len(history) + 1):
            found = self._known.get((*history[cut:], word))
            if found is not None:
                return dropped + found[0]
            dropped += self._known.get(history[cut:], (0.0, 0.0))[1]
        return dropped  # no unigram either: the word is unknown, and the model has no <unk>

    def _read(self, file: IO[str], name: str) -> None:
        order, is_ended = 0, False
        for number, line in enumerate(_lines(file), start=1):
            if line.startswith("\\"):
                order, is_ended = _order(line, f"{name}, line {number}"), line.startswith("\\end")
                self.order = max(self.order, order)
            elif order:
                self._take(line, order, f"{name}, line {number}")
        if not is_ended or not self._known:
            raise InputError(f"{name} is no whole n-gram in ARPA format: wanted \\1-grams: with words, and \\end\\ behind the last")

    def _take(self, line: str, order: int, place: str) -> None:
        if not line:
            return
        probability, *words = line.split()
        weight = words.pop() if len(words) == order + 1 else "0"
        try:
            found = float(probability), float(weight)
        except ValueError as error:
            raise InputError(f"{place}: {line[:80]!r} has no number where one stands in ARPA format") from error
        if len(words) != order or not all(map(math.isfinite, found)) or len(self._known) >= MOST_GRAMS:
            raise InputError(f"{place}: {line[:80]!r}, wanted a log10, {order} words, and a log10; at most {MOST_GRAMS:,} are held")
        self._known[tuple(words)] = found


def _lines(file: IO[str]) -> Iterator[str]:
    return (line.strip() for line in file)


def _order(line: str, place: str) -> int:
    """The order of a section: 0 for those that list no n-grams."""
    if not line.endswith("-grams:"):
        return 0
    found = line[1:].removesuffix("-grams:")
    if not found.isdecimal() or not 0 < int(found) <= MOST_ORDER:
        raise InputError(f"{place}: {line[:80]!r}, wanted \\1-grams: to \\{MOST_ORDER}-grams:")
    return int(found)
