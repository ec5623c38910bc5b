"""What the comparison of few bits with float32 computes, against sums over every token."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import nearness

TEXTS = [[2, 0, 1], [4, 3]]


def drawn(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(text), 5, generator=generator).log_softmax(-1) for text in TEXTS]


def test_divergence_agreement_and_loss_are_those_of_sums_over_tokens() -> None:
    """Of all places together; the last token of a text has none behind it."""
    wanted, got = drawn(1), drawn(2)
    far, same, lost = [], [], []
    for text, one, other in zip(TEXTS, wanted, got, strict=True):
        for place, (p, q) in enumerate(zip(one.tolist(), other.tolist(), strict=True)):
            far.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
            same.append(max(range(5), key=p.__getitem__) == max(range(5), key=q.__getitem__))
            lost += [-q[text[place + 1]]] if place + 1 < len(text) else []
    mean = sum(far) / 5
    found = nearness.compared(wanted, got, TEXTS)
    assert found == pytest.approx(
        {
            "KL": mean,
            "error": math.sqrt(sum((one - mean) ** 2 for one in far) / 4 / 5),
            "likeliest": sum(same) / 5,
            "loss": sum(lost) / 3,
        },
        rel=1e-5,
    )
    assert nearness.compared(wanted, wanted, TEXTS)["KL"] == 0
