"""What the user of a language model chooses: how long, how random, when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_BY_ENTROPY = 100  # tokens that top_h looks at, as in transformers
Words = tuple[tuple[int, ...], ...]  # sequences of tokens


@dataclass(frozen=True, slots=True)
class Settings:
    """How to generate; the defaults are greedy. The fields named as in transformers mean what its `generate` means by them.

    max_new_tokens      the longest answer in tokens; 0 reads the prompt and writes nothing
    max_length          in its place, the longest prompt and answer together; None: max_new_tokens rules
    min_new_tokens      no end token is chosen before this many tokens;  min_length  prompt and answer together
    temperature         0 takes the most likely token; above, tokens are drawn from softmax(logits / temperature)
    temperature_last    it flattens what the rules below left over, as open_clip does; otherwise they look at what it has flattened
    top_k, top_p        draw only from the k most likely tokens, or from the fewest that hold the probability p; None: from all
    min_p               draw only from tokens at least so likely as this part of the likeliest's probability (arXiv 2407.01082)
    typical_p           draw only from the tokens nearest to the expected surprise that hold this probability (arXiv 2202.00666)
    epsilon_cutoff, eta_cutoff   draw only from tokens above a probability, fixed or by the entropy (arXiv 2210.15191)
    top_h               draw only from the likeliest tokens that hold this part of the entropy (arXiv 2509.02510)
    repetition_penalty  above 1, tokens that the prompt or the answer already holds become less likely (arXiv 1909.05858)
    encoder_repetition_penalty   above 1, tokens of what was read become likelier
    no_repeat_ngram_size         no so many tokens in a row occur twice in prompt and answer; 0: any may
    encoder_no_repeat_ngram_size no so many tokens in a row of what was read occur in the answer
    sequence_bias       is added to the logit of the last token of a sequence when it would complete it
    bad_words_ids       sequences that are never completed
    forced_bos_token_id chosen where one token alone stands before;  forced_eos_token_ids  chosen at the longest length
    exponential_decay_length_penalty  from so many tokens on, end tokens become likelier by powers of a factor
    renormalize_logits  beams: what the rules left over is made a distribution again
    beams               above 1, search with this many beams (greedy within; temperature must be 0)
    length_penalty      beams: the exponent of the length by which the log-probability is divided
    early_stopping      beams: True stops at `beams` finished answers, False when no better one is likely, "never" when none is possible
    stop                strings that end an answer; the answer is cut before the first of them
    end_ids             tokens that end an answer
    suppressed          tokens that are never chosen;  suppressed_first  not as the first one
    lookup              so many tokens are guessed at once from what was said, and read together (guessing.py); the answer is the same
    token_scale         (token, factor): its logit is multiplied before any other rule, as FROMAGe does with [RET] (arXiv 2301.13823)
    token_delay         (token, n): it is not chosen among the first n tokens
    """

    max_new_tokens: int = 64
    max_length: int | None = None
    min_new_tokens: int = 0
    min_length: int = 0
    temperature: float = 0.0
    temperature_last: bool = False
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    top_h: float | None = None
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    bad_words_ids: Words = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_ids: tuple[int, ...] = ()
    exponential_decay_length_penalty: tuple[int, float] | None = None
    renormalize_logits: bool = False
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    stop: tuple[str, ...] = ()
    end_ids: tuple[int, ...] = ()
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    lookup: int = 0
    token_scale: tuple[tuple[int, float], ...] = ()
    token_delay: tuple[tuple[int, int], ...] = ()

    @property
    def draws(self) -> bool:
        """Tokens are drawn at random."""
        return self.temperature > 0

    def longest(self, prompt: int) -> int:
        """The longest answer to a prompt of so many tokens; 0 or less where the prompt leaves no room."""
        return self.max_new_tokens if self.max_length is None else self.max_length - prompt

    def shortest(self, prompt: int) -> int:
        """The shortest answer to a prompt of so many tokens."""
        return self.min_new_tokens or max(self.min_length - prompt, 0)
