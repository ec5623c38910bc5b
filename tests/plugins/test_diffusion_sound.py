"""Sounds out of noise: AudioLDM as diffusers runs it, from a text and from a vector, on torch and on ONNX Runtime."""

from __future__ import annotations

import json
import threading

import numpy
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import modelgraft as mg
from modelgraft.testing import conform
from modelgraft_plugins.diffusion.sounding import Clap, DecodeMel, DenoiseSound, table
from support import sounding

pytestmark = [
    pytest.mark.slow,  # it imports diffusers, and saves whole pipelines
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
PROMPTS, OTHERS = ["a dog barks", "the sun"], ["", "bad"]
SECONDS = 0.117  # 11 frames, which are no whole latents: the sound is cut behind them
BEGUN = """modelgraft: 1
extends: diffusion/{name}
inputs.noise: "float[batch 5 6 3]"
nodes.denoise.in.latents: inputs.noise
"""
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("sounding")
    sounding.save(home / "sound", sounding.audioldm())
    return begun(home)


def begun(home):
    (home / "begun.yaml").write_text(BEGUN.format(name="audioldm"))
    (home / "embeds.yaml").write_text(
        BEGUN.format(name="audioldm_embeds") + f"inputs.prompt_embeds: 'float[batch {sounding.WIDTH}]'\n"
        f"inputs.negative_prompt_embeds: 'float[batch {sounding.WIDTH}]'\n"
    )
    return home


def graph(home, *, file="begun", steps=5, **more):
    return mg.load(home / f"{file}.yaml", params={"checkpoint": home / "sound", "steps": steps, "seconds": SECONDS, **more})


def noise(batch=2):
    return sounding.noise(batch, 5, 6, 3)


def reference(pipeline, *, steps=5, **given):
    given = given or {"prompt": PROMPTS, "negative_prompt": OTHERS}
    with torch.no_grad():
        return pipeline(latents=noise(), num_inference_steps=steps, audio_length_in_s=SECONDS, output_type="np", **given).audios


def samples(found):
    assert {one.sample_rate_hz for one in found["audio"]} == {1000}
    return numpy.concatenate([one.samples for one in found["audio"]])


def heard(home, *, backend="torch", **more):
    with mg.open(graph(home, **more), backend=backend) as opened:
        return opened.run(prompt=PROMPTS, negative=OTHERS, noise=noise())


SCHEDULERS = {
    "DDIMScheduler": {"steps_offset": 1, "clip_sample": False}, "PNDMScheduler": {"skip_prk_steps": True}, "EulerDiscreteScheduler": {},
    "LMSDiscreteScheduler": {}, "DPMSolverMultistepScheduler": {}, "UniPCMultistepScheduler": {},
}  # fmt: skip


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_sounds_are_those_of_the_library(tmp_path, scheduler):
    """From the same noise: every sample, cut where the library cuts it."""
    pipeline = sounding.save(tmp_path / "sound", sounding.audioldm(scheduler, **SCHEDULERS[scheduler]))
    wanted = reference(pipeline)
    assert wanted.shape == (2, 117)
    torch.testing.assert_close(torch.from_numpy(samples(heard(begun(tmp_path)))), torch.from_numpy(wanted), **CLOSE)


def test_vectors_of_others_take_the_place_of_the_text_encoder(folder):
    """Such as those of a projection, of any length."""
    pipeline = sounding.audioldm()
    towards, away = 3.0 * sounding.noise(2, sounding.WIDTH, seed=8), sounding.noise(2, sounding.WIDTH, seed=9)
    with mg.open(graph(folder, file="embeds")) as opened:
        found = samples(opened.run(prompt_embeds=towards, negative_prompt_embeds=away, noise=noise()))
    wanted = reference(pipeline, prompt_embeds=towards, negative_prompt_embeds=away)
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(wanted), **CLOSE)
    assert numpy.abs(found - samples(heard(folder))).max() > 1e-3


def test_the_vector_of_a_text_is_that_of_clap(folder):
    """Of the length 1, whatever fills the batch up."""
    text = BEGUN.format(name="audioldm") + "outputs.vector: vector\n"
    (folder / "vector.yaml").write_text(text)
    pipeline = sounding.audioldm()
    with mg.open(graph(folder, file="vector")) as opened:
        found = torch.stack(list(opened.run(prompt=PROMPTS, negative=OTHERS, noise=noise(), outputs=["vector"])["vector"]))
    ids = pipeline.tokenizer(PROMPTS, padding="max_length", max_length=sounding.LENGTH, return_tensors="pt")
    with torch.no_grad():
        wanted = pipeline.text_encoder(ids.input_ids, attention_mask=ids.attention_mask).text_embeds
    torch.testing.assert_close(found, wanted / wanted.norm(dim=-1, keepdim=True), **CLOSE)


