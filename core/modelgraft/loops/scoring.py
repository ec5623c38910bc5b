"""Logits to logits: penalties for what was said, tokens that may not be chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.penalties import Mentioned
from modelgraft.loops.sequences import Biases, Following
from modelgraft.loops.settings import Settings
from modelgraft.records.arrays import in_kind_of

if TYPE_CHECKING:
    from modelgraft.records.arrays import Array

FORBIDDEN = float("-inf")


@dataclass(frozen=True, slots=True)
class ScoresAsked:
    """What one answer begins from.

    said    the tokens that count as said already, in order: of the prompt, or what a decoder begins with
    length  how many positions these take, embeddings included
    read    the tokens that were read: the same, or those of an encoder's prompt
    """

    said: Sequence[int]
    length: int
    read: Sequence[int]


class Scoring:
    """The rules of one run. Costs nothing when there are none: `apply` then gives back the very logits it got. Arrays stay arrays.

    Order as in transformers: biases, penalties, n-grams, bad words, shortest length, forced tokens, decay, suppressed tokens. Before
    them all stands `scaled`, which beams call before they make log-probabilities of logits; behind them the tokens that come late.
    """

    def __init__(self, settings: Settings, asked: Sequence[ScoresAsked], like: Array) -> None:
        """asked: what each row begins from;  like: the first logits, float[batch vocab]."""
        self.settings, self.asked, vocabulary = settings, list(asked), like.shape[1]
        self.copied = _Copying()
        self.ends, self.never, self.not_first = map(_Ids, (settings.end_ids, settings.suppressed, settings.suppressed_first))
        self.has_ends, self.has_never, self.has_not_first = (bool(ids.known) for ids in (self.ends, self.never, self.not_first))
        self.factors: Any = None  # float[vocab], as the logits: what each of them is multiplied by
        if settings.token_scale:
            factors = numpy.ones(vocabulary, numpy.float32)
            for token, factor in settings.token_scale:
                factors[token] = factor
            self.factors = in_kind_of(factors, like)
        self.said: Mentioned | None = None
        if settings.repetition_penalty != 1.0:
            self.said = Mentioned([one.said for one in asked], vocabulary)
        self.read: Mentioned | None = None
        if settings.encoder_repetition_penalty != 1.0:
            self.read = Mentioned([one.read for one in asked], vocabulary)
        self.bias = Biases(settings.sequence_bias, like) if settings.sequence_bias else None
        bad = [(words, FORBIDDEN) for words in settings.bad_words_ids if len(words) > 1 or words[0] not in settings.end_ids]
        self.bad = Biases(bad, like) if bad else None
        self.texts: list[list[int]] | None = None  # all tokens of each row, in order
        self.repeats: list[Following] | None = None  # what followed what in these
        if self.bias or self.bad or settings.no_repeat_ngram_size or settings.encoder_no_repeat_ngram_size:
            self.texts = [list(one.said) for one in asked]
        if settings.no_repeat_ngram_size:
            self.repeats = [Following(one.said, settings.no_repeat_ngram_size) for one in asked]
        self.heard: list[Following] | None = None  # what followed what in that which was read
        if settings.encoder_no_repeat_ngram_size:
            self.heard = [Following(one.read, settings.encoder_no_repeat_ngram_size) for one in asked]
        others = (self.factors, self.read, self.bias, self.bad, settings.exponential_decay_length_penalty)
        is_forced = settings.forced_bos_token_id is not None or bool(settings.forced_eos_token_ids)
        self.only_lowers = not is_forced and all(other is None for other in others) and settings.repetition_penalty >= 1
        lowers = self.has_ends or self.has_never or self.has_not_first or bool(settings.token_delay)
        self.is_idle = self.only_lowers and not lowers and self.said is None and self.texts is None  # there are no rules

    def scaled(self, logits: Any) -> Any:
        """logits float[batch vocab] as the model gives them, multiplied: the very same when no token has a factor.

        A factor above 1 makes a token likelier where its logit is positive and less likely where it is negative.
        """
        if self.factors is None:
            return logits
        is_array = isinstance(logits, numpy.ndarray)
        return logits * (self.factors.astype(logits.dtype) if is_array else self.factors.to(logits.dtype))

    def apply(self, logits: Any, *, length: int) -> Any:
        """logits float[batch vocab] before token number `length` of the answer (0-based): the very same when no rule applies.

        What rules have changed lies in memory that the next call may write to.
        """
        if self.is_idle:
            return logits
        settings, mine = self.settings, _Own(logits, self.copied)
        if self.bias is not None and self.texts is not None:
            self.bias.add(mine, self.texts)
        if self.read is not None:
            self.read.penalise(mine(), 1 / settings.encoder_repetition_penalty)
        if self.said is not None:
            self.said.penalise(mine(), settings.repetition_penalty)
        if self.texts is not None:
            self._forbid_repeats(mine)
        if self.bad is not None and self.texts is not None:
            self.bad.add(mine, self.texts)
        self._end(mine, length)
        if self.has_never:
            _forbid(mine(), self.never.of(logits))
        if self.has_not_first and length == self._first_free:
            _forbid(mine(), self.not_first.of(logits))
        if settings.token_delay and (early := [token for token, count in settings.token_delay if length < count]):
            _forbid(mine(), _Ids(early).of(logits))
        return mine.logits

    def keeps(self, tokens: Tokens, running: Sequence[int], *, length: int) -> bool:
        """Whether tokens that are the likeliest before any rule, one of each row, are so behind them too, because all that the rules do
        is to make others less likely; looked at in the rows that go on. False where the rules must be asked. length: see `apply`."""
        if not self.only_lowers:
            return False
        ids, settings = tokens.ids, self.settings
        for row in running:
            token = ids[row]
            if token in self.never.known or (token in self.ends.known and length < settings.shortest(self.asked[row].length)):
                return False
            if self.has_not_first and token in settings.suppressed_first and length == self._first_free:
                return False
            if any(token == late and length < count for late, count in settings.token_delay):
                return False
            if (self.said is not None and token in self.said.known[row]) or (self.texts is not None and token in self._repeating(row)):
                return False
        return True

    def note(self, tokens: Tokens) -> None:
        """Remember the chosen tokens."""
        if self.said is not None:
            for row, token in enumerate(tokens.ids):
                self.said.take(row, token)
        if self.texts is not None:
            for row, token in enumerate(tokens.ids):
                self.texts[row].append(token)
                if self.repeats is not None:
                    self.repeats[row].take(token)

    def reorder(self, rows: Any) -> None:
        """Follow the rows of a beam search."""
        if self.said is not None:
            self.said.reorder(rows.tolist())
        if self.texts is not None:
            self.texts = [list(self.texts[row]) for row in rows.tolist()]
        if self.repeats is not None:
            self.repeats = [self.repeats[row].copy() for row in rows.tolist()]

    def _repeating(self, row: int) -> list[int]:
        """The tokens with which the text of a row would hold so many tokens a second time."""
        assert self.texts is not None
        return [token for told in (self.repeats, self.heard) if told is not None for token in told[row].after(self.texts[row])]

    def _forbid_repeats(self, mine: _Own) -> None:
        for row in range(len(self.asked)):
            banned = [token for token in self._repeating(row) if token < mine.logits.shape[1]]
            if banned:
                mine()[row, banned] = FORBIDDEN

    def _end(self, mine: _Own, length: int) -> None:
        """The rules about where an answer begins and ends; they depend on the row, because prompts have their own lengths."""
        settings = self.settings
        if self.has_ends:
            early = [row for row, one in enumerate(self.asked) if length < settings.shortest(one.length)]
            if early:
                _forbid(mine(), self.ends.of(mine.given), early)
        if settings.forced_bos_token_id is not None:
            alone = [row for row, one in enumerate(self.asked) if one.length + length == 1]
            _force(mine, alone, (settings.forced_bos_token_id,))
        if settings.forced_eos_token_ids:
            last = [row for row, one in enumerate(self.asked) if length == settings.longest(one.length) - 1]
            _force(mine, last, settings.forced_eos_token_ids)
        if settings.exponential_decay_length_penalty is not None and self.has_ends:
            self._decay(mine, length, *settings.exponential_decay_length_penalty)

    def _decay(self, mine: _Own, length: int, start: int, factor: float) -> None:
        if length <= start:
            return
        ends = self.ends.of(mine.logits)
        size = abs(mine.logits[:, ends])
        size[size == float("inf")] = 0.0  # what is forbidden stays so
        with numpy.errstate(over="ignore"):
            mine()[:, ends] += size * (factor ** (length - start) - 1)

    @property
    def _first_free(self) -> int:
        """The first token of an answer that is not forced."""
        is_forced = self.settings.forced_bos_token_id is not None and all(one.length <= 1 for one in self.asked)
        return 1 if is_forced else 0


class _Own:
    """Logits that are copied before the first rule changes them: called, it gives what may be changed."""

    def __init__(self, logits: Any, copied: Callable[[Any], Any]) -> None:
        self.given = self.logits = logits
        self.copied = copied

    def __call__(self) -> Any:
        if self.logits is self.given:
            self.logits = self.copied(self.given)
        return self.logits


class _Copying:
    """Copies logits; arrays always into the same memory."""

    def __init__(self) -> None:
        self.memory: Any = None  # float[batch vocab], as the arrays

    def __call__(self, logits: Any) -> Any:
        if not isinstance(logits, numpy.ndarray):
            return logits.clone()
        if self.memory is None or self.memory.shape != logits.shape:
            self.memory = numpy.empty(logits.shape, logits.dtype)
        self.memory[...] = logits
        return self.memory


class _Ids:
    """Some tokens, int64[n], as an array or a tensor once a rule about them applies."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.known = frozenset(ids)
        self.made: Any = None

    def of(self, logits: Any) -> Any:
        """In the kind of logits, where these lie."""
        if self.made is None:
            self.made = in_kind_of(numpy.array(sorted(self.known), numpy.int64), logits)
        return self.made


def _forbid(logits: Any, ids: Any, rows: Sequence[int] | None = None) -> None:
    """No token of these may be chosen, in some rows or in all."""
    if rows is not None and len(rows) < len(logits):
        logits[in_kind_of(numpy.array(rows, numpy.int64), logits)[:, None], ids] = FORBIDDEN
    elif isinstance(logits, numpy.ndarray):
        logits[:, ids] = FORBIDDEN
    else:
        logits.index_fill_(1, ids, FORBIDDEN)


def _force(mine: _Own, rows: Sequence[int], ids: Sequence[int]) -> None:
    """Nothing but some tokens may be chosen in some rows."""
    if not rows:
        return
    logits = mine()
    logits[list(rows)] = FORBIDDEN
    for token in ids:
        logits[list(rows), token] = 0
