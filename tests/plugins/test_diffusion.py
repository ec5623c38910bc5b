"""Pictures out of noise: the denoising loop, step by step as diffusers takes it, and what does not fit it."""

from __future__ import annotations

import json
import threading

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

import modelgraft as mg
from modelgraft.plugin import SourceError
from modelgraft_plugins.diffusion import Decode, Denoise
from modelgraft_plugins.diffusion.schedulers import scheduler_of
from support import painting

pytestmark = [
    pytest.mark.slow,  # it imports diffusers, and saves whole pipelines
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

BEGUN = """modelgraft: 1
extends: stable_diffusion
inputs.noise: "float[batch 4 8 12]"
nodes.denoise.in.latents: inputs.noise
"""
PROMPTS, OTHERS = ["the red bird", "a cat"], ["", "bad"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("painting")
    painting.save(home / "sd")
    (home / "begun.yaml").write_text(BEGUN)
    return home


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A cache of exports: the UNet takes longer to export than all else that these tests do, so that it is exported once."""
    return tmp_path_factory.mktemp("exports")


def graph(home, *, steps=5, name="sd", **more):
    return mg.load(home / "begun.yaml", params={"checkpoint": home / name, "steps": steps, **more})


def reference(pipeline, *, steps=5, output="latent", **more):
    with torch.no_grad():
        return pipeline(
            prompt=PROMPTS, negative_prompt=OTHERS, latents=painting.noise(2), num_inference_steps=steps, output_type=output, **more
        ).images


def painted(home, *, name="sd", outputs=None, backend="torch", steps=5):
    with mg.open(graph(home, name=name, steps=steps), backend=backend) as opened:
        return opened.run(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2), outputs=outputs)


SCHEDULERS = {
    "DDIMScheduler": {"steps_offset": 1, "clip_sample": False},
    "PNDMScheduler": {"skip_prk_steps": True, "steps_offset": 1},
    "EulerDiscreteScheduler": {},
    "LMSDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
    "HeunDiscreteScheduler": {},
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_pictures_are_those_of_the_library(tmp_path, scheduler):
    """From the same noise, bit for bit: the texts' states, each step, and the pixels."""
    pipeline = painting.save(tmp_path / "sd", scheduler, **SCHEDULERS[scheduler])
    (tmp_path / "begun.yaml").write_text(BEGUN)
    found = painted(tmp_path)
    assert torch.equal(torch.stack(list(found["latents"])), reference(pipeline))
    for mine, theirs in zip(found["image"], reference(pipeline, output="pil"), strict=True):
        assert mine.size == (24, 16)
        assert numpy.array_equal(numpy.asarray(mine), numpy.asarray(theirs))


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDPMScheduler"])
def test_noise_of_the_steps_comes_from_the_seed(tmp_path, scheduler):
    """And is the same for a record alone and in a batch."""
    painting.save(tmp_path / "sd", scheduler)
    (tmp_path / "begun.yaml").write_text(BEGUN)
    with mg.open(graph(tmp_path), seed=3) as one, mg.open(graph(tmp_path), seed=4) as other:
        both = one.run(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2))["latents"]
        alone = one.run(prompt=PROMPTS[1], negative=OTHERS[1], noise=painting.noise(2)[1:])["latents"]
        assert (both[1] - alone).abs().max() <= 5e-5 * alone.abs().max()  # as processors differ in how they add up a batch
        assert not torch.allclose(
            both[1], other.run(prompt=PROMPTS[1], negative=OTHERS[1], noise=painting.noise(2)[1:])["latents"], atol=1e-2
        )


def test_the_unet_may_be_a_session(folder, monkeypatch, exports):
    """The loop stays, the UNet and the decoder are exported, each once, and the latents are those of torch."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(exports))
    on_torch, on_onnx = (painted(folder, backend=backend) for backend in ("torch", "onnx"))
    latents = [torch.stack(list(found["latents"])) for found in (on_torch, on_onnx)]
    assert (latents[0] - latents[1]).abs().max() <= 1e-4 * latents[0].abs().max()
    for one, other in zip(on_torch["image"], on_onnx["image"], strict=True):
        assert numpy.abs(numpy.asarray(one, int) - numpy.asarray(other, int)).max() <= 1
    with mg.open(graph(folder, steps=3), backend="onnx") as opened:  # another number of steps exports nothing anew
        kinds = {event.kind for event in opened.stream(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2))}
    assert "token" not in kinds


def test_the_loop_tells_its_steps_and_stops_between_them(folder):
    """As progress of its node; a run that is cancelled ends with the step."""
    with mg.open(graph(folder)) as opened:
        events = list(opened.stream(prompt="a cat", negative="", noise=painting.noise(1)))
        steps = [(event.done, event.total) for event in events if event.kind == "progress" and event.node == "denoise"]
        assert steps == [(done, 5) for done in range(1, 6)]
    with mg.open(graph(folder, steps=900)) as opened:
        threading.Timer(0.5, opened.cancel).start()
        with pytest.raises(mg.Cancelled):
            opened.run(prompt="a cat", negative="", noise=painting.noise(1))


def test_noise_is_drawn_by_the_seed_the_same_for_each_record(folder):
    """So a picture is the same alone and in any batch, and another one by another seed."""
    plain = mg.load("stable_diffusion", params={"checkpoint": folder / "sd", "steps": 3})
    with mg.open(plain, seed=7) as one, mg.open(plain, seed=8) as other:
        both = one.run(prompt=PROMPTS)["latents"]
        assert torch.allclose(both[1], one.run(prompt=PROMPTS[1])["latents"], atol=1e-5)
        assert not torch.allclose(both[1], other.run(prompt=PROMPTS[1])["latents"], atol=1e-2)


def test_without_guidance_the_unet_is_asked_once(folder):
    """`guidance: 1` has no port for what to be pushed from, and gives what the library gives."""
    text = BEGUN + "nodes.denoise.with.guidance: 1\nnodes.denoise.in.negative: null\n"
    text += "nodes.away: null\nnodes.others: null\ninputs.negative: null\n"
    (folder / "alone.yaml").write_text(text)
    asked = mg.load(folder / "alone.yaml", params={"checkpoint": folder / "sd", "steps": 4})
    with mg.open(asked) as opened:
        found = torch.stack(list(opened.run(prompt=PROMPTS, noise=painting.noise(2))["latents"]))
    pipeline = painting.pipeline()
    with torch.no_grad():
        wanted = pipeline(prompt=PROMPTS, latents=painting.noise(2), num_inference_steps=4, guidance_scale=1.0, output_type="latent").images
    assert torch.equal(found, wanted)


def test_older_names_of_attention_are_read(folder, tmp_path):
    """VAEs were once written with query, key, value and proj_attn."""
    painting.save(tmp_path / "sd")
    path = tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    named = {
        next((key.replace(f".{new}.", f".{was}.") for new, was in old.items() if f".{new}." in key), key): t for key, t in state.items()
    }
    assert set(named) != set(state)
    save_file(named, path)
    (tmp_path / "begun.yaml").write_text(BEGUN)
    for mine, theirs in zip(painted(tmp_path)["image"], painted(folder)["image"], strict=True):
        assert numpy.array_equal(numpy.asarray(mine), numpy.asarray(theirs))


def test_parameters_are_counted_to_the_unit(folder):
    """The decoder's by formula, the UNet's as diffusers counts them; those of the published sizes too."""
    pipeline = painting.pipeline()
    plan = mg.plan(graph(folder))
    decoder = (*pipeline.vae.decoder.parameters(), *pipeline.vae.post_quant_conv.parameters())
    assert plan.nodes["decode"].parameters.total == sum(one.numel() for one in decoder)
    assert plan.nodes["denoise"].parameters.total == sum(one.numel() for one in pipeline.unet.parameters())
    published = mg.plan(mg.load("stable_diffusion"), exact=True)
    assert published.nodes["denoise"].parameters.total == 859_520_964  # as published with the model
    assert published.nodes["decode"].parameters.total == 49_490_199  # of the VAE's 83,653,863, without its encoder


def changed(folder, tmp_path, file, **values):
    """The same checkpoint with other values in one of its configs; None takes a key out."""
    painting.save(tmp_path / "sd")
    path = tmp_path / "sd" / file
    path.write_text(json.dumps({key: value for key, value in {**json.loads(path.read_text()), **values}.items() if value is not ...}))
    (tmp_path / "begun.yaml").write_text(BEGUN)
    return graph(tmp_path)


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("unet/config.json", {"addition_embed_type": "text_time"}, "the UNet has addition_embed_type: 'text_time'"),
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}, "UNet2DConditionModel is what is served"),
        ("unet/config.json", {"cross_attention_dim": [20, 24]}, "gives all blocks the same states"),
        ("vae/config.json", {"_class_name": "VQModel"}, "AutoencoderKL is what is served"),
    ],
)
def test_models_that_want_more_are_refused_by_the_check(folder, tmp_path, file, values, said):
    with pytest.raises(mg.GraphError, match=said):
        mg.check(changed(folder, tmp_path, file, **values))


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("unet/config.json", {"swirl": 3}, r"UNet2DConditionModel has keys that diffusers .* does not know: swirl"),
        ("scheduler/scheduler_config.json", {"swirl": 3}, "has keys that DDIMScheduler does not know: swirl"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMSchedular"}, "no scheduler of diffusers. Did you mean 'DDIMScheduler'"),
        ("scheduler/scheduler_config.json", {"_class_name": "SchedulerMixin"}, "which is no scheduler of diffusers"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "steep"}, "cannot be made into a DDIMScheduler of 5 steps"),
        (
            "scheduler/scheduler_config.json",
            {"steps_offset": 500},
            "begins at the time 1300, and knows 0 to 999: take fewer steps",
        ),
    ],
)
def test_configs_that_nobody_knows_are_told_when_they_are_loaded(folder, tmp_path, file, values, said):
    with pytest.raises(SourceError, match=said), mg.open(changed(folder, tmp_path, file, **values)) as opened:
        opened.run(prompt="a cat", negative="", noise=painting.noise(1))


def test_what_a_scheduler_leaves_out_of_its_file_is_told(folder, tmp_path):
    """Keys that the file has kept of another class are no error; those of a class that the user has replaced need no word."""
    asked = {"prompt": "a cat", "negative": "", "noise": painting.noise(1)}
    values = {"skip_prk_steps": True, "variance_type": "fixed_small"}
    with mg.open(changed(folder, tmp_path, "scheduler/scheduler_config.json", **values)) as opened:
        told = opened.run(**asked).warnings
    found = "the config of the scheduler has skip_prk_steps, variance_type, which DDIMScheduler does not know and leaves out"
    assert [text for text in told if "scheduler" in text] == [f"denoise: {found}"]
    with mg.open(graph(folder)) as opened:
        assert not [text for text in opened.run(**asked).warnings if "scheduler" in text]


def test_sizes_go_with_the_grid_of_latents(folder):
    """A height between two rows is told, with the nearest that fits."""
    (folder / "odd.yaml").write_text(BEGUN.replace("4 8 12", "4 8 11") + "nodes.denoise.with.width: 23\n")
    with pytest.raises(mg.GraphError, match=r"denoise\.width is 23, wanted a multiple of 2\n.*write width: 24"):
        mg.check(mg.load(folder / "odd.yaml", params={"checkpoint": folder / "sd"}))


def test_latents_of_another_scale_do_not_fit(folder):
    """They would give a picture, of other colours."""
    (folder / "faded.yaml").write_text(BEGUN + "nodes.decode.with.scale: 0.5\n")
    with pytest.raises(mg.GraphError, match="scale"):
        mg.check(mg.load(folder / "faded.yaml", params={"checkpoint": folder / "sd"}))


def test_a_step_that_takes_no_eta_says_so(folder):
    (folder / "noisy.yaml").write_text(BEGUN + "nodes.denoise.with.eta: 0.5\n")
    params = {"checkpoint": folder / "sd", "steps": 2}
    with mg.open(mg.load(folder / "noisy.yaml", params=params)) as opened:  # DDIM takes it
        opened.run(prompt="a cat", negative="", noise=painting.noise(1))
    with pytest.raises(SourceError, match="names KarrasVeScheduler"):
        scheduler_of({"_class_name": "KarrasVeScheduler"}, steps=2)


def test_the_components_are_declared_without_diffusers():
    assert Denoise().parts()["unet"].outputs["noise"].tensor is not None
    assert Decode().parameters() > 0


def test_an_export_holds_the_unet_for_loops_of_others(folder, exports, tmp_path, monkeypatch, capsys):
    """Each part of a driven component in a folder of its own, with its ports and proof; its loop is told to be code."""
    import onnxruntime

    from modelgraft.cli import main

    monkeypatch.setenv("MODELGRAFT_CACHE", str(exports))
    params = ["--set", f"checkpoint={folder / 'sd'}", "--set", "steps=2"]
    assert main(["export", "stable_diffusion", *params, "--out", str(tmp_path / "out"), "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    (part,) = manifest["parts"]
    assert (part["node"], part["part"]) == ("denoise", "unet")
    assert part["parity"]["relative"] <= 1e-4
    assert "denoise" in manifest["not_exported"]
    session = onnxruntime.InferenceSession(tmp_path / "out" / part["folder"] / "model.onnx", providers=["CPUExecutionProvider"])
    given = {"sample": painting.noise(2), "time": torch.tensor([3.0, 3.0]), "states": torch.randn(2, 5, 20)}
    wanted = painting.pipeline().unet(given["sample"], 3, given["states"], return_dict=False)[0]
    names = [one.name for one in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (value.numpy() for value in given.values()), strict=True)))
    assert numpy.abs(found - wanted.detach().numpy()).max() <= 1e-4 * wanted.abs().max()
