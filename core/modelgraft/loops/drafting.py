"""Guesses of a smaller language model of the same tokens, a draft: what it finds likeliest, one token behind the other.

The draft reads what was said and what was chosen, in a session of its own; what it read of guesses that were wrong is taken back. Sampled
answers are guessed in the same way, so that a draw is right where it is the draft's likeliest token, and no answer changes.

Source: Leviathan et al. 2023 (arXiv 2211.17192), with the likeliest token in place of one that is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from modelgraft.kernel.words.errors import InputError
from modelgraft.loops.decoder import Decoder, LooksAhead
from modelgraft.loops.sampling import likeliest
from modelgraft.loops.tensor_sessions import InTensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modelgraft.records.arrays import Array

STEPS_ALONE = "the draft reads one token at a time, or cannot take tokens back"


@dataclass(frozen=True, slots=True, eq=False)
class DraftModel:
    """A language model that guesses for others.

    embed       int64[n] -> float[n width], its input embeddings, on `device`
    vocabulary  how many tokens it knows;  positions  its longest context; None: no limit
    weights     the bytes that a step reads of its weights, for what a guess costs; None: not known
    lock        held while it guesses for one answer
    """

    decoder: Decoder
    embed: Callable[[Tensor], Array]
    device: torch.device | str
    vocabulary: int
    positions: int | None = None
    weights: float | None = None
    lock: Lock = field(default_factory=Lock)


class Drafting:
    """A Guesser that asks a draft. Its session starts with the first guess; rows go on together, as they do in Ahead."""

    def __init__(self, draft: DraftModel, said: Sequence[Sequence[int]], *, room: int, vocabulary: int, price: float) -> None:
        """said: the tokens of each prompt;  room: the longest answer;  vocabulary: how many tokens the model knows that is guessed for."""
        self.draft, self.said, self.price, self.why = draft, said, price, ""
        self.room = room if draft.positions is None else min(room, draft.positions - max(map(len, said), default=0))
        self.known = min(vocabulary, draft.vocabulary)  # tokens that both know
        self.session: InTensors | None = None
        self.chosen: list[Sequence[int]] = []  # of all rows, what the draft has not been shown yet
        self.beyond: list[list[int]] = []  # guesses that it has read behind what it was shown
        self.shown = 0  # tokens of the answers that it has read, and that were chosen
        self.asked: set[int] = set()  # rows that go on
        self.made: list[list[int]] | None = None  # the guesses of this step, by row
        self.is_held = False

    def take(self, tokens: Sequence[int]) -> None:
        """See Guesser."""
        self.chosen.append(tokens)
        self.made = None

    def guess(self, row: int, most: int) -> Sequence[int]:
        """See Guesser."""
        if self.made is None:
            self.made = self._guesses(most)
            self.asked.clear()
        self.asked.add(row)
        return self.made[row][:most] if self.made else ()

    def close(self) -> None:
        """See Guesser: the session goes, and others may ask the draft."""
        if self.session is not None:
            self.session.close()
            self.session = None
        if self.is_held:
            self.is_held = False
            self.draft.lock.release()

    def _guesses(self, most: int) -> list[list[int]]:
        """What the draft finds likeliest, `most` tokens of each row; empty where it cannot go on."""
        if self.why or not self._starts():
            return []
        session, right = self.session, self._right()
        assert session is not None
        unread = self.chosen[right:]
        most = min(most, self.room - self.shown - len(self.chosen))
        if most <= 0 or any(not 0 <= token < self.draft.vocabulary for tokens in unread for token in tokens):
            return self._ends("its context is full, or it does not know a token")
        if len(self.beyond) > right:
            session.rewind(len(self.beyond) - right)
        logits = self._read(session, unread)
        self.shown, self.chosen, self.beyond = self.shown + len(self.chosen), [], []
        found: list[list[int]] = []
        for count in range(most):
            tokens = likeliest(logits[:, : self.known])
            found.append(list(tokens.ids))
            if count + 1 < most:
                logits = session.step(tokens.tensor)
                self.beyond.append(found[-1])
        return [list(row) for row in zip(*found, strict=True)]

    def _right(self) -> int:
        """How many of the guesses that it has read were chosen, in every row that goes on; the last token that was chosen is read anew."""
        rows = self.asked or range(len(self.said))
        most = min(len(self.beyond), len(self.chosen) - 1)
        pairs = zip(self.beyond[:most], self.chosen, strict=False)
        return next((place for place, (own, told) in enumerate(pairs) if any(own[row] != told[row] for row in rows)), most)

    def _read(self, session: InTensors, unread: Sequence[Sequence[int]]) -> Tensor:
        """Show it what was chosen; float[batch vocab] behind that."""
        import torch

        tokens = torch.tensor(unread, device=self.draft.device)  # [tokens batch]
        return session.step(tokens[0]) if len(tokens) == 1 else session.look(tokens.T.contiguous())[:, -1]

    def _starts(self) -> bool:
        """Start the session, unless it is there; False where there can be none."""
        if self.session is not None:
            return True
        draft, rows = self.draft, [[token for token in row if 0 <= token < self.draft.vocabulary] for row in self.said]
        if self.room <= 1 or not all(rows):
            self._ends("a prompt leaves no room in its context, or holds no token that it knows")
            return False
        import torch

        self.is_held = draft.lock.acquire()
        prompts = [draft.embed(torch.tensor(row, device=draft.device)) for row in rows]
        with suppress(InputError):  # of a device without room for it
            session = draft.decoder.start(prompts, room=self.room)
            if isinstance(session, LooksAhead) and session.looks:
                self.session = InTensors(session)
                return True
            session.close()
        self._ends(STEPS_ALONE)
        return False

    def _ends(self, why: str) -> list[list[int]]:
        """Guess nothing any more."""
        self.why = why if why == STEPS_ALONE else f"the draft cannot go on: {why}"
        return []
