"""Logits to logits: penalties for what was said, tokens that may not be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelgraft.loops.sequences import Biases, repeated
from modelgraft.loops.settings import Settings

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
    """The rules of one run. Costs nothing when there are none: `apply` then gives back the very tensor it got.

    Order as in transformers: biases, penalties, n-grams, bad words, shortest length, forced tokens, decay, suppressed tokens. Before
    them all stands `scaled`, which beams call before they make log-probabilities of logits; behind them the tokens that come late.
    """

    def __init__(self, settings: Settings, asked: Sequence[ScoresAsked], like: Tensor) -> None:
        """asked: what each row begins from;  like: the first logits, float[batch vocab]."""
        self.settings, self.asked, vocabulary = settings, list(asked), like.shape[1]
        self.ends, self.never = _ids(settings.end_ids, like), _ids(settings.suppressed, like)
        self.not_first = _ids(settings.suppressed_first, like)
        self.factors: Tensor | None = None  # float[vocab]: what each logit is multiplied by
        if settings.token_scale:
            ids, by = zip(*settings.token_scale, strict=True)
            self.factors = torch.ones(vocabulary, device=like.device).index_put((torch.tensor(ids, device=like.device),), _like(by, like))
        self.said: Tensor | None = None  # int64[batch n]: what each row has said, padded with some of it; never the whole vocabulary
        if settings.repetition_penalty != 1.0:
            self.said = _padded([_known(one.said, vocabulary) for one in asked], like)
        self.read: Tensor | None = None
        if settings.encoder_repetition_penalty != 1.0:
            self.read = _padded([_known(one.read, vocabulary) for one in asked], like)
        self.bias = Biases(settings.sequence_bias, like) if settings.sequence_bias else None
        bad = [(words, FORBIDDEN) for words in settings.bad_words_ids if len(words) > 1 or words[0] not in settings.end_ids]
        self.bad = Biases(bad, like) if bad else None
        self.texts: list[list[int]] | None = None  # all tokens of each row, in order
        if self.bias or self.bad or settings.no_repeat_ngram_size or settings.encoder_no_repeat_ngram_size:
            self.texts = [list(one.said) for one in asked]

    def scaled(self, logits: Tensor) -> Tensor:
        """logits float[batch vocab] as the model gives them, multiplied: the same tensor when no token has a factor.

        A factor above 1 makes a token likelier where its logit is positive and less likely where it is negative.
        """
        return logits if self.factors is None else logits * self.factors.to(logits.dtype)

    def apply(self, logits: Tensor, *, length: int) -> Tensor:
        """logits float[batch vocab] before token number `length` of the answer (0-based); the same tensor when no rule applies."""
        if self.bias is not None and self.texts is not None:
            logits = self.bias.add(logits, self.texts)
        if self.read is not None:
            logits = _penalised(logits, self.read, 1 / self.settings.encoder_repetition_penalty)
        if self.said is not None:
            logits = _penalised(logits, self.said, self.settings.repetition_penalty)
        if self.texts is not None:
            logits = self._without_repeats(logits, self.texts)
        if self.bad is not None and self.texts is not None:
            logits = self.bad.add(logits, self.texts)
        logits = self._ended(logits, length)
        for ids, applies in ((self.never, True), (self.not_first, length == self._first_free)):
            if applies and len(ids):
                logits = logits.index_fill(1, ids, FORBIDDEN)
        early = [token for token, count in self.settings.token_delay if length < count]
        return logits.index_fill(1, _ids(early, logits), FORBIDDEN) if early else logits

    def note(self, tokens: Tensor) -> None:
        """Remember the chosen tokens, int64[batch]."""
        if self.said is not None:
            said = torch.where(self.said < 0, tokens[:, None], self.said)  # a row that had said nothing has said this
            self.said = torch.cat([said, tokens[:, None]], 1)
        if self.texts is not None:
            for text, token in zip(self.texts, tokens.tolist(), strict=True):
                text.append(token)

    def reorder(self, rows: Tensor) -> None:
        """Follow the rows of a beam search."""
        if self.said is not None:
            self.said = self.said[rows]
        if self.texts is not None:
            self.texts = [list(self.texts[row]) for row in rows.tolist()]

    def _without_repeats(self, logits: Tensor, texts: Sequence[Sequence[int]]) -> Tensor:
        own, others = self.settings.no_repeat_ngram_size, self.settings.encoder_no_repeat_ngram_size
        if not own and not others:
            return logits
        logits = logits.clone()
        for row, (text, one) in enumerate(zip(texts, self.asked, strict=True)):
            banned = (repeated(text, text, own) if own else []) + (repeated(one.read, text, others) if others else [])
            logits[row, [token for token in banned if token < logits.shape[1]]] = FORBIDDEN
        return logits

    def _ended(self, logits: Tensor, length: int) -> Tensor:
        """The rules about where an answer begins and ends; they depend on the row, because prompts have their own lengths."""
        settings = self.settings
        if len(self.ends):
            early = [row for row, one in enumerate(self.asked) if length < settings.shortest(one.length)]
            logits = _forbidden(logits, early, self.ends)
        if settings.forced_bos_token_id is not None:
            alone = [row for row, one in enumerate(self.asked) if one.length + length == 1]
            logits = _forced(logits, alone, (settings.forced_bos_token_id,))
        if settings.forced_eos_token_ids:
            last = [row for row, one in enumerate(self.asked) if length == settings.longest(one.length) - 1]
            logits = _forced(logits, last, settings.forced_eos_token_ids)
        if settings.exponential_decay_length_penalty is not None and len(self.ends):
            logits = self._decayed(logits, length, *settings.exponential_decay_length_penalty)
        return logits

    def _decayed(self, logits: Tensor, length: int, start: int, factor: float) -> Tensor:
        if length <= start:
            return logits
        found = logits[:, self.ends]
        more = (found.abs() * (factor ** (length - start) - 1)).masked_fill(~found.isfinite(), 0.0)
        return logits.index_add(1, self.ends, more)

    @property
    def _first_free(self) -> int:
        """The first token of an answer that is not forced."""
        is_forced = self.settings.forced_bos_token_id is not None and all(one.length <= 1 for one in self.asked)
        return 1 if is_forced else 0


def _penalised(logits: Tensor, said: Tensor, penalty: float) -> Tensor:
    found = logits.gather(1, said.clamp(min=0))
    softened = torch.where(found < 0, found * penalty, found / penalty)
    return logits.scatter(1, said.clamp(min=0), torch.where(said < 0, found, softened))


def _forbidden(logits: Tensor, rows: Sequence[int], ids: Tensor) -> Tensor:
    if len(rows) == len(logits):
        return logits.index_fill(1, ids, FORBIDDEN)
    return logits.index_put((torch.tensor(rows, device=ids.device)[:, None], ids), logits.new_tensor(FORBIDDEN)) if rows else logits


def _forced(logits: Tensor, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
    """Nothing but some tokens may be chosen in some rows."""
    if not rows:
        return logits
    logits = logits.clone()
    logits[list(rows)] = FORBIDDEN
    for token in ids:
        logits[list(rows), token] = 0
    return logits


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
