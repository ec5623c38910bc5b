"""What is noted of an answer while it is written: of each token its log-probability, and the hidden states where it stands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.decoder import Session
from modelgraft.loops.tensor_sessions import InTensors
from modelgraft.records.arrays import as_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.records.arrays import Array


class Taps:
    """The notes of one run, by row.

    logprobs  of each token of the answer, by the decoder's own distribution, before any rule or temperature
    states    float[layers width] at each token's own position: what the decoder makes of it once it has read it
    """

    def __init__(self, rows: int, wanted: Collection[str]) -> None:
        """wanted: "logprobs", "states"."""
        self.wanted = frozenset(wanted) & {"logprobs", "states"}
        self.logprobs: list[list[float]] = [[] for _ in range(rows)]
        self.states: list[list[Tensor]] = [[] for _ in range(rows)]

    @property
    def reads_on(self) -> bool:
        """Whether the last token is to be read too, although nothing follows it."""
        return "states" in self.wanted

    def note_logits(self, logits: Array, tokens: Tokens, rows: Sequence[int]) -> None:
        """Note the tokens that were chosen from these logits in some rows."""
        if "logprobs" in self.wanted:
            given: Tensor = as_tensor(logits)
            likely = given.float().log_softmax(-1).gather(1, tokens.tensor[:, None].to(given.device))[:, 0].tolist()
            for row in rows:
                self.logprobs[row].append(likely[row])

    def note_states(self, session: Session, rows: Sequence[int]) -> None:
        """Note the states of the tokens that were just read in some rows."""
        states = session.states
        assert states is not None
        kept = as_tensor(states).float().clone()
        for row in rows:
            self.states[row].append(kept[row])

    def read_again(self, given: Session, answers: Sequence[Sequence[int]], *, check: Callable[[], None]) -> None:
        """Note answers that were found by a search, whose beams came and went: they are read once more, and the session is closed."""
        import torch

        session = InTensors(given)
        try:
            for place in range(max(map(len, answers))):
                check()
                tokens = torch.tensor([answer[place] if place < len(answer) else 0 for answer in answers], device=session.logits.device)
                rows = [row for row, answer in enumerate(answers) if place < len(answer)]
                self.note_logits(session.logits, Tokens(tensor=tokens), rows)
                session.step(tokens)
                if self.reads_on:
                    self.note_states(session, rows)
        finally:
            session.close()
