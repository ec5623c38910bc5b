"""Prefix beam search for CTC: the likeliest text over all ways to align it, with a word list and a language model.

A prefix is the beginning of a text. At each frame it keeps two log-probabilities: of all alignments so far that end with a blank, and of
those that end with its last letter. The next frame leaves it as it is (a blank, or the last letter going on) or makes it one letter
longer; ways that lead to the same prefix add up. Of all prefixes the best `width` are kept, by their probability and what the words say.
Source: Graves, 2012 (prefix search); arXiv 1408.2873, algorithm 1 (with words). Checked against all texts of a small vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft.plugin import InputError
from modelgraft_plugins.audio.arpa import History, Ngrams

if TYPE_CHECKING:
    from modelgraft_plugins.audio.ctc import Beam

NEVER = -math.inf
MOST_WORDS = 5_000_000

Row = Sequence[float]  # a log-probability for each class
Branch = dict[str, "Branch"]  # the beginnings of words, letter by letter; the whole ones have an entry ""


@dataclass(slots=True)
class Prefix:
    """The beginning of a text.

    numbers  of its letters;  word  the letters of the word that is not at its end yet;  branch  where in the word list that is
    history, said   of the words before: what the language model looks at, and their score
    blank, letter   log-probabilities of the alignments that end with a blank, or with the last letter
    """

    numbers: tuple[int, ...]
    word: str
    branch: Branch | None
    history: History
    said: float
    blank: float = NEVER
    letter: float = NEVER

    @property
    def score(self) -> float:
        """What prefixes are compared by."""
        return _sum(self.blank, self.letter) + self.said


@dataclass(slots=True)
class _Frame:
    """The prefixes behind a frame."""

    found: dict[tuple[int, ...], Prefix] = field(default_factory=dict)

    def stay(self, prefix: Prefix) -> Prefix:
        """The same prefix, one frame later."""
        known = self.found.get(prefix.numbers)
        if known is None:
            known = Prefix(prefix.numbers, prefix.word, prefix.branch, prefix.history, prefix.said)
            self.found[prefix.numbers] = known
        return known


class Search:
    """Finds texts; holds the word list and the language model."""

    def __init__(self, config: Beam) -> None:
        self.config = config
        self.words = _tree(_listed(config))
        self.model = Ngrams(_there(config.ngram), unknown=config.unknown) if config.ngram else None

    def best(self, rows: Sequence[Row]) -> list[int]:
        """The numbers of the letters of the likeliest text; `rows` are log-probabilities per frame.

        Where a word list is given, and no text of whole words is left at the end, what was begun last is left out.
        """
        start = Prefix((), "", self.words, self.model.start() if self.model is not None else (), 0.0, blank=0.0)
        beam = [start]
        for row in rows:
            frame = _Frame()
            letters = self._likely(row)
            for prefix in beam:
                self._go_on(frame, prefix, row, letters)
            beam = sorted(frame.found.values(), key=lambda prefix: -prefix.score)[: self.config.width]
        ends = [(ended, score) for prefix in beam for ended, score in (self._ended(prefix),)]
        whole = [end for end in ends if end[1] > NEVER]
        if not whole:
            return self._without_last_word(beam[0].numbers)
        return list(max(whole, key=lambda end: end[1])[0])

    def _likely(self, row: Row) -> list[int]:
        """The letters that are looked at in a frame."""
        top = max(range(len(row)), key=row.__getitem__)
        return [number for number, value in enumerate(row) if (value >= self.config.least or number == top) and number != self.config.blank]

    def _go_on(self, frame: _Frame, prefix: Prefix, row: Row, letters: Iterable[int]) -> None:
        """All that a frame can make of a prefix."""
        whole = _sum(prefix.blank, prefix.letter)
        stays = frame.stay(prefix)
        stays.blank = _sum(stays.blank, row[self.config.blank] + whole)
        last = prefix.numbers[-1] if prefix.numbers else None
        if last is not None:
            stays.letter = _sum(stays.letter, row[last] + prefix.letter)
        for number in letters:
            before = prefix.blank if number == last else whole  # the same letter twice has a blank between
            if before > NEVER and (longer := self._longer(frame, prefix, number)) is not None:
                longer.letter = _sum(longer.letter, row[number] + before)

    def _longer(self, frame: _Frame, prefix: Prefix, number: int) -> Prefix | None:
        """The prefix with one letter more; None where the word list has no such word."""
        numbers = (*prefix.numbers, number)
        known = frame.found.get(numbers)
        if known is not None:
            return known
        token = self.config.vocabulary[number]
        made = self._behind_word(prefix, numbers) if token == self.config.delimiter else self._behind_letter(prefix, numbers, token)
        if made is not None:
            frame.found[numbers] = made
        return made

    def _behind_letter(self, prefix: Prefix, numbers: tuple[int, ...], token: str) -> Prefix | None:
        branch = prefix.branch
        for letter in token:
            branch = branch.get(letter) if branch is not None else None
            if branch is None and self.words is not None:
                return None
        return Prefix(numbers, prefix.word + token, branch, prefix.history, prefix.said)

    def _behind_word(self, prefix: Prefix, numbers: tuple[int, ...]) -> Prefix | None:
        """Behind a delimiter: the word before it is whole, and counts."""
        if not prefix.word:  # at the beginning, or behind another delimiter
            is_fine = self.words is None or not prefix.numbers
            return Prefix(numbers, "", self.words, prefix.history, prefix.said) if is_fine else None
        if self.words is not None and (prefix.branch is None or "" not in prefix.branch):
            return None
        score, history = self._said(prefix)
        return Prefix(numbers, "", self.words, history, prefix.said + score)

    def _said(self, prefix: Prefix) -> tuple[float, History]:
        """What the language model says of the word at the end of a prefix."""
        if self.model is None:
            return 0.0, ()
        word = prefix.word.lower() if self.config.lower else prefix.word
        score, history = self.model.score(prefix.history, word)
        return self.config.weight * score + self.config.bonus, history

    def _ended(self, prefix: Prefix) -> tuple[tuple[int, ...], float]:
        """A text that ends here, and its score: none where its last word is not in the list."""
        said, history = prefix.said, prefix.history
        if prefix.word:
            if self.words is not None and (prefix.branch is None or "" not in prefix.branch):
                return prefix.numbers, NEVER
            score, history = self._said(prefix)
            said += score
        end = self.config.weight * self.model.end(history) if self.model is not None else 0.0
        return prefix.numbers, _sum(prefix.blank, prefix.letter) + said + end

    def _without_last_word(self, numbers: tuple[int, ...]) -> list[int]:
        kept = list(numbers)
        while kept and self.config.vocabulary[kept[-1]] != self.config.delimiter:
            kept.pop()
        return kept


def _sum(one: float, other: float) -> float:
    """ln(exp(one) + exp(other))."""
    if one < other:
        one, other = other, one
    return one if other == NEVER else one + math.log1p(math.exp(other - one))


def _listed(config: Beam) -> list[str]:
    """The words of the config and of its file, as they are written in the vocabulary."""
    found = list(config.words)
    if config.words_file:
        found += _there(config.words_file).read_text(encoding="utf-8").split()
    if len(found) > MOST_WORDS:
        raise InputError(f"ctc/beam: the word list has {len(found):,} words; at most {MOST_WORDS:,} are held")
    letters = set("".join(config.vocabulary))
    spelt = [word.upper() if config.lower else word for word in found]
    odd = sorted({word for word in spelt if not set(word) <= letters})
    if found and len(odd) == len(set(spelt)):
        raise InputError(f"ctc/beam: no word of the list can be spelt with the letters of the vocabulary; the first is {odd[0]!r}")
    return spelt


def _tree(words: Iterable[str]) -> Branch | None:
    """The beginnings of all words; None for no list."""
    root: Branch = {}
    for word in words:
        branch = root
        for letter in word:
            branch = branch.setdefault(letter, {})
        branch[""] = {}
    return root or None


def _there(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"ctc/beam: there is no file {path}; name one with a word a line as words_file, one in ARPA format as ngram")
    return path
