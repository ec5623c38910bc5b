"""The towers of a shared space: counted to the unit, and computing what their formulas say."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform, node_of, open_node
from modelgraft_plugins import embedding
from modelgraft_plugins.embedding import Tower
from modelgraft_plugins.embedding.modules import _rename
from support.open_part import configured

REGISTRY = assemble({"embedding": embedding})
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
SMALL = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "embedding_size": 10}
TOWERS = {
    "vision": {"height": 21, "width": 14, "kernel": 7, "stride": 7},
    "audio": {"height": 20, "width": 26, "kernel": 8, "stride": 6},
    "depth": {"height": 15, "width": 10, "kernel": 5, "stride": 5},
    "thermal": {"height": 15, "width": 10, "kernel": 5, "stride": 5},
    "imu": {"steps": 32, "kernel": 8, "stride": 8},
}
PUBLISHED = {  # millions, as the publication rounds them
    "vision": 632.8, "text": 354.0, "audio": 86.2, "depth": 21.9, "thermal": 86.2, "imu": 19.6,
}  # fmt: skip


@pytest.mark.parametrize("modality", PUBLISHED)
def test_each_tower_of_the_preset_has_its_published_size(modality: str):
    """From the config alone."""
    counted = configured(REGISTRY, "embedding/tower", f"preset:imagebind-huge#{modality}").config.parameters()
    assert round(counted / 1e6, 1) == PUBLISHED[modality]


def test_the_six_towers_together_are_right_to_the_unit():
    """The shipped graph plans to the number of the published file, and building it agrees."""
    graph = mg.load("imagebind")
    assert mg.plan(graph).totals.parameters == 1_200_781_057
    assert mg.plan(graph, exact=True).totals.parameters == 1_200_781_057


def test_a_preset_without_a_part_names_the_parts():
    """One tower is meant."""
    with pytest.raises(ValueError, match="takes one tower: write #vision, #text, #audio"):
        configured(REGISTRY, "embedding/tower", "preset:imagebind-huge")


@pytest.mark.parametrize("modality", TOWERS)
def test_towers_keep_their_declarations(modality: str):
    """Ports, repeatability, batches, count and saved state, of one medium and of clips."""
    conform(Tower, {"modality": modality, **SMALL, **TOWERS[modality]})
    conform(Tower, {"modality": modality, **SMALL, **TOWERS[modality], "clips": True})


def test_the_tower_of_texts_keeps_its_declaration():
    """Token ids are whole numbers below the size of the table."""
    ids = torch.randint(0, 30, (2, 9), generator=torch.Generator().manual_seed(1))
    conform(Tower, {"modality": "text", **SMALL, "context_length": 9, "vocab_size": 30}, x=ids)


def test_the_audio_tower_is_the_formula_of_the_paper():
    """Patches, class token, pre-norm blocks with one learned key and value more, head, scale 20; in float64, head by head."""
    trial = open_node(Tower, {"modality": "audio", **SMALL, **TOWERS["audio"]})
    tower = trial.loaded.state
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.copy_(0.3 + 0.5 * torch.randn(parameter.shape, generator=generator))
    x = torch.randn(2, 1, 20, 26, generator=generator)
    given = trial(x)
    tower = tower.double()
    patches = functional.conv2d(x.double(), tower.stem, stride=6).flatten(2).mT
    h = torch.cat([tower.class_token.expand(2, 1, 12), functional.layer_norm(patches, (12,), *affine(tower.stem_norm), 1e-5)], 1)
    h = h + tower.positions
    for block in tower.blocks:
        h = h + attend(block.attn, functional.layer_norm(h, (12,), *affine(block.norm_1), 1e-6))
        normed = functional.layer_norm(h, (12,), *affine(block.norm_2), 1e-6)
        h = h + block.mlp["fc2"](functional.gelu(block.mlp["fc1"](normed)))
    vector = tower.head(functional.layer_norm(h[:, 0], (12,), *affine(tower.head_norm), 1e-6))
    unit = vector / vector.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(given["unit"].double(), unit, **CLOSE)
    torch.testing.assert_close(given["embedding"].double(), 20 * unit, rtol=0.0, atol=1e-4)


def affine(norm: torch.nn.LayerNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a norm."""
    return norm.weight, norm.bias


def attend(attention: torch.nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """Attention head by head, with the learned key and value behind the others."""
    queries, keys, values = (x @ attention.in_proj_weight.mT + attention.in_proj_bias).chunk(3, -1)
    keys = torch.cat([keys, attention.bias_k.expand(2, 1, 12)], 1)
    values = torch.cat([values, attention.bias_v.expand(2, 1, 12)], 1)
    found = [
        ((q @ k.mT / 2).softmax(-1) @ v)  # heads of width 4: the root is 2
        for q, k, v in zip(queries.split(4, -1), keys.split(4, -1), values.split(4, -1), strict=True)
    ]
    return attention.out_proj(torch.cat(found, -1))


def test_a_still_picture_is_the_same_picture_twice():
    """And the average over equal clips is the vector of one."""
    sizes = {"modality": "vision", **SMALL, **TOWERS["vision"]}
    one, clips = open_node(Tower, sizes), open_node(Tower, {**sizes, "clips": True})
    x = torch.randn(2, 3, 21, 14, generator=torch.Generator().manual_seed(1))
    moving = x[:, None, :, None].expand(-1, 2, -1, 2, -1, -1)
    torch.testing.assert_close(clips(moving)["embedding"], one(x)["embedding"], **CLOSE)


def test_the_names_of_the_published_file_are_those_of_the_module():
    """Every tensor of a tower has its place; the fixed scales are among them."""
    listed = {
        "modality_preprocessors.audio.cls_token": "class_token",
        "modality_preprocessors.audio.rgbt_stem.proj.weight": "stem",
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": "stem",
        "modality_preprocessors.imu.imu_stem.norm_layer.bias": "stem_norm.bias",
        "modality_preprocessors.depth.pos_embedding_helper.pos_embed": "positions",
        "modality_preprocessors.imu.pos_embed": "positions",
        "modality_preprocessors.text.token_embedding.weight": "table.weight",
        "modality_trunks.vision.pre_transformer_layer.0.weight": "entry_norm.weight",
        "modality_trunks.audio.blocks.3.attn.bias_k": "blocks.3.attn.bias_k",
        "modality_heads.text.proj.1.weight": "head.weight",
        "modality_heads.imu.3.weight": "head.weight",
        "modality_heads.audio.0.bias": "head_norm.bias",
        "modality_postprocessors.audio.1.log_logit_scale": "log_scale",
    }
    assert {key: _rename(key, key.split(".")[1]) for key in listed} == listed


def test_vectors_of_another_model_are_told_apart():
    """The ports carry the name of the space."""
    node = node_of(Tower, {"modality": "imu", **SMALL, "space": "imagebind-huge"})
    assert str(node.out_ports["unit"].space) == "embedding(model=imagebind-huge)"
