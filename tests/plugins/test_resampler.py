"""Perceiver Resamplers: OpenFlamingo's answers, transformers' IDEFICS, published sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform, node_of, run_node
from modelgraft_plugins import resampler
from modelgraft_plugins.resampler import Perceiver
from support.checkpoints import randomise
from support.open_part import configured, counts, open_part
from support.oracles import oracle

REGISTRY = assemble({"resampler": resampler})
REFERENCE = oracle("openflamingo_resampler")
HEADS = {"num_heads": REFERENCE.config["heads"], "head_dim": REFERENCE.config["dim_head"]}
SMALL = {"hidden_size": 12, "depth": 2, "num_heads": 3, "head_dim": 5, "num_latents": 4}


@pytest.mark.parametrize("case", REFERENCE.cases)
def test_it_answers_as_openflamingo(case: str):
    """Pictures, videos, and videos of fewer frames, several per record, from the tensors alone."""
    part = open_part(REGISTRY, "resampler/perceiver", str(REFERENCE.file), many=True, **HEADS)
    found = REFERENCE.cases[case]
    found.compare(latents=part(found.inputs["x"]))


def test_one_medium_per_record_has_no_axis_for_it(tmp_path: Path):
    """The first of many is the only one of one, also behind a part of a larger file."""
    save_file({f"perceiver.{name}": tensor for name, tensor in REFERENCE.weights.items()}, tmp_path / "whole.safetensors")
    part = open_part(REGISTRY, "resampler/perceiver", f"{tmp_path / 'whole.safetensors'}#perceiver", **HEADS)
    found = REFERENCE.cases["video"]
    expected = found.outputs["latents"][:, 0]
    assert (part(found.inputs["x"][:, 0]) - expected).abs().max() <= found.tolerances["latents"]


def idefics(folder: Path, *, qk_norms: bool) -> IdeficsPerceiverResampler:
    """A resampler of transformers, and a checkpoint that holds it in the layout of IDEFICS."""
    perceiver = {
        "resampler_depth": 3, "resampler_n_heads": 5, "resampler_head_dim": 6, "resampler_n_latents": 7,
        "qk_layer_norms_perceiver": qk_norms,
    }  # fmt: skip
    config = hf.IdeficsConfig(vision_config={"embed_dim": 22}, perceiver_config=perceiver)
    model = IdeficsPerceiverResampler(config, 22, 3, 5, 6, 7).eval()
    randomise(model, seed=5)
    config.save_pretrained(folder)
    save_file({f"model.perceiver_resampler.{name}": tensor for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return model


@pytest.mark.parametrize("qk_norms", [True, False])
def test_it_answers_as_that_of_idefics(tmp_path: Path, qk_norms: bool):
    """Sizes and weights come from the checkpoint; one picture, and several."""
    theirs = idefics(tmp_path, qk_norms=qk_norms)
    source, media = f"{tmp_path}#perceiver_resampler", torch.randn(2, 3, 11, 22)
    with torch.no_grad():
        expected = theirs(media.flatten(0, 1)).unflatten(0, (2, 3))
    part = open_part(REGISTRY, "resampler/perceiver", source)
    torch.testing.assert_close(part(media[:, 1]), expected[:, 1], rtol=0.0, atol=1e-5)
    torch.testing.assert_close(open_part(REGISTRY, "resampler/perceiver", source, many=True)(media), expected, rtol=0.0, atol=1e-5)
    formula, built = counts(configured(REGISTRY, "resampler/perceiver", source))
    assert formula == built == sum(parameter.numel() for parameter in theirs.parameters())


def test_counts_are_those_of_the_publications():
    """OpenFlamingo reads CLIP ViT-L/14, IDEFICS-9B reads ViT-H/14."""
    assert Perceiver(hidden_size=1024).parameters() == 63_019_008
    sizes = {"hidden_size": 1280, "num_heads": 16, "head_dim": 96, "qk_norms": True}
    assert Perceiver(family="idefics", **sizes).parameters() == 125_961_984


@pytest.mark.parametrize(
    "sizes", [{}, {"many": True, "max_num_media": 8}, {"max_num_frames": 24}, {"family": "idefics", "qk_norms": True, "many": True}]
)
def test_it_keeps_its_declaration(sizes: dict[str, object]):
    """Ports, repeatability, batches, count and saved state, in every shape."""
    conform(Perceiver, {**SMALL, **sizes})


def test_more_frames_than_were_learned_are_refused():
    """With how many there may be."""
    with pytest.raises(mg.InputError, match="got 5 frames, but has learned vectors for 4: give fewer frames"):
        run_node(Perceiver, {**SMALL, "max_num_frames": 4}, media=torch.randn(2, 5, 7, 12))


def test_what_the_other_family_has_is_reported():
    """A setting that would be ignored."""
    node = node_of(Perceiver, {**SMALL, "family": "idefics", "max_num_frames": 4})
    assert list(node.config.review(node)) == [
        ("config-mismatch", "node has max_num_frames: 4, which the idefics family does not have", "leave max_num_frames out")
    ]


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    """The message names the parts that would do."""
    save_file({"weight": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no Perceiver Resampler, such as OpenFlamingo's #perceiver"):
        configured(REGISTRY, "resampler/perceiver", str(tmp_path / "other.safetensors"))
