"""Logits to logits: penalties for what was said, tokens that may not be chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.sequences import Biases, Following
from modelgraft.loops.settings import Settings

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
    """The rules of one run. Costs nothing when there are none: `apply` then gives back the very tensor it got.

    Order as in transformers: biases, penalties, n-grams, bad words, shortest length, forced tokens, decay, suppressed tokens. Before
    them all stands `scaled`, which beams call before they make log-probabilities of logits; behind them the tokens that come late.
    """

    def __init__(self, settings: Settings, asked: Sequence[ScoresAsked], like: Tensor) -> None:
        """asked: what each row begins from;  like: the first logits, float[batch vocab]."""
        self.settings, self.asked, vocabulary = settings, list(asked), like.shape[1]
        self.copied = _Copying()
        self.ends, self.never = _ids(settings.end_ids, like), _ids(settings.suppressed, like)
        self.not_first = _ids(settings.suppressed_first, like)
        self.has_ends, self.has_never, self.has_not_first = (bool(len(ids)) for ids in (self.ends, self.never, self.not_first))
        self.end_ids, self.never_ids = frozenset(settings.end_ids), frozenset(settings.suppressed)
        self.factors: Tensor | None = None  # float[vocab]: what each logit is multiplied by
        if settings.token_scale:
            ids, by = zip(*settings.token_scale, strict=True)
            self.factors = torch.ones(vocabulary, device=like.device).index_put((torch.tensor(ids, device=like.device),), _like(by, like))
        self.said: Tensor | None = None  # int64[batch n]: what each row has said, filled up with some of it; -1: nothing yet
        self.count = 0  # of its columns that are used
        if settings.repetition_penalty != 1.0:
            self.said = _padded([_known(one.said, vocabulary) for one in asked], like)
            self.count = self.said.shape[1]
        self.has_silent = self.said is not None and (self.count == 0 or bool((self.said < 0).any()))  # a row that has said nothing
        self.read: Tensor | None = None
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

    def scaled(self, logits: Tensor) -> Tensor:
        """logits float[batch vocab] as the model gives them, multiplied: the same tensor when no token has a factor.

        A factor above 1 makes a token likelier where its logit is positive and less likely where it is negative.
        """
        return logits if self.factors is None else logits * self.factors.to(logits.dtype)

    def apply(self, logits: Tensor, *, length: int) -> Tensor:
        """logits float[batch vocab] before token number `length` of the answer (0-based): the same tensor when no rule applies.

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
            mine().index_fill_(1, self.never, FORBIDDEN)
        if self.has_not_first and length == self._first_free:
            mine().index_fill_(1, self.not_first, FORBIDDEN)
        if settings.token_delay and (early := [token for token, count in settings.token_delay if length < count]):
            mine().index_fill_(1, _ids(early, logits), FORBIDDEN)
        return mine.logits

    def keeps(self, tokens: Tokens, running: Sequence[int], *, length: int) -> bool:
        """Whether tokens that are the likeliest before any rule, one of each row, are so behind them too, because all that the rules do
        is to forbid others; looked at in the rows that go on. False where the rules must be asked. length: see `apply`."""
        if not self.only_forbids:
            return False
        ids, settings = tokens.ids, self.settings
        for row in running:
            token = ids[row]
            if token in self.never_ids or (token in self.end_ids and length < settings.shortest(self.asked[row].length)):
                return False
            if self.has_not_first and token in settings.suppressed_first and length == self._first_free:
                return False
            if any(token == late and length < count for late, count in settings.token_delay):
                return False
        return True

    def note(self, tokens: Tokens) -> None:
        """Remember the chosen tokens."""
        if self.said is not None:
            self.said = self._with(self.said, tokens.tensor)
            self.count += 1
        if self.texts is not None:
            for row, token in enumerate(tokens.ids):
                self.texts[row].append(token)
                if self.repeats is not None:
                    self.repeats[row].take(token)

    def _with(self, said: Tensor, tokens: Tensor) -> Tensor:
        """What was said with one more token of each row."""
        if self.has_silent:
            said = torch.where(said < 0, tokens[:, None], said)  # a row that had said nothing has said this
            self.has_silent = False
        if self.count == said.shape[1]:
            said = torch.cat([said, tokens[:, None].expand(-1, max(self.count, ROOM))], 1)
        said[:, self.count] = tokens
        return said

    def reorder(self, rows: Tensor) -> None:
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
            _forbid(mine, early, self.ends)
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
        found = mine.logits[:, self.ends]
        more = (found.abs() * (factor ** (length - start) - 1)).masked_fill(~found.isfinite(), 0.0)
        mine().index_add_(1, self.ends, more)

    @property
    def _first_free(self) -> int:
        """The first token of an answer that is not forced."""
        is_forced = self.settings.forced_bos_token_id is not None and all(one.length <= 1 for one in self.asked)
        return 1 if is_forced else 0


class _Own:
    """Logits that are copied before the first rule changes them: called, it gives what may be changed."""

    def __init__(self, logits: Tensor, copied: Callable[[Tensor], Tensor]) -> None:
        self.given = self.logits = logits
        self.copied = copied

    def __call__(self) -> Tensor:
        if self.logits is self.given:
            self.logits = self.copied(self.given)
        return self.logits


class _Copying:
    """Copies logits. On the host always into the same memory, and by one thread.

    A copy by several would cost a session more than it saves: those of torch look for work for milliseconds after each call, on the
    cores that the next step needs (SmolLM2-135M in 4 bits on two cores: 10.1 instead of 6.3 ms a step).
    """

    def __init__(self) -> None:
        self.memory = torch.empty(0)

    def __call__(self, logits: Tensor) -> Tensor:
        if logits.device.type != "cpu" or logits.dtype is not torch.float32:
            return logits.clone()
        if self.memory.shape != logits.shape:
            self.memory = torch.empty(logits.shape)
        self.memory.numpy()[...] = logits.detach().numpy()
        return self.memory


def _penalise(logits: Tensor, said: Tensor, penalty: float) -> None:
    index = said.clamp(min=0)
    found = logits.gather(1, index)
    softened = torch.where(found < 0, found * penalty, found / penalty)
    logits.scatter_(1, index, torch.where(said < 0, found, softened))


def _forbid(mine: _Own, rows: Sequence[int], ids: Tensor) -> None:
    if len(rows) == len(mine.logits):
        mine().index_fill_(1, ids, FORBIDDEN)
    elif rows:
        mine()[torch.tensor(rows, device=ids.device)[:, None], ids] = FORBIDDEN


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


def _padded(rows: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    """Rows of tokens, each as long as the longest: filled up with its first one, with -1 where there is none."""
    longest = max(map(len, rows), default=0)
    filled = [[*row, *[row[0] if row else -1] * (longest - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.long, device=like.device).view(len(rows), longest)


def _like(numbers: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=like.device)


def _ids(ids: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(sorted(set(ids)), dtype=torch.long, device=like.device)
