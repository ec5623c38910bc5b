"""Masked prediction: cosines with codes, and what is lost by those that were there, by loops in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelgraft import InputError
from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform, open_node, run_node
from modelgraft_plugins import units
from modelgraft_plugins.units import CodeHead, MaskedPrediction
from support.open_part import configured, counts, open_part

REGISTRY = assemble({"units": units})
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32 against loops in float64
HEAD = {"width": 5, "final_dim": 3, "codes": (7, 4)}


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    """Numbers of a normal distribution."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [False, True])
def test_a_logit_is_the_cosine_of_a_projection_with_a_code(tied: bool):
    """Each book looks at its own projection, or all at one."""
    trial = open_node(CodeHead, {**HEAD, "tied": tied, "temperature": 0.2})
    state, tokens = trial.loaded.state.state_dict(), drawn(2, 6, 5)
    found = trial(tokens)["logits"]
    assert found.shape == (2, 6, 11)
    projected = tokens.double() @ state["final_proj.weight"].double().T + state["final_proj.bias"].double()
    for code, vector in enumerate(state["label_embs_concat"].double()):
        book = int(code >= 7)
        mine = projected if tied else projected[..., 3 * book : 3 * book + 3]
        cosine = (mine @ vector) / (mine.norm(dim=-1) * vector.norm())
        torch.testing.assert_close(found[..., code].double(), cosine / 0.2, **CLOSE)


def lost(scores: torch.Tensor, wanted: int) -> float:
    """-log of the softmax at the wanted place."""
    return float(scores.double().logsumexp(0) - scores[wanted].double())


@pytest.mark.parametrize("penalty", [10.0, 0.0])
@pytest.mark.parametrize("others", [0.0, 0.5])
def test_a_loss_is_that_of_the_formula(others: float, penalty: float):
    """Loops: masked frames, all others, each book, frames that are not there, frames without a unit."""
    config = {"codes": (7, 4), "offset": 1, "masked": 0.75, "others": others, "penalty": penalty}
    logits, features = drawn(3, 5, 11), drawn(3, 5, 2, seed=2)
    labels = torch.stack([torch.arange(15).reshape(3, 5) % 6, torch.arange(15).reshape(3, 5) % 3], -1)
    labels[1, 2, 0] = -1
    spans = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 1, 0, 1], [0, 0, 1, 0, 0]]).bool()
    there = torch.arange(5) < torch.tensor([[5], [5], [3]])
    found = run_node(MaskedPrediction, config, logits=logits, units=labels, spans=spans, mask=there, conv_features=features)
    sums, total, count, share = torch.zeros(3, 2, dtype=torch.float64), 0.0, 0, [0.0, 0.0, 0.0]
    for record in range(3):
        for frame in range(5):
            if not there[record, frame] or (labels[record, frame] < 0).any():
                continue
            weight = 0.75 if spans[record, frame] else others
            count += weight > 0
            for book, (start, end) in enumerate(((0, 7), (7, 11))):
                one = lost(logits[record, frame, start:end], int(labels[record, frame, book]) + 1)
                sums[record, book] += one * bool(spans[record, frame])
                share[record] += weight * one
        total += share[record]
    squares = [float(features[record][there[record]].double().square().mean()) for record in range(3)]
    torch.testing.assert_close(found["sums"].double(), sums, **CLOSE)
    torch.testing.assert_close(found["penalty"].double(), torch.tensor(squares, dtype=torch.float64), **CLOSE)
    assert found["loss"].mean().item() == pytest.approx(total / count + penalty * sum(squares) / 3, rel=1e-6)


def test_units_of_a_hundredth_of_a_second_stand_for_every_second_one():
    """Frames of the encoder last a fiftieth; where the units end earlier, the last frame has none. Source: fairseq's forward_targets."""
    logits, spans = drawn(1, 4, 5), torch.ones(1, 4, dtype=torch.bool)
    config = {"codes": (5,), "offset": 0, "step": 2.0}
    found = run_node(MaskedPrediction, config, logits=logits, units=torch.tensor([[0, 4, 1, 4, 2, 4]]), spans=spans)
    assert found["sums"].item() == pytest.approx(sum(lost(logits[0, frame], frame) for frame in range(3)), rel=1e-6)


def test_a_batch_without_masked_frames_loses_nothing():
    """No division by none."""
    spans = torch.zeros(2, 3, dtype=torch.bool)
    found = run_node(MaskedPrediction, {"codes": (5,)}, logits=drawn(2, 3, 5), units=torch.zeros(2, 3, dtype=torch.int64), spans=spans)
    assert found["loss"].tolist() == [0.0, 0.0]


