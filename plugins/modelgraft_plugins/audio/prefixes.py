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

from modelgraft.plugin import InputError, home_read
from modelgraft_plugins.audio.arpa import History, Ngrams

if TYPE_CHECKING:
    from modelgraft_plugins.audio.ctc import Beam

NEVER = -math.inf
MOST_WORDS = 5_000_000

Row = Sequence[float]  # a log-probability for each class
Branch = dict[str, "Branch"]  # the beginnings of words, letter by letter; the whole ones have an entry ""


@dataclass(slots=True, eq=False)
class Prefix:
    """The beginning of a text: a node of a tree, whose children are one letter longer.

    number   of its last letter;  before  the prefix without it; both None at the root
    word     the letters of the word that is not at its end yet;  branch  where in the word list that is
    history, said   of the words before: what the language model looks at, and their score
    blank, letter   log-probabilities of the alignments up to this frame that end with a blank, or with the last letter
    next_blank, next_letter   the same up to the next frame, while they are added up
    """

    number: int | None
    before: Prefix | None
    word: str
    branch: Branch | None
    history: History
    said: float
    blank: float = NEVER
    letter: float = NEVER
    next_blank: float = NEVER
    next_letter: float = NEVER
    longer: dict[int, Prefix | None] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """What prefixes are compared by."""
        return _sum(self.blank, self.letter) + self.said

    def step(self) -> None:
        """Go on to the next frame."""
        self.blank, self.letter, self.next_blank, self.next_letter = self.next_blank, self.next_letter, NEVER, NEVER

    def numbers(self) -> list[int]:
        """Its letters from the first on."""
        found, here = [], self
        while here.before is not None and here.number is not None:
            found.append(here.number)
            here = here.before
        return found[::-1]


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
        root = Prefix(None, None, "", self.words, self.model.start() if self.model is not None else (), 0.0, blank=0.0)
        beam = [root]
        for row in rows:
            reached = self._reached(beam, row)
            for prefix in reached:
                prefix.step()
            ranked = sorted(reached, key=lambda prefix: -prefix.score)
            beam = ranked[: self.config.width]
            for prefix in ranked[self.config.width :]:
                _forget(prefix)
        scores = [self._ended(prefix) for prefix in beam]
        if max(scores) == NEVER:
            return self._without_last_word(beam[0].numbers())
        return beam[scores.index(max(scores))].numbers()

    def _reached(self, beam: Sequence[Prefix], row: Row) -> Iterable[Prefix]:
        """All that a frame can make of some prefixes, each once, with what its alignments add up to."""
        reached: dict[Prefix, None] = {}
        letters = self._likely(row)
        for prefix in beam:
            whole, last = _sum(prefix.blank, prefix.letter), prefix.number
            prefix.next_blank = _sum(prefix.next_blank, row[self.config.blank] + whole)
            if last is not None:
                prefix.next_letter = _sum(prefix.next_letter, row[last] + prefix.letter)
            reached[prefix] = None
            for number in letters:
                before = prefix.blank if number == last else whole  # the same letter twice has a blank between
                longer = self._longer(prefix, number) if before > NEVER else None
                if longer is not None:
                    longer.next_letter = _sum(longer.next_letter, row[number] + before)
                    reached[longer] = None
        return reached

    def _likely(self, row: Row) -> list[int]:
        """The letters that are looked at in a frame."""
        top = max(range(len(row)), key=row.__getitem__)
        return [number for number, value in enumerate(row) if (value >= self.config.least or number == top) and number != self.config.blank]

    def _longer(self, prefix: Prefix, number: int) -> Prefix | None:
        """The prefix with one letter more; None where the word list has no such word."""
        if number not in prefix.longer:
            token = self.config.vocabulary[number]
            is_delimiter = token == self.config.delimiter
            prefix.longer[number] = self._behind_word(prefix, number) if is_delimiter else self._behind_letter(prefix, number, token)
        return prefix.longer[number]

    def _behind_letter(self, prefix: Prefix, number: int, token: str) -> Prefix | None:
        branch = prefix.branch
        for letter in token:
            branch = branch.get(letter) if branch is not None else None
            if branch is None and self.words is not None:
                return None
        return Prefix(number, prefix, prefix.word + token, branch, prefix.history, prefix.said)

    def _behind_word(self, prefix: Prefix, number: int) -> Prefix | None:
        """Behind a delimiter: the word before it is whole, and counts."""
        if not prefix.word:  # at the beginning, or behind another delimiter
            is_fine = self.words is None or prefix.before is None
            return Prefix(number, prefix, "", self.words, prefix.history, prefix.said) if is_fine else None
        if not self._is_whole(prefix):
            return None
        score, history = self._said(prefix)
        return Prefix(number, prefix, "", self.words, history, prefix.said + score)

    def _is_whole(self, prefix: Prefix) -> bool:
        """The word at its end is in the word list, or there is no list."""
        return self.words is None or (prefix.branch is not None and "" in prefix.branch)

    def _said(self, prefix: Prefix) -> tuple[float, History]:
        """What the language model says of the word at the end of a prefix."""
        if self.model is None:
            return 0.0, ()
        word = prefix.word.lower() if self.config.lower else prefix.word
        score, history = self.model.score(prefix.history, word)
        return self.config.weight * score + self.config.bonus, history

    def _ended(self, prefix: Prefix) -> float:
        """The score of a text that ends here: none where its last word is not in the list."""
        score, history = prefix.score, prefix.history
        if prefix.word:
            if not self._is_whole(prefix):
                return NEVER
            said, history = self._said(prefix)
            score += said
        return score + (self.config.weight * self.model.end(history) if self.model is not None else 0.0)

    def _without_last_word(self, numbers: list[int]) -> list[int]:
        while numbers and self.config.vocabulary[numbers[-1]] != self.config.delimiter:
            numbers.pop()
        return numbers


def _forget(prefix: Prefix) -> None:
    """Let go of a prefix that is not kept, unless longer ones hang on it: these must find it again."""
    if prefix.before is not None and prefix.number is not None and not any(prefix.longer.values()):
        del prefix.before.longer[prefix.number]


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
    path = home_read(name)
    if not path.is_file():
        raise InputError(f"ctc/beam: there is no file {path}; name one with a word a line as words_file, one in ARPA format as ngram")
    return path
