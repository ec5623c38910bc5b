"""What is told of texts that were judged behind prompts, as the outputs of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft.plugin import Answers, Likelihood

FEWER = float("-inf")  # what a text that is not there is worth: it is never the likeliest one


def chosen(answers: Answers, decode: Callable[[list[int]], str], *, by_mean: bool) -> Answers:
    """The answers that are the likeliest of the texts that were judged. Of equal ones the first counts.

    by_mean  by the mean of the log-probabilities of their tokens, not by their sum
    """
    found = [max(likely, key=lambda one: one.total / len(one.ids) if by_mean else one.total) for likely in answers.likely]
    answers.taps.logprobs = [list(one.logprobs) for one in found]
    return replace(answers, ids=[list(one.ids) for one in found], texts=[decode(list(one.ids)) for one in found])


def judged(likely: Sequence[Sequence[Likelihood]]) -> dict[str, Tensor]:
    """The outputs that tell of texts, of each record: records with fewer of them than others, and shorter texts, are filled up."""
    import torch

    most = max(map(len, likely), default=0)
    longest = max((len(one.ids) for texts in likely for one in texts), default=0)
    whole = torch.full((len(likely), most), FEWER)
    greedy = torch.zeros(len(likely), most, dtype=torch.bool)
    ids = torch.full((len(likely), most, longest), -1, dtype=torch.int64)
    each = torch.zeros(len(likely), most, longest)
    for row, texts in enumerate(likely):
        for place, one in enumerate(texts):
            whole[row, place], greedy[row, place] = one.total, one.is_greedy
            ids[row, place, : len(one.ids)] = torch.tensor(one.ids)
            each[row, place, : len(one.ids)] = torch.tensor(one.logprobs)
    return {"likelihoods": whole, "greedy": greedy, "continuation_ids": ids, "continuation_logprobs": each}