def test_units_that_are_no_codes_are_refused():
    """500 units and four signs are 504 codes."""
    given = {"logits": drawn(1, 2, 9), "spans": torch.ones(1, 2, dtype=torch.bool)}
    with pytest.raises(InputError, match="found the unit 5 of book 0, wanted less than 5: it has 9 codes"):
        run_node(MaskedPrediction, {"codes": (9,)}, units=torch.tensor([[5, 0]]), **given)
    with pytest.raises(InputError, match="found 1 units for each frame, and 2 code books"):
        run_node(MaskedPrediction, {"codes": (5, 4)}, units=torch.tensor([[5, 0]]), **given)


def test_components_keep_their_declaration():
    """Shares of a loss do not depend on the order of records; logits and features have gradients."""
    conform(CodeHead, HEAD)
    conform(CodeHead, {**HEAD, "tied": True})
    spans = torch.tensor([[True, False, True], [True, True, False]])
    conform(MaskedPrediction, {"codes": (5,)}, spans=spans, units=torch.zeros(2, 3, dtype=torch.int64), logits=drawn(2, 3, 5))


def test_a_gradient_reaches_features_frames_and_codes():
    """The whole is trained by it."""
    head, loss = open_node(CodeHead, HEAD).loaded.state, open_node(MaskedPrediction, {"codes": (7, 4), "offset": 0}).loaded.state
    head.requires_grad_(True)
    tokens, features = drawn(2, 3, 5).requires_grad_(), drawn(2, 3, 4).requires_grad_()
    with torch.enable_grad():
        found = loss(head(tokens), torch.zeros(2, 3, 2, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool), None, features)
        assert math.isfinite(found["loss"].mean().item())
        found["loss"].mean().backward()
    assert all(part.grad is not None and bool(part.grad.any()) for part in (tokens, features, *head.parameters()))


# -- files --------------------------------------------------------------------------------------------------------------


def pretrained(path: Path, *, books: int = 1, classes: int = 9) -> Path:
    """The head of a file of fairseq, among other tensors."""
    save_file(
        {
            "label_embs_concat": drawn(classes, 3), "final_proj.weight": drawn(3 * books, 5), "final_proj.bias": drawn(3 * books),
            "mask_emb": drawn(5), "encoder.layer_norm.weight": drawn(5),
        },
        path,
    )  # fmt: skip
    return path


def test_a_file_says_its_sizes_and_who_has_several_books_says_theirs(tmp_path: Path):
    """One book needs no word; of several, the file has the sum alone."""
    one = configured(REGISTRY, "units/code_head", str(pretrained(tmp_path / "one.safetensors")))
    assert one.config == CodeHead(width=5, final_dim=3, codes=(9,))
    assert counts(one) == (6 * 3 + 9 * 3,) * 2
    assert configured(REGISTRY, "units/masked_prediction", str(tmp_path / "one.safetensors")).config.codes == (9,)
    several = str(pretrained(tmp_path / "two.safetensors", books=2))
    with pytest.raises(ValueError, match=r"has 2 books with 9 codes in all: set `with: \{codes: \[\.\.\.\]\}`"):
        configured(REGISTRY, "units/code_head", several)


def test_a_config_beside_the_file_says_the_books(tmp_path: Path):
    """With a projection for each, or one for all; what does not add up is refused."""
    pretrained(tmp_path / "model.safetensors", books=2)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert", "codes": [5, 4]}))
    part = open_part(REGISTRY, "units/code_head", str(tmp_path))
    assert part.node.config == CodeHead(width=5, final_dim=3, codes=(5, 4))
    pretrained(tmp_path / "model.safetensors", books=1)
    assert configured(REGISTRY, "units/code_head", str(tmp_path)).config.tied
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert", "codes": [5, 3]}))
    with pytest.raises(ValueError, match=r"states codes: \[5, 3\], and its tensors have 9 in 1 projections"):
        configured(REGISTRY, "units/code_head", str(tmp_path))


def test_a_model_without_code_books_is_refused(tmp_path: Path):
    """As those of transformers are."""
    save_file({"encoder.layer_norm.weight": drawn(5)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(ValueError, match="has no code books: its tensors lack label_embs_concat and final_proj"):
        configured(REGISTRY, "units/code_head", str(tmp_path))
