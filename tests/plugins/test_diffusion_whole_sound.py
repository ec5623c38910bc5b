"""A whole AudioLDM, or a whole text-to-video folder, as one node: what the graph of its parts gives."""

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
PROMPTS, OTHERS = ["a dog barks", "the sun"], ["", "bad"]
WHOLE = """modelgraft: 1
params: {checkpoint: null, steps: 5}
inputs: {prompt: text, negative: text, noise: "float[batch 5 6 3]"}
nodes:
  sound:
    use: diffusion/text-to-audio
    from: "${checkpoint}"
    with: {steps: "${steps}", seconds: 0.117}
    in: {prompt: inputs.prompt, negative: inputs.negative, latents: inputs.noise}
outputs: {audio: sound.audio, latents: sound.latents}
"""
EMBEDS = """modelgraft: 1
params: {checkpoint: null}
inputs: {vector: "float[batch 24]", noise: "float[batch 5 6 3]"}
nodes:
  sound:
    use: diffusion/text-to-audio
    from: "${checkpoint}"
    with: {steps: 5, seconds: 0.117}
    in: {prompt_embeds: inputs.vector, latents: inputs.noise}
outputs: {audio: sound.audio}
"""
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("whole")
    sounding.save(home / "sound", sounding.audioldm())
    (home / "whole.yaml").write_text(WHOLE)
    (home / "embeds.yaml").write_text(EMBEDS)
    return home


def noise(batch=2):
    return sounding.noise(batch, 5, 6, 3)


def graph(home, file="whole", **more):
    return mg.load(home / f"{file}.yaml", params={"checkpoint": home / "sound", **more})


def heard(home, *, backend="torch"):
    with mg.open(graph(home), backend=backend) as opened:
        return samples(opened.run(prompt=PROMPTS, negative=OTHERS, noise=noise()))


def samples(found):
    return torch.from_numpy(numpy.concatenate([one.samples for one in found["audio"]]))


def reference(**given):
    with torch.no_grad():
        made = sounding.audioldm()(latents=noise(), num_inference_steps=5, audio_length_in_s=0.117, **given)
    return torch.from_numpy(made.audios)


def test_a_whole_folder_gives_what_the_library_gives(folder):
    torch.testing.assert_close(heard(folder), reference(prompt=PROMPTS, negative_prompt=OTHERS), **CLOSE)


def test_a_vector_takes_the_place_of_a_text(folder):
    """What is avoided is then the empty text, as in the library."""
    vector = 3.0 * sounding.noise(2, 24, seed=8)
    with mg.open(graph(folder, "embeds")) as opened:
        found = samples(opened.run(vector=vector, noise=noise()))
    pipeline = sounding.audioldm()
    ids = pipeline.tokenizer(["", ""], padding="max_length", max_length=24, return_tensors="pt")
    with torch.no_grad():
        away = pipeline.text_encoder(ids.input_ids, attention_mask=ids.attention_mask).text_embeds
    away = away / away.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found, reference(prompt_embeds=vector, negative_prompt_embeds=away), **CLOSE)


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_diffusion.py::test_the_unet_may_be_a_session",
)
def test_parts_may_be_sessions(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    on_torch, on_onnx = (heard(folder, backend=backend) for backend in ("torch", "onnx"))
    assert (on_torch - on_onnx).abs().max() <= 1e-4 * on_torch.abs().max()


def test_a_whole_is_counted_as_it_was_published(folder):
    """Without building it: AudioLDM-l-full of the literature, to the unit."""
    pipeline = sounding.audioldm()
    parts = (pipeline.text_encoder, pipeline.unet, pipeline.vae, pipeline.vocoder)
    assert mg.plan(graph(folder)).nodes["sound"].parameters.total == sum(one.numel() for part in parts for one in part.parameters())
    (folder / "published.yaml").write_text(WHOLE.replace(', noise: "float[batch 5 6 3]"', "").replace(", latents: inputs.noise", ""))
    published = mg.load(folder / "published.yaml", params={"checkpoint": "preset:audioldm-l-full"})
    assert mg.plan(published).nodes["sound"].parameters.total == 975_082_866


def test_steps_are_told_once_for_a_batch(folder):
    with mg.open(graph(folder, steps=3)) as opened:
        events = list(opened.stream(prompt=PROMPTS, negative=OTHERS, noise=noise()))
    assert [(event.done, event.total) for event in events if event.kind == "progress" and event.node == "sound"] == [(1, 3), (2, 3), (3, 3)]


def test_a_longer_text_is_cut_and_that_is_told(folder):
    with mg.open(graph(folder, steps=1)) as opened:
        events = list(opened.stream(prompt="the quick brown fox jumps over the lazy dog " * 3, negative="", noise=noise(1)))
    assert any("of which 30 are read" in event.text for event in events if event.kind == "warning")


def test_what_is_no_whole_is_refused(folder):
    text = WHOLE.replace('from: "${checkpoint}"', 'from: "${checkpoint}#unet"')
    (folder / "part.yaml").write_text(text)
    with pytest.raises(mg.GraphError, match="is no whole AudioLDM"):
        mg.check(graph(folder, "part"))
    (folder / "both.yaml").write_text(EMBEDS.replace("prompt_embeds: inputs.vector, ", ""))
    with pytest.raises(mg.GraphError, match=r"is given neither `prompt` nor `prompt_embeds`\n.*wire one of them"):
        mg.check(graph(folder, "both"))
