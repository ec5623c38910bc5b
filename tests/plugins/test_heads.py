"""Heads: cosines, classes and their names."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import conform, run_node
from modelgraft_plugins import heads
from modelgraft_plugins.heads import Classifier, Cosine, Ensemble, Mean, Normalize, Top
from support import checkpoints
from support.open_part import configured, counts, open_part

REGISTRY = assemble({"heads": heads})
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise


def test_cosines_are_those_of_the_formula():
    """Loops in float64 over records and candidates."""
    generator = torch.Generator().manual_seed(1)
    x, candidates = torch.randn(2, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    given = run_node(Cosine, {"scale": False}, x=x, candidates=candidates)["logits"]
    for record in range(2):
        for index in range(3):
            a, b = x[record].double(), candidates[record, index].double()
            assert given[record, index].item() == pytest.approx((a @ b / math.sqrt((a @ a) * (b @ b))).item(), abs=1e-6)


@pytest.mark.parametrize("many", [False, True])
def test_a_mean_is_over_the_tokens_that_are_there(many: bool):
    """Loops in float64; a sequence of which nothing is there gives zeros, and without a mask everything is."""
    generator = torch.Generator().manual_seed(2)
    shape = (2, 3, 5) if many else (3, 5)
    x, mask = torch.randn(*shape, 7, generator=generator), torch.rand(*shape, generator=generator) < 0.6
    mask[..., -1, :] = False
    given = run_node(Mean, {"many": many}, x=x, mask=mask)["y"].reshape(-1, 7)
    for vector, tokens, there in zip(given, x.reshape(-1, 5, 7), mask.reshape(-1, 5), strict=True):
        kept = [token.double() for token, is_there in zip(tokens, there, strict=True) if is_there]
        expected = sum(kept) / len(kept) if kept else torch.zeros(7, dtype=torch.float64)
        torch.testing.assert_close(vector.double(), expected, **CLOSE)
    torch.testing.assert_close(run_node(Mean, {"many": many}, x=x)["y"], x.mean(-2), **CLOSE)


def test_an_ensemble_is_the_mean_direction_of_a_group():
    """Loops in float64; texts of unlike lengths count alike, and a group without a text is 0."""
    x, shares = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(4)), torch.zeros(2, 3, 5)
    groups = [[(0, 1), (2, 3, 4), ()], [(4,), (1, 0), (2,)]]
    for record, members in enumerate(groups):
        for group, texts in enumerate(members):
            shares[record, group, list(texts)] = 1 / max(len(texts), 1)
    given = run_node(Ensemble, x=x, shares=shares)["y"].double()
    for record, members in enumerate(groups):
        for group, texts in enumerate(members):
            units = [x[record, text].double() / x[record, text].double().norm() for text in texts]
            mean = sum(units) / len(units) if units else torch.zeros(7, dtype=torch.float64)
            torch.testing.assert_close(given[record, group], mean / mean.norm() if units else mean, **CLOSE)


@pytest.mark.parametrize(("kind", "has_bias"), [("clip", False), ("siglip", True)])
def test_scale_and_bias_come_from_the_root_of_the_checkpoint(tmp_path: Path, kind: str, has_bias: bool):
    """exp(logit_scale) times the cosine, plus SigLIP's bias; nothing else of the checkpoint is read."""
    model = getattr(checkpoints, kind)(tmp_path).model
    head = open_part(REGISTRY, "similarity/cosine", str(tmp_path))
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    same = head(x, x[:, None])
    expected = model.logit_scale.detach().exp() + (model.logit_bias.detach() if has_bias else 0)
    torch.testing.assert_close(same, expected.expand(2, 1), **CLOSE)
    assert counts(head.node) == (1 + has_bias, 1 + has_bias)


def test_only_vectors_of_one_clip_are_compared(tmp_path: Path):
    """Both ports carry the space of the checkpoint."""
    checkpoints.clip(tmp_path)
    ports = configured(REGISTRY, "similarity/cosine", str(tmp_path)).in_ports
    assert str(ports["x"].space) == str(ports["candidates"].space) == f"embedding(model={tmp_path})"


def test_a_classifier_names_the_likeliest_class(tmp_path: Path):
    """The names and their number come from id2label, in the order of its numbers."""
    checkpoints.vit(tmp_path)
    head = open_part(REGISTRY, "head/classifier", str(tmp_path))
    logits = torch.tensor([[0.0, 1.0, 3.0, 2.0, -1.0], [9.0, 0.0, 0.0, 0.0, 0.0]])
    found = head(logits)
    assert found["label"] == ["shark", "tench"]
    torch.testing.assert_close(found["probabilities"], logits.softmax(-1), **CLOSE)
    assert str(head.node.in_ports["logits"]) == "float[batch 5]"


def test_labels_of_each_record_may_differ_in_number():
    """A shorter list never gets an answer, or a share of the probability, from beyond its end."""
    logits = torch.tensor([[0.0, 1.0, 5.0], [0.0, 1.0, 5.0]])
    found = run_node(Classifier, logits=logits, labels=[["a", "b", "c"], ["d", "e"]])
    assert found["label"] == ["c", "e"]
    torch.testing.assert_close(found["probabilities"][1, :2], logits[1, :2].softmax(-1), **CLOSE)
    assert found["probabilities"][1, 2] == 0


def test_classes_may_be_judged_one_by_one():
    """With sigmoid each class has a probability of its own, as SigLIP is trained."""
    found = run_node(Classifier, {"function": "sigmoid", "names": ("a", "b")}, logits=torch.tensor([[0.0, 2.0]]))
    assert found["label"] == ["b"]
    torch.testing.assert_close(found["probabilities"], torch.tensor([[0.5, 1 / (1 + math.exp(-2))]]), **CLOSE)


def test_top_writes_the_likeliest_classes():
    """As many as asked for, or as many as there are."""
    probabilities = torch.tensor([[0.05, 0.62, 0.12, 0.21], [0.25, 0.25, 0.5, 0.0]])
    written = run_node(Top, {"names": ("owl", "tabby", "fox", "tiger cat")}, probabilities=probabilities)["text"]
    assert written[0] == "tabby (62 %), tiger cat (21 %), fox (12 %)"
    assert run_node(Top, {"names": ("owl", "fox")}, probabilities=torch.tensor([[0.1, 0.9]]))["text"] == ["fox (90 %), owl (10 %)"]


def test_more_names_than_classes_are_reported():
    """With the record and both numbers."""
    with pytest.raises(InputError, match="record 1 has 3 names for 2 classes"):
        run_node(Classifier, logits=torch.zeros(2, 2), labels=[["a", "b"], ["a", "b", "c"]])
    with pytest.raises(InputError, match="record 0 has 0 names for 2 classes"):
        run_node(Classifier, logits=torch.zeros(1, 2), labels=[[]])


def test_heads_keep_their_declarations():
    """Ports, repeatability, batches, count and saved state."""
    conform(Normalize, {"over": "vector"})
    conform(Normalize, {"over": "tokens"})
    conform(Ensemble, {})
    conform(Mean, {})
    conform(Mean, {"many": True})
    conform(Cosine, {"bias": True})
    conform(Classifier, {"names": ("a", "b", "c")})
    conform(Top, {"names": ("a", "b", "c"), "count": 2})
