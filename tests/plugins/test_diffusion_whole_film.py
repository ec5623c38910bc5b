"""A whole text-to-video folder as one node: what the library gives, and what the graph of its parts gives."""

from __future__ import annotations

import numpy
import pytest
import torch

import modelgraft as mg
from support import sounding

pytestmark = [
    pytest.mark.slow,  # it imports diffusers, and saves whole pipelines
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
PROMPTS, OTHERS = ["the red bird", "a cat"], ["", "bad"]
WHOLE = """modelgraft: 1
params: {checkpoint: null}
inputs: {prompt: text, negative: text, noise: "float[batch 4 3 8 12]"}
nodes:
  film:
    use: diffusion/text-to-video
    from: "${checkpoint}"
    with: {steps: 4, guidance: 9.0, frames: 3, height: 16, width: 24}
    in: {prompt: inputs.prompt, negative: inputs.negative, latents: inputs.noise}
outputs: {video: film.video, latents: film.latents}
"""
EMBEDS = """modelgraft: 1
params: {checkpoint: null}
inputs: {states: "float[batch 77 20]", noise: "float[batch 4 3 8 12]"}
nodes:
  film:
    use: diffusion/text-to-video
    from: "${checkpoint}"
    with: {steps: 4, guidance: 9.0, frames: 3, height: 16, width: 24}
    in: {prompt_embeds: inputs.states, latents: inputs.noise}
outputs: {latents: film.latents}
"""
SIZE = {"num_frames": 3, "height": 16, "width": 24, "num_inference_steps": 4}
CLOSE = 1e-5  # float32, elementwise, of the largest value: latents of random weights grow to 50 within four steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("whole")
    sounding.save(home / "film", sounding.film(clip_sample=False))
    (home / "whole.yaml").write_text(WHOLE)
    (home / "embeds.yaml").write_text(EMBEDS)
    return home


def noise():
    return sounding.noise(2, 4, 3, 8, 12)


def graph(home, file="whole", **more):
    return mg.load(home / f"{file}.yaml", params={"checkpoint": home / "film", **more})


def filmed(home, *, backend="torch"):
    with mg.open(graph(home), backend=backend) as opened:
        return opened.run(prompt=PROMPTS, negative=OTHERS, noise=noise())


def reference(*, output="latent", **given):
    with torch.no_grad():
        return sounding.film(clip_sample=False)(latents=noise(), output_type=output, **SIZE, **given).frames


def stacked(found):
    return torch.stack(list(found["latents"]))


def assert_close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=CLOSE * wanted.abs().max().item())


def test_a_whole_folder_gives_what_the_library_gives(folder):
    found = filmed(folder)
    assert_close(stacked(found), reference(prompt=PROMPTS, negative_prompt=OTHERS))
    for mine, theirs in zip(found["video"], reference(output="pil", prompt=PROMPTS, negative_prompt=OTHERS), strict=True):
        wanted = numpy.stack([numpy.asarray(frame, int) for frame in theirs])
        assert numpy.abs(mine.frames.astype(int) - wanted).max() <= 1  # rounded, where a number lies between two


def test_states_take_the_place_of_a_text(folder):
    """What is avoided is then the empty text, as in the library."""
    states = sounding.noise(2, 77, 20, seed=8)
    with mg.open(graph(folder, "embeds")) as opened:
        found = stacked(opened.run(states=states, noise=noise()))
    pipeline = sounding.film()
    ids = pipeline.tokenizer(["", ""], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        away = pipeline.text_encoder(ids).last_hidden_state
    assert_close(found, reference(prompt_embeds=states, negative_prompt_embeds=away))


@pytest.mark.whole("tests/plugins/test_diffusion.py::test_the_unet_may_be_a_session")
def test_parts_may_be_sessions(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    on_torch, on_onnx = (stacked(filmed(folder, backend=backend)) for backend in ("torch", "onnx"))
    assert (on_torch - on_onnx).abs().max() <= 1e-4 * on_torch.abs().max()


def test_a_whole_is_counted_as_it_was_published(folder):
    """Without building it: Zeroscope of the literature, to the unit."""
    pipeline = sounding.film()
    parts = (pipeline.text_encoder, pipeline.unet, pipeline.vae)
    assert mg.plan(graph(folder)).nodes["film"].parameters.total == sum(one.numel() for part in parts for one in part.parameters())
    assert mg.plan(mg.load("diffusion/text_to_video")).nodes["film"].parameters.total == 1_835_275_563


def test_what_is_no_whole_is_refused(folder):
    (folder / "part.yaml").write_text(WHOLE.replace('from: "${checkpoint}"', 'from: "${checkpoint}#unet"'))
    with pytest.raises(mg.GraphError, match="is no whole text-to-video model"):
        mg.check(graph(folder, "part"))
    (folder / "both.yaml").write_text(EMBEDS.replace("prompt_embeds: inputs.states, ", ""))
    with pytest.raises(mg.GraphError, match=r"is given neither `prompt` nor `prompt_embeds`\n.*wire one of them"):
        mg.check(graph(folder, "both"))
