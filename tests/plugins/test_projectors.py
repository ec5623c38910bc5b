"""Projectors compute what their formulas say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import conform, node_of, run_node
from modelgraft_plugins import projectors
from modelgraft_plugins.projectors import MLP, Linear, PixelShuffle
from modelgraft_plugins.projectors import modules as projectors_modules
from support import checkpoints
from support.open_part import configured, counts, open_part

REGISTRY = assemble({"projectors": projectors})
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise


def test_a_projection_of_a_checkpoint_is_a_linear_layer(tmp_path: Path):
    """Sizes and bias come from the shapes of its tensors, the result from the formula."""
    model = checkpoints.blip2(tmp_path).model.language_projection
    project = open_part(REGISTRY, "projector/linear", f"{tmp_path}#language_projection")
    x = torch.randn(2, 7, 18, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(project(x), x @ model.weight.detach().T + model.bias.detach(), **CLOSE)
    assert project.outputs == {"y": "float[batch tokens 24]"}


def test_llavas_projector_is_two_layers(tmp_path: Path):
    """As transformers computes it; both widths come from the checkpoint."""
    model = checkpoints.llava(tmp_path).model.model.multi_modal_projector
    project = open_part(REGISTRY, "projector/mlp", f"{tmp_path}#multi_modal_projector")
    x = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(project(x), model(x), **CLOSE)
    formula, built = counts(project.node)
    assert formula == built


def test_published_counts():
    """LLaVA's two projectors and BLIP-2's language projection."""
    assert Linear(in_features=1024, out_features=4096).parameters() == 4_198_400
    assert MLP(in_features=1024, out_features=4096).parameters() == 20_979_712
    assert Linear(in_features=768, out_features=2560).parameters() == 1_968_640


def test_the_projections_of_clip_lead_into_its_own_space(tmp_path: Path):
    """Vectors of two checkpoints are told apart, even when they are equally wide."""
    checkpoints.clip(tmp_path / "one")
    checkpoints.clip(tmp_path / "other")
    one, same, other = (
        configured(REGISTRY, "projector/linear", f"{tmp_path}/{source}").out_ports["y"].space
        for source in ("one#visual_projection", "one#text_projection", "other#visual_projection")
    )
    assert one is not None
    assert one.differences(same) == []
    assert [name for name, _, _ in one.differences(other)] == ["model"]


def test_widths_stay_open_without_a_source():
    """The solver fills them from the neighbours."""
    assert {name: str(port) for name, port in node_of(Linear).in_ports.items()} == {"x": "float[batch tokens in_features]"}
    assert node_of(MLP, {"out_features": 12}).config.inner == 12


def test_dropout_stands_before_both_layers_of_an_mlp_and_only_in_training():
    """Against the formula, with the numbers that torch draws; the state has no other names, and the count is the same."""
    options = {"in_features": 6, "hidden_features": 40, "out_features": 3, "norm": True, "over": "vector"}
    plain, dropping = (projectors_modules.MLP(MLP(**options, dropout=share)) for share in (0.0, 0.5))
    dropping.load_state_dict(plain.state_dict())
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(dropping.eval()(x), plain(x))
    torch.manual_seed(2)
    found = dropping.train()(x)
    torch.manual_seed(2)
    kept = [2 * torch.empty(5, width).bernoulli_(0.5) for width in (6, 40)]
    inner = torch.nn.functional.gelu((plain.layer_norm(x) * kept[0]) @ plain.linear_1.weight.T + plain.linear_1.bias) * kept[1]
    torch.testing.assert_close(found, inner @ plain.linear_2.weight.T + plain.linear_2.bias, **CLOSE)
    assert MLP(**options).parameters() == MLP(**options, dropout=0.5).parameters() == sum(one.numel() for one in plain.parameters())


def test_pixel_shuffle_joins_neighbouring_patches():
    """Against loops over groups, rows and columns."""
    side, factor, width = 6, 2, 3
    x = torch.arange(2 * side * side * width, dtype=torch.float32).view(2, side * side, width)
    expected = []
    for record in x.view(2, side, side, width):
        groups = [
            torch.cat([record[top + row, left + column] for row in range(factor) for column in range(factor)])
            for top in range(0, side, factor)
            for left in range(0, side, factor)
        ]
        expected.append(torch.stack(groups))
    assert torch.equal(run_node(PixelShuffle, {"factor": factor}, x=x)["y"], torch.stack(expected))


def test_pixel_shuffle_is_that_of_a_published_model():
    """Idefics3 (SmolVLM) joins in the same order, so that its connector is this part and a linear layer."""
    connector = hf.models.idefics3.modeling_idefics3.Idefics3Connector
    x = torch.randn(2, 36, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(run_node(PixelShuffle, {"factor": 3}, x=x)["y"], connector.pixel_shuffle(None, x, 3))


def test_a_class_token_among_the_patches_is_reported():
    """37 tokens are no square grid."""
    with pytest.raises(InputError, match=r"got 37 tokens, wanted a square grid .* a class token must be left out \(select: patches\)"):
        run_node(PixelShuffle, x=torch.zeros(1, 37, 4))


@pytest.mark.parametrize("over", ["tokens", "vector"])
def test_projectors_keep_their_declarations(over: str):
    """Ports, repeatability, batches, count and saved state."""
    conform(Linear, {"in_features": 5, "out_features": 3, "over": over})
    conform(Linear, {"in_features": 5, "out_features": 3, "bias": False, "over": over})
    conform(MLP, {"in_features": 5, "out_features": 3, "hidden_features": 9, "over": over})
    conform(PixelShuffle, {"factor": 2}, x=torch.randn(2, 16, 3))
