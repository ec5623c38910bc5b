"""Perceiver Resamplers: OpenFlamingo's answers, transformers' IDEFICS, published sizes."""

from __future__ import annotations

from pathlib import Path

import numpy
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
from modelgraft_plugins.resampler.perceiver import feed_forward, times
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
    "sizes",
    [
        {}, {"many": True, "max_num_media": 8}, {"max_num_frames": 24}, {"family": "idefics", "qk_norms": True, "many": True},
        {"many": True, "max_num_frames": 2, "more_frames": "interpolate", "activation": "squared_relu"},
    ],
)  # fmt: skip
def test_it_keeps_its_declaration(sizes: dict[str, object]):
    """Ports, repeatability, batches, count and saved state, in every shape."""
    conform(Perceiver, {**SMALL, **sizes})


def test_more_frames_than_were_learned_are_refused():
    """With how many there may be."""
    with pytest.raises(mg.InputError, match="got 5 frames, but has learned vectors for 4: give fewer frames"):
        run_node(Perceiver, {**SMALL, "max_num_frames": 4}, media=torch.randn(2, 5, 7, 12))


VIDEO = {**SMALL, "max_num_frames": 4, "more_frames": "interpolate"}


@pytest.mark.parametrize("count", [1, 2, 4, 5, 11])
def test_frames_of_a_longer_video_stand_between_the_learned_times(count: int):
    """The first frames have the vectors that were learned; more of them are spread evenly over all, as numpy interpolates."""
    learned = torch.randn(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    places = numpy.arange(count) if count <= 4 else numpy.linspace(0, 3, count)
    expected = numpy.stack([numpy.interp(places, numpy.arange(4), column) for column in learned.numpy().T], axis=1)
    assert numpy.abs(times(learned, count, None).numpy() - expected).max() <= 1e-6
    beside = times(learned, count + 2, torch.tensor([[count, 1]]))  # in a batch with others, which are longer or shorter
    assert numpy.abs(beside[0, 0, :count].numpy() - expected).max() <= 1e-6
    assert torch.equal(beside[0, 1, 0], learned[0])


def test_pictures_and_clips_of_unlike_lengths_are_read_beside_each_other_as_alone():
    """What fills up a shorter clip is not read, whatever stands there; what fills up a record gives zeros."""
    lengths, width = torch.tensor([[1, 3, 6], [5, 0, 0]]), VIDEO["hidden_size"]
    media = torch.randn(2, 3, 6, 7, width, generator=torch.Generator().manual_seed(4))
    together = run_node(Perceiver, {**VIDEO, "many": True}, media=media, frames=lengths, seed=5)["latents"]
    for record, medium in [(0, 0), (0, 1), (0, 2), (1, 0)]:
        clip = media[record : record + 1, medium, : lengths[record, medium]]
        alone = run_node(Perceiver, VIDEO, media=clip, seed=5)["latents"]
        torch.testing.assert_close(together[record, medium], alone[0], rtol=0.0, atol=1e-5)
    assert together[1, 1:].abs().max() == 0


def test_a_picture_is_a_video_of_one_frame():
    """Without an axis for frames it has the first learned vector, alone and among several."""
    picture = torch.randn(2, 7, VIDEO["hidden_size"], generator=torch.Generator().manual_seed(6))
    as_video = run_node(Perceiver, VIDEO, media=picture[:, None], seed=5)["latents"]
    assert torch.equal(run_node(Perceiver, VIDEO, media=picture, seed=5)["latents"], as_video)
    several = run_node(Perceiver, {**VIDEO, "many": True}, media=picture[None], seed=5)["latents"]
    torch.testing.assert_close(several[0], as_video, rtol=0.0, atol=1e-5)


def test_the_feed_forward_layers_of_the_paper_square_what_is_positive():
    """By the formula, in float64."""
    layers = feed_forward(5, 3, "squared_relu").double()
    x = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    normed = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + layers[0].eps).sqrt()
    inner = (normed @ layers[1].weight.T).clamp(min=0) ** 2
    torch.testing.assert_close(layers(x), inner @ layers[3].weight.T, rtol=0.0, atol=1e-9)


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
