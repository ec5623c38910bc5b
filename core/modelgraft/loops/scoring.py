"""Logits to logits: penalties for what was said, tokens that may not be chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.sequences import Biases, Following
from modelgraft.loops.settings import Settings
from modelgraft.records.arrays import in_kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft.records.arrays import Array

FORBIDDEN = float("-inf")
ROOM = 64  # further tokens that there is room for at first


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
        self.said: Any = None  # int64[batch n]: what each row has said, filled up with some of it; -1: nothing yet
        self.count = 0  # of its columns that are used
        if settings.repetition_penalty != 1.0:
            self.said = _padded([_known(one.said, vocabulary) for one in asked], like)
            self.count = self.said.shape[1]
        self.has_silent = self.said is not None and (self.count == 0 or bool((self.said < 0).any()))  # a row that has said nothing
        self.read: Any = None
        if settings.encoder_repetition_penalty != 1.0:
            self.read = _padded([_known(one.read, vocabulary) for one in asked], like)
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
        others = (self.factors, self.said, self.read, self.texts, settings.exponential_decay_length_penalty)
        is_forced = settings.forced_bos_token_id is not None or bool(settings.forced_eos_token_ids)
        self.only_forbids = not is_forced and all(other is None for other in others)
        forbids = self.has_ends or self.has_never or self.has_not_first or bool(settings.token_delay)
        self.is_idle = self.only_forbids and not forbids  # there are no rules

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
            _penalise(mine(), self.read, 1 / settings.encoder_repetition_penalty)
        if self.said is not None:
            _penalise(mine(), self.said[:, : self.count], settings.repetition_penalty)
        if self.texts is not None:
            self._forbid_repeats(mine, self.texts)
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
        is to forbid others; looked at in the rows that go on. False where the rules must be asked. length: see `apply`."""
        if not self.only_forbids:
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
        return True

    def note(self, tokens: Tokens) -> None:
        """Remember the chosen tokens."""
        if self.said is not None:
            self.said = self._with(self.said, tokens)
            self.count += 1
        if self.texts is not None:
            for row, token in enumerate(tokens.ids):
                self.texts[row].append(token)
                if self.repeats is not None:
                    self.repeats[row].take(token)

    def _with(self, said: Any, tokens: Tokens) -> Any:
        """What was said with one more token of each row."""
        ways: Any = numpy
        newest: Any = tokens.array if isinstance(said, numpy.ndarray) else tokens.tensor
        if not isinstance(said, numpy.ndarray):
            import torch as ways
        if self.has_silent:
            said = ways.where(said < 0, newest[:, None], said)  # a row that had said nothing has said this
            self.has_silent = False
        if self.count == said.shape[1]:
            said = ways.concatenate([said, *[newest[:, None]] * max(self.count, ROOM)], 1)
        said[:, self.count] = newest
        return said

    def reorder(self, rows: Any) -> None:
        """Follow the rows of a beam search."""
        if self.said is not None:
            self.said = self.said[rows]
        if self.texts is not None:
            self.texts = [list(self.texts[row]) for row in rows.tolist()]
        if self.repeats is not None:
            self.repeats = [self.repeats[row].copy() for row in rows.tolist()]

    def _forbid_repeats(self, mine: _Own, texts: Sequence[Sequence[int]]) -> None:
        for told in (self.repeats, self.heard):
            for row, following in enumerate(told or ()):
                banned = [token for token in following.after(texts[row]) if token < mine.logits.shape[1]]
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
    """Copies logits. On the host always into the same memory, and by one thread.

    A copy by several would cost a session more than it saves: those of torch look for work for milliseconds after each call, on the
    cores that the next step needs (SmolLM2-135M in 4 bits on two cores: 10.1 instead of 6.3 ms a step).
    """

    def __init__(self) -> None:
        self.memory: Any = None  # float[batch vocab], in the kind of the logits
        self.seen: Any = None  # the same as numpy sees it

    def __call__(self, logits: Any) -> Any:
        if isinstance(logits, numpy.ndarray):
            seen = logits
        elif logits.is_cpu and str(logits.dtype) == "torch.float32":
            seen = logits.detach().numpy()
        else:
            return logits.clone()
        if self.memory is None or self.memory.shape != logits.shape:
            self.seen = numpy.empty(seen.shape, seen.dtype)
            self.memory = in_kind_of(self.seen, logits)
        self.seen[...] = seen
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


def _penalise(logits: Any, said: Any, penalty: float) -> None:
    """Make tokens that were said less likely; said int64[batch n], -1 where nothing was."""
    if isinstance(logits, numpy.ndarray):
        _penalise_array(logits, said, numpy.float32(penalty))  # one of Python would come to the type of the logits, if that is less exact
        return
    import torch

    index = said.clamp(min=0)
    found = logits.gather(1, index)
    softened = torch.where(found < 0, found * penalty, found / penalty)
    logits.scatter_(1, index, torch.where(said < 0, found, softened))


def _penalise_array(logits: NDArray[Any], said: NDArray[Any], penalty: numpy.float32) -> None:
    """See `_penalise`."""
    index = numpy.maximum(said, 0)
    found = numpy.take_along_axis(logits, index, 1)
    with numpy.errstate(over="ignore"):
        softened = numpy.where(found < 0, found * penalty, found / penalty)
    numpy.put_along_axis(logits, index, numpy.where(said < 0, found, softened), 1)


def _force(mine: _Own, rows: Sequence[int], ids: Sequence[int]) -> None:
    """Nothing but some tokens may be chosen in some rows."""
    if not rows:
        return
    logits = mine()
    logits[list(rows)] = FORBIDDEN
    for token in ids:
        logits[list(rows), token] = 0


def _known(tokens: Sequence[int], vocabulary: int) -> list[int]:
    return [token for token in tokens if 0 <= token < vocabulary]


def _padded(rows: Sequence[Sequence[int]], like: Array) -> Any:
    """Rows of tokens, each as long as the longest: filled up with its first one, with -1 where there is none."""
    longest = max(map(len, rows), default=0)
    filled = [[*row, *[row[0] if row else -1] * (longest - len(row))] for row in rows]
    return in_kind_of(numpy.array(filled, numpy.int64).reshape(len(rows), longest), like)
