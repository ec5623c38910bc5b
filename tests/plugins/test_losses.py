"""Losses: one share for each record, whose mean is the published loss."""

from __future__ import annotations

import math

import pytest
import torch

from modelgraft import Config, component
from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import ConformanceError, conform, open_node, run_node
from modelgraft_plugins.losses import Alignment, Contrastive, CrossEntropy, SquaredError

CLOSE = {"rtol": 0.0, "atol": 1e-6}  # float32 against loops in float64


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    """Numbers of a normal distribution."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lost(scores: list[float], wanted: int, smoothing: float) -> float:
    """-log of the softmax at the wanted place, a share of which is spread over all places."""
    top = max(scores)
    total = top + math.log(sum(math.exp(score - top) for score in scores))
    return sum((smoothing / len(scores) + (1 - smoothing) * (place == wanted)) * (total - score) for place, score in enumerate(scores))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("batch", [1, 3])
def test_contrast_is_that_of_the_formula(batch: int, smoothing: float):
    """Loops in float64: half of what the row of a record loses, and half of what its column does."""
    x, y, scale = drawn(batch, 5), drawn(batch, 5, seed=2), 7.5
    found = run_node(Contrastive, {"scale": scale, "label_smoothing": smoothing}, x=x, y=y)["loss"]
    a, b = (side.double() / side.double().norm(dim=-1, keepdim=True) for side in (x, y))
    cosines = [[scale * float(one @ other) for other in b] for one in a]
    shares = [
        (lost(cosines[i], i, smoothing) + lost([row[i] for row in cosines], i, smoothing)) / 2 for i in range(batch)
    ]  # fmt: skip
    torch.testing.assert_close(found.double(), torch.tensor(shares, dtype=torch.float64), **CLOSE)


def test_a_factor_that_is_learned_starts_where_it_is_told():
    """And it is learned: a gradient reaches it, and both sides."""
    module = open_node(Contrastive, {"start": 20.0}).loaded.state
    module.requires_grad_(True)
    x, y = drawn(3, 5).requires_grad_(), drawn(3, 5, seed=2).requires_grad_()
    with torch.enable_grad():
        module(x, y).mean().backward()
    assert module.logit_scale.exp().item() == pytest.approx(20.0, rel=1e-6)
    assert all(bool(part.grad.any()) for part in (module.logit_scale, x, y))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_class_for_each_record(smoothing: float):
    """The share of a record is what its own class loses, by the formula."""
    logits, labels = drawn(3, 5), torch.tensor([4, 0, 2])
    found = run_node(CrossEntropy, {"label_smoothing": smoothing}, logits=logits, labels=labels)["loss"]
    shares = [lost(row.double().tolist(), int(label), smoothing) for row, label in zip(logits, labels, strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(shares, dtype=torch.float64), **CLOSE)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_mean_over_a_batch_is_that_over_all_labels_that_count(smoothing: float):
    """Masked labels and ignored ones do not count, records of unlike lengths do by their labels; torch's own mean is the same."""
    logits, labels = drawn(3, 4, 7), torch.tensor([[1, 2, 6, 0], [3, 5, -1, -1], [2, 2, 4, -1]])
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[2, :2] = False
    found = run_node(CrossEntropy, {"over": "tokens", "ignored": -1, "label_smoothing": smoothing}, logits=logits, labels=labels, mask=mask)
    kept = torch.where(mask, labels, -1)
    wanted = torch.nn.functional.cross_entropy(logits.reshape(-1, 7).double(), kept.flatten(), ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(found["loss"].double().mean(), wanted, **CLOSE)
    first = sum(lost(row.double().tolist(), int(label), smoothing) for row, label in zip(logits[0], labels[0], strict=True))
    assert found["loss"][0].item() == pytest.approx(first * 3 / 7, abs=1e-5)  # three records, seven labels that count


def test_where_no_label_counts_nothing_is_lost():
    """No NaN, which would spoil every weight."""
    found = run_node(CrossEntropy, logits=drawn(2, 3), labels=torch.tensor([-100, -100]))["loss"]
    assert found.tolist() == [0.0, 0.0]


def test_a_label_that_is_no_class_is_named():
    """One that does not count may be anything."""
    with pytest.raises(InputError, match="found the label 3, wanted 0 to 2: the logits have 3 classes"):
        run_node(CrossEntropy, logits=drawn(2, 3), labels=torch.tensor([0, 3]))
    found = run_node(CrossEntropy, logits=drawn(2, 3), labels=torch.tensor([0, 3]), mask=torch.tensor([True, False]))["loss"]
    assert found[1] == 0


@pytest.mark.parametrize("batch", [1, 3])
def test_alignment_is_the_mean_way_from_token_to_token(batch: int):
    """Loops in float64: the length itself, averaged over the tokens of a record; of single vectors the length alone."""
    x, wanted = drawn(batch, 5, 7), drawn(batch, 5, 7, seed=2)
    ways = [
        [math.dist(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(x.double().tolist(), wanted.double().tolist(), strict=True)
    ]
    found = run_node(Alignment, x=x, wanted=wanted)["loss"]
    torch.testing.assert_close(found.double(), torch.tensor([sum(row) / 5 for row in ways], dtype=torch.float64), **CLOSE)
    found = run_node(Alignment, {"over": "vector"}, x=x[:, 0], wanted=wanted[:, 0])["loss"]
    torch.testing.assert_close(found.double(), torch.tensor([row[0] for row in ways], dtype=torch.float64), **CLOSE)


def test_alignment_that_is_reached_pulls_no_more():
    """The gradient is 0 there, and not NaN, which would spoil every weight."""
    x = drawn(2, 3, 5).requires_grad_()
    with torch.enable_grad():
        open_node(Alignment).loaded.state(x, x.detach().clone()).mean().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_losses_keep_their_declarations():
    """Ports, repeatability, order, gradients, count and saved state."""
    conform(Contrastive, {})
    conform(Contrastive, {"scale": 14.0})
    conform(CrossEntropy, {})
    conform(CrossEntropy, {"over": "tokens", "label_smoothing": 0.1})
    conform(Alignment, {}, x=drawn(4, 3, 5), wanted=drawn(4, 3, 5, seed=2))
    conform(Alignment, {"over": "vector"}, x=drawn(4, 5), wanted=drawn(4, 5, seed=2))


class Flat(torch.nn.Module):
    """A loss of the first record alone, which nothing can be trained by."""

    def __init__(self, _config: Config) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach().mean(-1) + torch.arange(len(x))


def test_a_loss_that_counts_places_or_teaches_nothing_does_not_conform():
    """Both rules of the kind are told."""

    @component("toy/flat", kind="loss", module=f"{__name__}:Flat", inputs={"x": "float[batch width]"}, outputs={"loss": "float[batch]"})
    class Toy(Config):
        """Teach nothing."""

    with pytest.raises(ConformanceError, match=r"(?s)loss: 'loss' of the records in another order.*loss: no gradient flows from 'loss'"):
        conform(Toy)


def test_squares_are_averaged_over_the_numbers_of_a_record():
    """Loops in float64; a record is compared with its own alone."""
    x, wanted = drawn(3, 2, 5), drawn(3, 2, 5, seed=2)
    found = run_node(SquaredError, {}, x=x, wanted=wanted)["loss"]
    shares = [
        sum((float(a) - float(b)) ** 2 for a, b in zip(one.flatten(), other.flatten(), strict=True)) / 10
        for one, other in zip(x, wanted, strict=True)
    ]
    torch.testing.assert_close(found.double(), torch.tensor(shares, dtype=torch.float64), **CLOSE)


def test_squares_of_two_shapes_are_refused():
    """Torch would repeat one of them."""
    with pytest.raises(InputError, match=r"`x` is \[3, 2, 5\] and `wanted` is \[3, 1, 5\]; wanted: one shape"):
        run_node(SquaredError, {}, x=drawn(3, 2, 5), wanted=drawn(3, 1, 5))
