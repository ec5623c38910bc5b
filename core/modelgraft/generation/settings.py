"""What the user of a language model chooses: how long, how random, when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """How to generate; the defaults are greedy.

    max_new_tokens      the longest answer in tokens; 0 reads the prompt and writes nothing
    min_new_tokens      no end token is chosen before this many tokens
    temperature         0 takes the most likely token; above, tokens are drawn from softmax(logits / temperature)
    top_k, top_p        draw only from the k most likely tokens, or from the fewest that hold the probability p; None: from all
    repetition_penalty  above 1, tokens that the prompt or the answer already holds become less likely (arXiv 1909.05858)
    beams               above 1, search with this many beams (greedy within; temperature must be 0)
    length_penalty      beams: the exponent of the length by which the log-probability is divided
    early_stopping      beams: True stops at `beams` finished answers, False when no better one is likely, "never" when none is possible
    stop                strings that end an answer; the answer is cut before the first of them
    end_ids             tokens that end an answer
    suppressed          tokens that are never chosen;  suppressed_first  not as the first one
    """

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    stop: tuple[str, ...] = ()
    end_ids: tuple[int, ...] = ()
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()

    @property
    def draws(self) -> bool:
        """Tokens are drawn at random."""
        return self.temperature > 0
