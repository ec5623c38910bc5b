"""How likely given texts are behind what a session has read: of each token its log-probability, and whether it is the likeliest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelgraft.loops.finite_logits import check_finite
from modelgraft.loops.tensor_sessions import InTensors

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.loops.decoder import Session

MOST_ROWS = 32  # texts that are read side by side: each has memory of its own, with a copy of what the session holds


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of one text.

    ids        its tokens
    logprobs   of each its log-probability behind the prompt and the tokens before it, by the decoder alone, before any rule
    is_greedy  whether every token is the likeliest one in its place
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_greedy: bool

    @property
    def total(self) -> float:
        """The log-probability of the whole text."""
        return sum(self.logprobs)


def likelihoods(session: Session, texts: Sequence[Sequence[Sequence[int]]], *, check: Callable[[], None]) -> list[list[Likelihood]]:
    """Ask how likely texts are behind what a session has read, which stays as it is: forks of it read them.

    session  has read the prompts, once per row, with room for the longest text
    texts    the tokens of each text that is asked about, by row; at least one token each
    check    called before every step; raises to stop

    Raises what `check` raises, and InputError for logits that are not finite.
    """
    check_finite(session.logits, length=0)
    places = [(row, index) for row, asked in enumerate(texts) for index in range(len(asked))]
    places.sort(key=lambda place: len(texts[place[0]][place[1]]))  # so that texts of one length stand side by side
    found: dict[tuple[int, int], Likelihood] = {}
    for start in range(0, len(places), MOST_ROWS):
        some = places[start : start + MOST_ROWS]
        read = _read(InTensors(session), [row for row, _ in some], [texts[row][index] for row, index in some], check=check)
        found |= dict(zip(some, read, strict=True))
    return [[found[row, index] for index in range(len(asked))] for row, asked in enumerate(texts)]


def _read(session: InTensors, rows: Sequence[int], texts: Sequence[Sequence[int]], *, check: Callable[[], None]) -> list[Likelihood]:
    """Read texts side by side, each behind what its row of the session holds. Those that are over are read along."""
    import torch

    device, longest = session.logits.device, max(map(len, texts))
    tokens = torch.zeros(len(texts), longest, dtype=torch.int64)
    for index, text in enumerate(texts):
        tokens[index, : len(text)] = torch.tensor(text)
    tokens, picked = tokens.to(device), torch.tensor(rows, device=device)
    noted = [_note(session.logits[picked], tokens[:, 0])]
    if longest > 1:
        fork = session.fork(picked)
        try:
            for place in range(1, longest):
                check()
                logits = fork.step(tokens[:, place - 1].contiguous())
                check_finite(logits, length=place, records=rows)
                noted.append(_note(logits, tokens[:, place]))
        finally:
            fork.close()
    likely, greedy = (torch.stack(each, 1).tolist() for each in zip(*noted, strict=True))
    return [Likelihood(tuple(text), tuple(likely[row][: len(text)]), all(greedy[row][: len(text)])) for row, text in enumerate(texts)]


def _note(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Of the tokens, int64[rows], behind logits, float[rows vocab]: float32[rows] log-probabilities, bool[rows] the likeliest."""
    likely = logits.float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    return likely, logits.argmax(-1) == tokens