def test_bands_and_latents_come_out(folder):
    with mg.open(graph(folder)) as opened:
        found = opened.run(prompt=PROMPTS, negative=OTHERS, noise=noise())
    latents, mel = (torch.stack(list(found[name])) for name in ("latents", "mel"))
    assert (latents.shape, mel.shape) == ((2, 5, 6, 3), (2, 12, 6))
    with torch.no_grad():
        wanted = sounding.audioldm().decode_latents(latents)
    torch.testing.assert_close(mel, wanted[:, 0], **CLOSE)


def test_without_guidance_the_unet_is_asked_once(folder):
    text = BEGUN.format(name="audioldm_embeds") + f"inputs.prompt_embeds: 'float[batch {sounding.WIDTH}]'\n"
    text += "nodes.denoise.in.negative: null\ninputs.negative_prompt_embeds: null\n"
    (folder / "alone.yaml").write_text(text)
    towards = sounding.noise(2, sounding.WIDTH, seed=8)
    with mg.open(graph(folder, file="alone", guidance=1)) as opened:
        found = samples(opened.run(prompt_embeds=towards, noise=noise()))
    wanted = reference(sounding.audioldm(), prompt_embeds=towards, guidance_scale=1.0)
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(wanted), **CLOSE)


def test_a_batch_is_one_loop_and_gives_what_its_records_give(folder):
    """Under a seed, without noise that is given; another seed is another sound."""
    params = {"checkpoint": folder / "sound", "steps": 3, "seconds": SECONDS}
    plain = mg.load("diffusion/audioldm", params=params)
    with mg.open(plain, seed=7) as one, mg.open(plain, seed=8) as other:
        events = list(one.stream(prompt=PROMPTS))
        steps = [(event.done, event.total) for event in events if event.kind == "progress" and event.node == "denoise"]
        assert steps == [(1, 3), (2, 3), (3, 3)]  # not of each record
        both, alone = samples(one.run(prompt=PROMPTS)), [samples(one.run(prompt=[text]))[0] for text in PROMPTS]
        assert numpy.abs(both - numpy.stack(alone)).max() <= 1e-5
        assert numpy.array_equal(both, samples(one.run(prompt=PROMPTS)))
        assert numpy.abs(both - samples(other.run(prompt=PROMPTS))).max() > 1e-3


