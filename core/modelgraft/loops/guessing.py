"""Tokens that are guessed ahead and read together: a step of a model costs little more for several tokens than for one.

What comes next is guessed from what was said, or by a smaller model (drafting.py), and the guesses are read behind the token that was
chosen, in one call, which gives the logits behind each of them. The loop then comes by as ever: it chooses a token from the first logits,
by its rules and random numbers, and while what it chooses is what was guessed, the next logits are there already. Where it is not, what was
read behind it is taken back. So an answer is, token by token, the one that is written without guesses, up to the rounding of a model that
reads several tokens at once; of drawn tokens as well, because each is drawn by its own number.

Sources: Leviathan et al. 2023 (arXiv 2211.17192); guesses from what was said: prompt lookup decoding, Saxena 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.decoder import LooksAhead, stepping

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from modelgraft.records.arrays import Array

LONGEST, SHORTEST_RUN = 3, 2  # tokens in a row by which Lookup finds what may follow
FIRST = 0.6  # how often a guess is taken to be right before any was made
NEWEST = 0.1  # what the newest guess counts among those before it
RARELY = 8  # where no guess is worth its price, one is made at every so many calls, to hear whether it would be right
EACH = 0.15  # what reading one more token is taken to cost, of a step: less on most machines, more where products are quantised


@dataclass(slots=True)
class Guesses:
    """How an answer was guessed.

    passes  calls of the model behind the prompt;  guessed  tokens that were guessed and read;  right  of these the ones that were chosen
    why     why nothing was guessed; "": it was
    """

    passes: int = 0
    guessed: int = 0
    right: int = 0
    why: str = ""


class Guesser(Protocol):
    """What guesses how the rows of a batch go on."""

    @property
    def price(self) -> float:
        """What one more guess takes to make, of a step of the model; 0 where that is next to nothing."""
        ...

    @property
    def why(self) -> str:
        """Why it can guess nothing; "" while it can."""
        ...

    def take(self, tokens: Sequence[int]) -> None:
        """Each row goes on with a token."""
        ...

    def guess(self, row: int, most: int) -> Sequence[int]:
        """The tokens that may follow in a row, `most` at most; none where nothing is known."""
        ...

    def close(self) -> None:
        """Give back what is held. Called once, behind the last answer, also where that failed or nothing was guessed."""
        ...


class Lookup:
    """Guesses that a row goes on as it did where its last tokens stood before: in the prompt, or in the answer."""

    price, why = 0.0, ""

    def __init__(self, said: Sequence[Sequence[int]]) -> None:
        """said: the tokens of each prompt."""
        self.texts: list[list[int]] = [[] for _ in said]
        self.found: list[dict[tuple[int, ...], int]] = [{} for _ in said]  # the tokens before a place -> the last such place but the end
        for row, text in enumerate(said):
            for token in text:
                self._add(row, token)

    def _add(self, row: int, token: int) -> None:
        text, found = self.texts[row], self.found[row]
        end = len(text)
        for size in range(SHORTEST_RUN, min(LONGEST, end) + 1):
            found[tuple(text[end - size :])] = end  # only now, so that the end of a text is not found for itself
        text.append(token)

    def take(self, tokens: Sequence[int]) -> None:
        """See Guesser."""
        for row, token in enumerate(tokens):
            self._add(row, token)

    def guess(self, row: int, most: int) -> Sequence[int]:
        """See Guesser."""
        text, found = self.texts[row], self.found[row]
        for size in range(min(LONGEST, len(text)), SHORTEST_RUN - 1, -1):
            place = found.get(tuple(text[len(text) - size :]))
            if place is not None:
                return text[place : place + most]
        return ()

    def close(self) -> None:
        """See Guesser. There is nothing."""


class Ahead:
    """Steps of a session that reads guesses along with the tokens that are chosen.

    Rows of a batch go on together: by the fewest that are right.
    """

    def __init__(self, session: LooksAhead, guesser: Guesser, *, room: int, most: int) -> None:
        """room: tokens that the session takes, the last of which is never read;  most: guesses at once."""
        self.session, self.guesser, self.room, self.most = session, guesser, room - 1, most
        self.by_one = stepping(session)
        self.is_of_arrays = isinstance(session.logits, numpy.ndarray)
        self.noted = Guesses()
        self.share = FIRST  # how often a guess is right
        self.guesses: list[Sequence[int]] = []  # of each row, equally many
        self.logits: Array | None = None  # float[batch guesses+1 vocab]: behind the chosen token and each guess
        self.place = self.read = 0  # guesses that were right; tokens that are read for certain

    def step(self, tokens: Tokens, running: Sequence[int]) -> Array:
        """Read one more token per row; gives the logits behind it. running: the rows whose answers go on."""
        chosen = tokens.ids
        self.guesser.take(chosen)
        if self.guesses:
            is_right = all(self.guesses[row][self.place] == chosen[row] for row in running)
            self.share += NEWEST * (is_right - self.share)
            if self.logits is None or not is_right:
                self.stop()
            else:
                self.place += 1
                self.noted.right += 1
                found = self.logits[:, self.place]
                if self.place == self._count:
                    self.stop()
                return found
        return self._read(tokens, running)

    def stop(self) -> None:
        """Take back what was read and not chosen."""
        if self.logits is not None:
            self.read += self.place
            if self.place < self._count:
                self.session.rewind(self._count - self.place)
        self.guesses, self.logits, self.place = [], None, 0

    @property
    def _count(self) -> int:
        return len(self.guesses[0])

    def _read(self, tokens: Tokens, running: Sequence[int]) -> Array:
        """Read a token, and guesses behind it where they are worth their reading."""
        self.noted.passes += 1
        most, worth = min(self.most, self.room - self.read - 1), self._worth()
        self.read += 1
        is_asked = worth or not self.guesser.price or self.noted.passes % RARELY == 1
        self.guesses = self._guessed(running, len(tokens.ids), max(min(most, max(worth, 1)), 0) if is_asked else 0)
        if not worth or not self.guesses:  # one guess is only noted, to hear whether it would be right
            return self.by_one(tokens)
        self.noted.guessed += self._count
        self.logits = self.session.look(_array_of(tokens, self.guesses) if self.is_of_arrays else _tensor_of(tokens, self.guesses))
        return self.logits[:, 0]

    def _guessed(self, running: Sequence[int], batch: int, most: int) -> list[Sequence[int]]:
        """Equally many guesses of each row; those of rows that have ended are not looked at. Empty where a row has none."""
        found = {row: self.guesser.guess(row, most) for row in running} if most else {}
        count = min(map(len, found.values()), default=0)
        return [found[row][:count] if row in found else [0] * count for row in range(batch)] if count else []

    def _worth(self) -> int:
        """How many guesses give the most tokens for what their reading costs, when each is right as often as those before; 0: none."""
        best, worth, gain, chance = 1.0, 0, 1.0, 1.0
        for count in range(1, self.most + 1):
            chance *= self.share
            gain += chance
            if (each := gain / (1 + (EACH + self.guesser.price) * count)) > best:
                best, worth = each, count
        return worth


def _array_of(tokens: Tokens, guesses: Sequence[Sequence[int]]) -> NDArray[numpy.integer[Any]]:
    """int64[batch guesses+1]: what was chosen, and the guesses behind it."""
    return numpy.array([[token, *guess] for token, guess in zip(tokens.ids, guesses, strict=True)], numpy.int64)


def _tensor_of(tokens: Tokens, guesses: Sequence[Sequence[int]]) -> Tensor:
    """The same where the tokens were chosen."""
    import torch

    first = tokens.tensor
    behind = torch.tensor([list(guess) for guess in guesses], dtype=first.dtype, device=first.device)
    return torch.cat([first[:, None], behind], 1)
