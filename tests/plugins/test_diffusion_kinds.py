"""Stable Diffusion 2, XL and 3 through the one loop, against the pipelines of diffusers from the same noise."""

from __future__ import annotations

import numpy
import pytest
import torch

import modelgraft as mg
from support import painting, painting_kinds

pytestmark = [
    pytest.mark.slow,  # it imports diffusers, and saves whole pipelines
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

PROMPTS, OTHERS = ["the red bird", "a cat"], ["", "bad"]
TOLERANCE = 1e-5  # of the largest, in fp32
KINDS = {
    "sd2": ("stable_diffusion", painting_kinds.v_prediction, {"guidance_scale": 7.5}),
    "sdxl": ("diffusion/stable_diffusion_xl", painting_kinds.sdxl, {"guidance_scale": 5.0}),
    "sd3": ("diffusion/stable_diffusion_3", painting_kinds.sd3, {"guidance_scale": 7.0}),
}
MORE = {
    "sdxl": {"original_size": (16, 24), "target_size": (16, 24), "height": 16, "width": 24},
    "sd3": {"height": 16, "width": 24},
}
BEGUN = """modelgraft: 1
extends: {graph}
inputs.noise: "float[batch 4 8 12]"
nodes.denoise.with: {{steps: 5, height: 16, width: 24}}
nodes.denoise.in.latents: inputs.noise
"""


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """(a graph of it, its pipeline, what the pipeline is told)"""
    graph, made, told = KINDS[request.param]
    home = tmp_path_factory.mktemp(request.param)
    pipeline = painting_kinds.saved(made(), home / "model")
    (home / "begun.yaml").write_text(BEGUN.format(graph=graph))
    return mg.load(home / "begun.yaml", params={"checkpoint": home / "model"}), pipeline, {**told, **MORE.get(request.param, {})}


def wanted(pipeline, told, *, output="latent"):
    with torch.no_grad():
        return pipeline(
            prompt=PROMPTS, negative_prompt=OTHERS, latents=painting.noise(2), num_inference_steps=5, output_type=output, **told
        ).images


def test_latents_and_pictures_are_those_of_the_library(kind):
    """Within 1e-5 of the largest latent; pictures to the value of each colour."""
    graph, pipeline, told = kind
    with mg.open(graph) as opened:
        found = opened.run(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2))
    latents = wanted(pipeline, told)
    assert (torch.stack(list(found["latents"])) - latents).abs().max() <= TOLERANCE * latents.abs().max()
    for mine, theirs in zip(found["image"], wanted(pipeline, told, output="pil"), strict=True):
        assert numpy.abs(numpy.asarray(mine, int) - numpy.asarray(theirs, int)).max() <= 1


def test_a_batch_is_one_loop_and_gives_what_its_records_give(kind):
    """As many steps for two prompts as for one."""
    graph, _, _ = kind
    with mg.open(graph) as opened:
        events = list(opened.stream(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2)))
        both = events[-1].result["latents"]
        alone = opened.run(prompt=PROMPTS[1], negative=OTHERS[1], noise=painting.noise(2)[1:])["latents"]
    assert sum(event.kind == "progress" and event.node == "denoise" for event in events) == 5
    assert (both[1] - torch.as_tensor(alone).reshape(both[1].shape)).abs().max() <= TOLERANCE * both[1].abs().max()