def test_a_run_that_is_cancelled_ends_with_the_step(folder):
    with mg.open(graph(folder, steps=900)) as opened:
        threading.Timer(0.5, opened.cancel).start()
        with pytest.raises(mg.Cancelled):
            opened.run(prompt="a dog barks", negative="", noise=noise(1))


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_diffusion.py::test_the_unet_may_be_a_session",
)
def test_parts_may_be_sessions(folder, monkeypatch, tmp_path):
    """Text encoder, UNet, decoder and vocoder are exported, and the sound is that of torch."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    on_torch, on_onnx = (samples(heard(folder, backend=backend)) for backend in ("torch", "onnx"))
    assert numpy.abs(on_torch - on_onnx).max() <= 1e-4 * numpy.abs(on_torch).max()
    with mg.open(graph(folder), backend="onnx") as opened:
        assert {opened.plan.nodes[name].backend for name in ("vector", "denoise", "decode", "vocoder")} == {"onnx"}


def test_parameters_are_counted_to_the_unit(folder):
    """Without building anything; those of the published sizes as well."""
    pipeline = sounding.audioldm()
    plan = mg.plan(graph(folder))
    decoder = (*pipeline.vae.decoder.parameters(), *pipeline.vae.post_quant_conv.parameters())
    built = {"vector": pipeline.text_encoder, "denoise": pipeline.unet, "vocoder": pipeline.vocoder}
    counts = {name: sum(one.numel() for one in model.parameters()) for name, model in built.items()}
    counts["decode"] = sum(one.numel() for one in decoder)
    assert {name: plan.nodes[name].parameters.total for name in counts} == counts
    published = mg.plan(mg.load("diffusion/audioldm"))
    told = {name: published.nodes[name].parameters.total for name in ("denoise", "vector", "vocoder")}
    assert told == {"denoise": 739_139_080, "vector": 125_302_016, "vocoder": 55_264_897}  # as published with AudioLDM-l-full


def test_parts_conform():
    sizes = {"hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 1, "intermediate_size": 19, "vocab_size": 20}
    conform(Clap, {**sizes, "projection_dim": 7, "max_position_embeddings": 17})
    conform(DecodeMel, {"vae": sounding.VAE, "channels": 5, "shrink": 2, "mels": 6, "scale": 0.37})


def test_every_key_of_the_text_encoders_config_is_known():
    known = table().known
    assert not [key for key in hf.ClapTextConfig().to_dict() if key not in known]
    assert table().unheeded({"swirl": 3}, "org/model")


def test_files_may_leave_out_what_is_counted(folder, tmp_path):
    """Numbers of places are no weights."""
    sounding.save(tmp_path / "sound", sounding.audioldm())
    path = tmp_path / "sound" / "text_encoder" / "model.safetensors"
    state = load_file(path)
    left = {key: tensor for key, tensor in state.items() if not key.endswith("position_ids")}
    assert len(left) < len(state)
    save_file(left, path)
    assert numpy.array_equal(samples(heard(begun(tmp_path))), samples(heard(folder)))


def changed(tmp_path, file, **values):
    """The same checkpoint with other values in one of its configs."""
    sounding.save(tmp_path / "sound", sounding.audioldm())
    path = tmp_path / "sound" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return graph(begun(tmp_path))


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("unet/config.json", {"class_embed_type": None}, "the UNet has class_embed_type: None, and diffusion/denoise-sound gives it one"),
        ("unet/config.json", {"addition_embed_type": "text"}, "the UNet has addition_embed_type: 'text'"),
        ("unet/config.json", {"_class_name": "AudioLDM2UNet2DConditionModel"}, "UNet2DConditionModel is what is served"),
        ("unet/config.json", {"projection_class_embeddings_input_dim": 31}, "31"),
        ("vae/config.json", {"out_channels": 3}, "the VAE gives 3 channels, and bands are one: diffusion/decode gives colours"),
        ("vae/config.json", {"scaling_factor": 0.5}, ""),
        ("text_encoder/config.json", {"model_type": "bert"}, "diffusion/clap serves clap_text_model"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_check(tmp_path, file, values, said):
    wanted = changed(tmp_path, file, **values)
    if not said:  # both read it: the same scale on both sides fits
        mg.check(wanted)
        return
    with pytest.raises(mg.GraphError, match=said):
        mg.check(wanted)


def test_latents_of_another_scale_do_not_fit(folder):
    (folder / "faded.yaml").write_text(BEGUN.format(name="audioldm") + "nodes.decode.with.scale: 0.5\n")
    with pytest.raises(mg.GraphError, match="scale"):
        mg.check(graph(folder, file="faded"))


def test_a_vector_of_another_width_is_found_before_anything_is_loaded(folder):
    """Such as a projection that was trained for another generator."""
    text = (
        (folder / "embeds.yaml").read_text().replace(f"prompt_embeds: 'float[batch {sounding.WIDTH}]", "prompt_embeds: 'float[batch 33]", 1)
    )
    (folder / "wide.yaml").write_text(text)
    with pytest.raises(mg.GraphError, match=r"33.*24|24.*33"):
        mg.check(graph(folder, file="wide"))


def test_a_scheduler_that_the_unet_was_not_trained_for_is_refused(folder):
    text = BEGUN.format(name="audioldm") + "nodes.denoise.with.trained: {_class_name: DDIMScheduler, prediction_type: v_prediction}\n"
    (folder / "other.yaml").write_text(text)
    with pytest.raises(mg.GraphError, match=r"was trained with prediction 'v_prediction', and its scheduler has 'epsilon'"):
        mg.check(graph(folder, file="other"))


def test_a_sound_of_no_frame_is_refused(folder):
    with pytest.raises(mg.GraphError, match=r"seconds is 0\.001, which is no frame: write seconds: 0\.02 or more"):
        mg.check(mg.load("diffusion/audioldm", params={"checkpoint": folder / "sound", "seconds": 0.001}))


def test_a_vocoder_that_hears_otherwise_does_not_fit(folder, tmp_path):
    """The bands say at which rate and hop they are to be heard."""
    sounding.save(tmp_path / "sound", sounding.audioldm())
    path = tmp_path / "sound" / "vocoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sampling_rate": 2000}))
    (folder / "high.yaml").write_text(BEGUN.format(name="audioldm") + "params.voice: null\nnodes.vocoder.from: '${voice}#vocoder'\n")
    with pytest.raises(mg.GraphError, match="sample_rate_hz"):
        mg.check(graph(folder, file="high", voice=tmp_path / "sound"))


def test_the_components_are_declared_without_diffusers():
    assert DenoiseSound().parts()["unet"].outputs["noise"].tensor is not None
    assert DecodeMel().parameters() > 0
