"""Films out of noise: text-to-video as diffusers runs it, from a text and from its states, on torch and on ONNX Runtime."""

from __future__ import annotations

import json
import threading

import numpy
import pytest
import torch

import modelgraft as mg
from modelgraft.testing import conform
from modelgraft_plugins.diffusion.filming import DecodeFilm, DenoiseFilm, Film
from support import sounding

pytestmark = [
    pytest.mark.slow,  # it imports diffusers, and saves whole pipelines
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
PROMPTS, OTHERS = ["the red bird", "a cat"], ["", "bad"]
SIZE = {"frames": 3, "height": 16, "width": 24}
BEGUN = """modelgraft: 1
extends: diffusion/{name}
inputs.noise: "float[batch 4 3 8 12]"
nodes.denoise.in.latents: inputs.noise
"""
EMBEDS = "inputs.prompt_embeds: 'float[batch 7 20]'\ninputs.negative_prompt_embeds: 'float[batch 7 20]'\n"
CLOSE = 5e-5  # float32, elementwise, of the largest value: what a step loses by rounding, the next ones multiply


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("filming")
    sounding.save(home / "film", sounding.film(clip_sample=False))
    return begun(home)


def begun(home):
    (home / "begun.yaml").write_text(BEGUN.format(name="zeroscope"))
    (home / "embeds.yaml").write_text(BEGUN.format(name="zeroscope_embeds") + EMBEDS)
    return home


def graph(home, *, file="begun", steps=4, **more):
    return mg.load(home / f"{file}.yaml", params={"checkpoint": home / "film", "steps": steps, **SIZE, **more})


def noise(batch=2):
    return sounding.noise(batch, 4, 3, 8, 12)


def reference(pipeline, *, steps=4, output="latent", **given):
    given = given or {"prompt": PROMPTS, "negative_prompt": OTHERS}
    settings = {"num_frames": 3, "height": 16, "width": 24, "num_inference_steps": steps, "output_type": output}
    with torch.no_grad():
        return pipeline(latents=noise(), **settings, **given).frames


def filmed(home, *, backend="torch", **more):
    with mg.open(graph(home, **more), backend=backend) as opened:
        return opened.run(prompt=PROMPTS, negative=OTHERS, noise=noise())


def assert_near(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=CLOSE * wanted.abs().max().item())


def stacked(found):
    return torch.stack(list(found["latents"]))


SCHEDULERS = {
    "DDIMScheduler": {"steps_offset": 1, "clip_sample": False}, "PNDMScheduler": {"skip_prk_steps": True}, "EulerDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {}, "UniPCMultistepScheduler": {},
}  # fmt: skip


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_films_are_those_of_the_library(tmp_path, scheduler):
    """From the same noise: the latents of each frame, and its pixels."""
    pipeline = sounding.save(tmp_path / "film", sounding.film(scheduler, **SCHEDULERS[scheduler]))
    found = filmed(begun(tmp_path))
    assert_near(stacked(found), reference(pipeline))
    for mine, theirs in zip(found["video"], reference(pipeline, output="pil"), strict=True):
        assert mine.frames.shape == (3, 16, 24, 3)
        assert mine.rate_hz == 8
        wanted = numpy.stack([numpy.asarray(frame, int) for frame in theirs])
        assert numpy.abs(mine.frames.astype(int) - wanted).max() <= 1  # rounded, where a number lies between two


def test_states_of_others_take_the_place_of_the_text_encoder(folder):
    """Such as those of a projection, of any number of tokens."""
    towards, away = (sounding.noise(2, 7, 20, seed=seed) for seed in (8, 9))
    with mg.open(graph(folder, file="embeds")) as opened:
        found = stacked(opened.run(prompt_embeds=towards, negative_prompt_embeds=away, noise=noise()))
    wanted = reference(sounding.film(clip_sample=False), prompt_embeds=towards, negative_prompt_embeds=away)
    assert_near(found, wanted)
    assert (found - stacked(filmed(folder))).abs().max() > 1e-3


def test_a_batch_is_one_loop_and_gives_what_its_records_give(folder):
    """Under a seed, without noise that is given; another seed is another film."""
    plain = mg.load("diffusion/zeroscope", params={"checkpoint": folder / "film", "steps": 3, **SIZE})
    with mg.open(plain, seed=7) as one, mg.open(plain, seed=8) as other:
        events = list(one.stream(prompt=PROMPTS))
        steps = [(event.done, event.total) for event in events if event.kind == "progress" and event.node == "denoise"]
        assert steps == [(1, 3), (2, 3), (3, 3)]  # not of each record
        both, alone = stacked(one.run(prompt=PROMPTS)), [stacked(one.run(prompt=[text]))[0] for text in PROMPTS]
        assert_near(both, torch.stack(alone))
        assert torch.equal(both, stacked(one.run(prompt=PROMPTS)))
        assert (both - stacked(other.run(prompt=PROMPTS))).abs().max() > 1e-2


def test_a_run_that_is_cancelled_ends_with_the_step(folder):
    with mg.open(graph(folder, steps=900)) as opened:
        threading.Timer(0.5, opened.cancel).start()
        with pytest.raises(mg.Cancelled):
            opened.run(prompt="a cat", negative="", noise=noise(1))


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_diffusion.py::test_the_unet_may_be_a_session",
)
def test_parts_may_be_sessions(folder, monkeypatch, tmp_path):
    """UNet and decoder are exported, and the film is that of torch."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    on_torch, on_onnx = (filmed(folder, backend=backend) for backend in ("torch", "onnx"))
    one, other = stacked(on_torch), stacked(on_onnx)
    assert (one - other).abs().max() <= 1e-4 * one.abs().max()
    for mine, theirs in zip(on_torch["video"], on_onnx["video"], strict=True):
        assert numpy.abs(mine.frames.astype(int) - theirs.frames.astype(int)).max() <= 1
    with mg.open(graph(folder), backend="onnx") as opened:
        assert {opened.plan.nodes[name].backend for name in ("states", "denoise", "decode")} == {"onnx"}


def test_parameters_are_counted_to_the_unit(folder):
    """Without building anything; those of the published sizes as well."""
    pipeline = sounding.film()
    plan = mg.plan(graph(folder))
    assert plan.nodes["denoise"].parameters.total == sum(one.numel() for one in pipeline.unet.parameters())
    published = mg.plan(mg.load("diffusion/zeroscope"))
    told = {name: published.nodes[name].parameters.total for name in ("denoise", "states", "decode")}
    assert told == {"denoise": 1_411_233_860, "states": 340_387_840, "decode": 49_490_199}  # of the VAE its decoder alone


def test_a_film_can_be_written(folder, tmp_path):
    film = filmed(folder)["video"][0]
    film.save(tmp_path / "film.gif", "video", lambda text: None)
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF8")


def test_parts_conform():
    conform(DecodeFilm, {"vae": sounding.FILM_VAE, "shrink": 2, "scale": 0.31})
    conform(Film, {"rate_hz": 5})


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "UNet3DConditionModel is what is served"),
        ("unet/config.json", {"time_cond_proj_dim": 5}, "the UNet has time_cond_proj_dim: 5"),
        ("unet/config.json", {"cross_attention_dim": 28}, "28"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_check(tmp_path, file, values, said):
    sounding.save(tmp_path / "film", sounding.film())
    path = tmp_path / "film" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(mg.GraphError, match=said):
        mg.check(graph(begun(tmp_path)))


def test_states_of_another_width_are_found_before_anything_is_loaded(folder):
    """Such as a projection that was trained for another generator."""
    (folder / "wide.yaml").write_text(BEGUN.format(name="zeroscope_embeds") + EMBEDS.replace("7 20]", "7 768]", 1))
    with pytest.raises(mg.GraphError, match="768"):
        mg.check(graph(folder, file="wide"))


def test_sizes_go_with_the_grid_of_latents(folder):
    with pytest.raises(mg.GraphError, match=r"denoise\.width is 21, wanted a multiple of 2"):
        mg.check(mg.load("diffusion/zeroscope", params={"checkpoint": folder / "film", **SIZE, "width": 21}))


def test_the_components_are_declared_without_diffusers():
    assert DenoiseFilm().parts()["unet"].outputs["noise"].tensor is not None
    assert DecodeFilm().parameters() > 0