@pytest.mark.whole("tests/plugins/test_diffusion.py::test_the_unet_may_be_a_session")
def test_the_parts_may_be_sessions(kind, tmp_path, monkeypatch):
    """Text encoders, model and decoder on ONNX Runtime give the same picture."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    graph, _, _ = kind
    found = {}
    for backend in ("torch", "onnx"):
        with mg.open(graph, backend=backend) as opened:
            found[backend] = opened.run(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2))
    one, other = (torch.stack(list(found[backend]["latents"])) for backend in ("torch", "onnx"))
    assert (one - other).abs().max() <= 1e-4 * one.abs().max()
    for mine, theirs in zip(found["torch"]["image"], found["onnx"]["image"], strict=True):
        assert numpy.abs(numpy.asarray(mine, int) - numpy.asarray(theirs, int)).max() <= 1


def test_parameters_are_counted_to_the_unit(kind):
    """What each node holds, as diffusers and transformers count it."""
    graph, pipeline, _ = kind
    plan = mg.plan(graph, exact=True)
    model = getattr(pipeline, "unet", None) or pipeline.transformer
    assert plan.nodes["denoise"].parameters.total == sum(one.numel() for one in model.parameters())
    if "words" in plan.nodes and plan.nodes["words"].parameters.total:
        encoders = [getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")]
        total = sum(one.numel() for encoder in encoders if encoder is not None for one in encoder.parameters())
        assert plan.nodes["words"].parameters.total == total


def test_stable_diffusion_3_may_go_without_its_t5(tmp_path):
    """Zeros stand for its states."""
    pipeline = painting_kinds.saved(painting_kinds.sd3(with_t5=False), tmp_path / "model")
    (tmp_path / "begun.yaml").write_text(BEGUN.format(graph="diffusion/stable_diffusion_3"))
    with mg.open(mg.load(tmp_path / "begun.yaml", params={"checkpoint": tmp_path / "model"})) as opened:
        found = torch.stack(list(opened.run(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2))["latents"]))
    latents = wanted(pipeline, {"guidance_scale": 7.0, **MORE["sd3"]})
    assert (found - latents).abs().max() <= TOLERANCE * latents.abs().max()


def test_times_are_shifted_by_the_size_of_the_picture(tmp_path):
    """Where the scheduler says so, as in Stable Diffusion 3.5 medium and Flux; and the second generation of blocks is served."""
    more = {"dual_attention_layers": (0,), "qk_norm": "rms_norm"}
    made = painting_kinds.sd3(more=more, use_dynamic_shifting=True, base_shift=0.4, max_shift=1.3)
    pipeline = painting_kinds.saved(made, tmp_path / "model")
    (tmp_path / "begun.yaml").write_text(BEGUN.format(graph="diffusion/stable_diffusion_3"))
    with mg.open(mg.load(tmp_path / "begun.yaml", params={"checkpoint": tmp_path / "model"})) as opened:
        found = torch.stack(list(opened.run(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2))["latents"]))
    latents = wanted(pipeline, {"guidance_scale": 7.0, **MORE["sd3"]})
    assert (found - latents).abs().max() <= TOLERANCE * latents.abs().max()


PUBLISHED = {  # as the library counts what was published: model, text encoders, and both halves of the VAE
    "stable_diffusion": {"denoise": 859_520_964, "states": 123_060_480, "whole": 1_066_235_307},
    "diffusion/stable_diffusion_2": {"denoise": 865_910_724, "states": 340_387_840, "whole": 1_289_952_427},
    "diffusion/stable_diffusion_xl": {"denoise": 2_567_463_684, "words": 817_720_320, "whole": 3_468_837_867},
    "diffusion/stable_diffusion_3": {"denoise": 2_028_328_000, "words": 5_580_620_800},
}


@pytest.mark.parametrize("graph", PUBLISHED)
def test_published_sizes_are_counted_without_building(graph, tmp_path, monkeypatch):
    """To the unit, in a cache where nothing is remembered, and again when they are built."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    wanted = dict(PUBLISHED[graph])
    whole = wanted.pop("whole", None)
    text = f"modelgraft: 1\nextends: {graph}\n"
    text += 'nodes.encode: {use: diffusion/encode, from: "${checkpoint}#vae", in: {pixels: decode}}\noutputs.again: encode\n'
    (tmp_path / "both.yaml").write_text(text)
    loaded = mg.load(tmp_path / "both.yaml")
    for exact in (False, True):
        nodes = mg.plan(loaded, exact=exact).nodes
        assert {name: nodes[name].parameters.total for name in wanted} == wanted
        halves = nodes["encode"].parameters.total + nodes["decode"].parameters.total
        assert whole is None or sum(wanted.values()) + halves == whole
