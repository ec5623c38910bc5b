"""Parts of a generator that are swapped: schedulers, what it begins with, states from elsewhere; and what does not go together."""

from __future__ import annotations

import inspect
import json

import numpy
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft_plugins.diffusion.previews import previews
from modelgraft_plugins.diffusion.spaces import BETAS
from support import painting, painting_kinds

pytestmark = [
    pytest.mark.slow,  # it imports diffusers, and saves whole pipelines
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

PROMPTS, OTHERS = ["the red bird", "a cat"], ["", "bad"]
NOISE = 'inputs.noise: "float[batch 4 8 12]"\nnodes.denoise.in.latents: inputs.noise\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with tiny pipelines: `sd`, and `sd2`, which answers with a velocity."""
    folder = tmp_path_factory.mktemp("swaps")
    painting.save(folder / "sd")
    painting_kinds.saved(painting_kinds.v_prediction(), folder / "sd2")
    return folder


def graph(home, text, *, name="sd", **params):
    path = home / f"{abs(hash(text))}.yaml"
    path.write_text(text)
    given = {"checkpoint": home / name, "steps": 5, **params}
    return mg.load(path, params={key: value for key, value in given.items() if value is not None})


def latents_of(found):
    return torch.stack(list(found["latents"]))


def swapped(**config):
    """The graph with a scheduler as a node of its own."""
    node = json.dumps({"use": "diffusion/scheduler", **config})
    return f"modelgraft: 1\nextends: stable_diffusion\n{NOISE}nodes.steps: {node}\nnodes.denoise.in.schedule: steps\n"


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_a_scheduler_is_a_node_that_can_be_another(home, name):
    """By the name of its class, with what it knows of the config that lies beside the model: what the library does in `from_pretrained`."""
    import diffusers

    pipeline = painting.pipeline()
    pipeline.scheduler = getattr(diffusers, name).from_pretrained(home / "sd" / "scheduler")
    with torch.no_grad():
        wanted = pipeline(
            prompt=PROMPTS, negative_prompt=OTHERS, latents=painting.noise(2), num_inference_steps=5, output_type="latent"
        ).images
    text = swapped(**{"from": "./sd", "with": {"name": name}})
    with mg.open(graph(home, text)) as opened:
        found = latents_of(opened.run(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2)))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"prediction_type": "v_prediction"}, r"prediction.*v_prediction"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, r"prediction.*flow"),
        ({"beta_start": 0.5}, r"betas"),
    ],
)
def test_a_scheduler_that_the_model_was_not_trained_for_is_told_before_anything_is_loaded(home, config, said):
    """On the wire, as a mismatch of spaces; and where it is written at the loop itself."""
    whole = {**painting.BETAS, "_class_name": "DDIMScheduler", **config}
    with pytest.raises(mg.GraphError, match=rf"(?s)space-mismatch.*{said}"):
        mg.check(graph(home, swapped(**{"with": {"config": whole}})))
    text = f"modelgraft: 1\nextends: stable_diffusion\nnodes.denoise.with.scheduler: {json.dumps(whole)}\n"
    with pytest.raises(mg.GraphError, match=rf"(?s)space-mismatch.*{said}"):
        mg.check(graph(home, text))


def test_how_noise_is_added_where_a_config_leaves_it_out_is_what_diffusers_takes(home):
    """So that a class that is put in place of one of flow matching, whose config has no word of it, is told as well."""
    from diffusers import schedulers

    keys = ("beta_schedule", "beta_start", "beta_end")
    for name, betas in BETAS.items():
        told = inspect.signature(getattr(schedulers, name).__init__).parameters
        assert tuple(told[key].default for key in keys) == betas
    taken_over = {"from": "preset:stable-diffusion-3-medium", "with": {"name": "DPMSolverMultistepScheduler"}}
    with pytest.raises(mg.GraphError, match=r"(?s)space-mismatch.*betas is .*0\.0001.*wanted .*scaled_linear"):
        mg.check(graph(home, swapped(**taken_over)))


@pytest.mark.parametrize(
    ("name", "said"), [("DDIMSchedule", r"Did you mean 'DDIMScheduler'\?; write another `name`"), ("KarrasVeScheduler", "sigma_hat")]
)
def test_a_name_that_is_no_scheduler_is_told_where_it_is_written(home, name, said):
    text = swapped(**{"from": "./sd", "with": {"name": name}})
    with (
        pytest.raises(mg.ModelgraftError, match=rf"with `name: {name}`, the config of the scheduler .*{said}"),
        mg.open(graph(home, text)) as opened,
    ):
        opened.run(prompt=PROMPTS, negative=OTHERS, noise=painting.noise(2))


def test_a_scheduler_of_another_generation_is_told(home):
    """That of a Stable Diffusion 2 before the UNet of the first."""
    text = swapped(**{"from": "./sd2"})
    with pytest.raises(mg.GraphError, match=r"(?s)space-mismatch.*prediction.*v_prediction"):
        mg.check(graph(home, text))


def test_a_vae_of_another_scale_is_told(home):
    """Its pictures would have other colours."""
    painting.save(home / "other")
    path = home / "other" / "vae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "scaling_factor": 0.13025}))
    text = 'modelgraft: 1\nextends: stable_diffusion\nnodes.decode.from: "./other#vae"\n'
    with pytest.raises(mg.GraphError, match=r"(?s)space-mismatch.*scale.*0\.13025"):
        mg.check(graph(home, text))


def test_states_of_another_width_are_told():
    """Those of a projection for Stable Diffusion 1.5 before a Stable Diffusion 2: 768 against 1024, without a weight of either."""
    published = {"checkpoint": "preset:stable-diffusion-2", "width": 768}
    with pytest.raises(mg.GraphError, match=r"(?s)1024.*768|768.*1024"):
        mg.check(mg.load("diffusion/embeds", params=published))
    mg.check(mg.load("diffusion/embeds", params={**published, "width": 1024}))


def test_states_from_elsewhere_draw_what_their_text_draws(home):
    """`prompt_embeds` and `negative_prompt_embeds`, as the library takes them."""
    pipeline = painting.pipeline()
    states, away = torch.randn(2, 77, 20, generator=torch.Generator().manual_seed(3)), torch.randn(2, 77, 20)
    with torch.no_grad():
        wanted = pipeline(
            prompt_embeds=states, negative_prompt_embeds=away, latents=painting.noise(2), num_inference_steps=5, output_type="latent"
        ).images
    with mg.open(graph(home, f"modelgraft: 1\nextends: diffusion/embeds\n{NOISE}", width=20)) as opened:
        found = latents_of(opened.run(prompt_embeds=states, negative_prompt_embeds=away, noise=painting.noise(2)))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("strength", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_a_picture_to_begin_with(home, tmp_path, strength, scheduler):
    """Its latents, hidden under the same noise: what the library's pipeline gives from them."""
    import diffusers

    settings = {"skip_prk_steps": True, "steps_offset": 1} if scheduler == "PNDMScheduler" else {}
    plain = painting.save(tmp_path / "sd", scheduler, **settings)
    plain.unet.register_to_config(sample_size=8)  # that pipeline compares it with a number
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**plain.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray(numpy.random.default_rng(2).integers(0, 256, (16, 24, 3), dtype=numpy.uint8))
    with torch.no_grad():
        start = pipeline.vae.encode(pipeline.image_processor.preprocess(image)).latent_dist.mode() * pipeline.vae.config.scaling_factor
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(9))
        wanted = pipeline(
            prompt="a cat", negative_prompt="bad", image=start, strength=strength, num_inference_steps=5, output_type="latent",
            generator=torch.Generator().manual_seed(9),
        ).images  # fmt: skip
    text = f"modelgraft: 1\nextends: diffusion/image_to_image\n{NOISE}"
    params = {"strength": strength, "height": 16, "width": 24}
    with mg.open(graph(tmp_path, text, **params)) as opened:
        found = opened.run(prompt="a cat", negative="bad", image=image, noise=noise)["latents"]
    assert (torch.as_tensor(found).reshape(wanted.shape) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_too_little_strength_leaves_no_step(home):
    """And says which would."""
    text = "modelgraft: 1\nextends: diffusion/image_to_image\n"
    image = Image.new("RGB", (30, 20))
    with (
        mg.open(graph(home, text, strength=0.1, height=16, width=24)) as opened,
        pytest.raises(mg.ModelgraftError, match=r"strength of 0\.1 leaves none of 5 steps.*0\.2 or more"),
    ):
        opened.run(prompt="a cat", image=image)


def test_previews_are_told_where_they_are_asked_for(home):
    """A small picture of each record after every second step, and none without being asked."""
    text = "modelgraft: 1\nextends: stable_diffusion\nnodes.denoise.with.preview: 2\n"
    with mg.open(graph(home, text)) as opened:
        events = [event for event in opened.stream(prompt=PROMPTS) if event.kind == "preview"]
    assert [(event.done, event.total, event.record) for event in events] == [(2, 5, 0), (2, 5, 1), (4, 5, 0), (4, 5, 1)]
    assert all(event.image.size == (12, 8) for event in events)
    with mg.open(graph(home, "modelgraft: 1\nextends: stable_diffusion\n")) as opened:
        assert not [event for event in opened.stream(prompt=PROMPTS) if event.kind == "preview"]


def test_previews_show_what_latents_differ_in():
    """Two halves of latents that differ are two colours, whether the channels are known or not."""
    latents = torch.zeros(1, 4, 6, 8)
    latents[:, :, :, 4:] = torch.tensor([1.0, 2.0, -1.0, 0.5]).view(4, 1, 1)
    for given, scale in ((latents, 0.18215), (latents, 0.5), (latents[:, :2], 0.5), (latents.repeat(1, 4, 1, 1), 1.5)):
        (image,) = previews(given, scale=scale)
        pixels = numpy.asarray(image, int)
        assert numpy.abs(pixels[:, :4] - pixels[:, 4:]).max() > 50
        assert len({tuple(pixel) for pixel in pixels.reshape(-1, 3)}) == 2


def test_a_loop_stops_at_the_step_at_which_it_is_told_to(home):
    """No step is taken after it."""
    seen = []

    def watch(opened):
        for event in opened.stream(prompt="a cat"):
            if event.kind == "progress" and event.node == "denoise":
                seen.append(event.done)
            if seen == [1, 2, 3]:
                opened.cancel()

    with mg.open(graph(home, "modelgraft: 1\nextends: stable_diffusion\n", steps=500)) as opened, pytest.raises(mg.Cancelled):
        watch(opened)
    assert 3 <= len(seen) < 500


def test_a_seed_of_the_loop_goes_before_that_of_the_run(home):
    """The same picture under any seed of the run."""
    text = "modelgraft: 1\nextends: stable_diffusion\nnodes.denoise.with.seed: 11\n"
    with mg.open(graph(home, text), seed=1) as one, mg.open(graph(home, text), seed=2) as other:
        assert torch.equal(torch.as_tensor(one.run(prompt="a cat")["latents"]), torch.as_tensor(other.run(prompt="a cat")["latents"]))


WHOLES = {
    "sd": (painting.pipeline, {"guidance_scale": 7.5}),
    "sdxl": (painting_kinds.sdxl, {"guidance_scale": 7.5, "original_size": (16, 24), "target_size": (16, 24), "height": 16, "width": 24}),
    "sd3": (painting_kinds.sd3, {"guidance_scale": 7.0, "height": 16, "width": 24}),
}
WHOLE = """modelgraft: 1
params: {checkpoint: ""}
inputs: {prompt: text, noise: "float[batch 4 8 12]"}
nodes:
  draw:
    use: diffusion/text-to-image
    from: "${checkpoint}"
    with: {steps: 5, height: 16, width: 24}
    in: {prompt: inputs.prompt, latents: inputs.noise}
outputs: {image: draw.image, latents: draw.latents}
"""


@pytest.mark.parametrize("kind", WHOLES)
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_whole_folder_is_one_node(tmp_path, monkeypatch, kind, backend):
    """It gives what the library's pipeline gives of a prompt alone, where nothing is to be avoided."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    made, told = WHOLES[kind]
    pipeline = painting_kinds.saved(made(), tmp_path / "model")
    with torch.no_grad():
        wanted = pipeline(prompt=PROMPTS, latents=painting.noise(2), num_inference_steps=5, output_type="latent", **told).images
        pictures = pipeline(prompt=PROMPTS, latents=painting.noise(2), num_inference_steps=5, **told).images
    (tmp_path / "whole.yaml").write_text(WHOLE)
    loaded = mg.load(tmp_path / "whole.yaml", params={"checkpoint": tmp_path / "model"})
    with mg.open(loaded, backend=backend) as opened:
        found = opened.run(prompt=PROMPTS, noise=painting.noise(2))
    tolerance = 1e-5 if backend == "torch" else 1e-4
    assert (latents_of(found) - wanted).abs().max() <= tolerance * wanted.abs().max()
    for mine, theirs in zip(found["image"], pictures, strict=True):
        assert numpy.abs(numpy.asarray(mine, int) - numpy.asarray(theirs, int)).max() <= 1
    held = [
        pipeline.components[name]
        for name in ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer")
        if pipeline.components.get(name)
    ]
    halves = [pipeline.vae.decoder, *([pipeline.vae.post_quant_conv] if pipeline.vae.post_quant_conv is not None else [])]
    total = sum(one.numel() for module in (*held, *halves) for one in module.parameters())
    assert mg.plan(loaded, exact=True).nodes["draw"].parameters.total == mg.plan(loaded).nodes["draw"].parameters.total == total


def test_a_whole_folder_draws_over_a_picture_as_its_parts_do(home):
    """The same graph of separate nodes gives the same latents."""
    image = Image.fromarray(numpy.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=numpy.uint8))
    apart = f"modelgraft: 1\nextends: diffusion/image_to_image\n{NOISE}"
    whole = """modelgraft: 1
params: {checkpoint: "", steps: 5}
inputs: {prompt: text, negative: text, image: image, noise: "float[batch 4 8 12]"}
nodes:
  draw:
    use: diffusion/image-to-image
    from: "${checkpoint}"
    with: {steps: "${steps}", height: 16, width: 24, strength: 0.6}
    in: {image: inputs.image, prompt: inputs.prompt, negative: inputs.negative, latents: inputs.noise}
outputs: {latents: draw.latents, image: draw.image}
"""
    given = {"prompt": "a cat", "negative": "bad", "image": image, "noise": painting.noise(1)}
    with mg.open(graph(home, apart, strength=0.6, height=16, width=24)) as one, mg.open(graph(home, whole)) as other:
        expected, found = one.run(**given), other.run(**given)
    assert torch.equal(torch.as_tensor(expected["latents"]), torch.as_tensor(found["latents"]))
    assert numpy.array_equal(numpy.asarray(expected["image"]), numpy.asarray(found["image"]))


def test_a_whole_folder_takes_states_in_place_of_a_text(home):
    """Then no tokenizer is opened; and with neither or both, the check says so."""
    text = """modelgraft: 1
params: {checkpoint: "", steps: 5}
inputs: {states: "float[batch 77 20]", away: "float[batch 77 20]", noise: "float[batch 4 8 12]"}
nodes:
  draw:
    use: diffusion/text-to-image
    from: "${checkpoint}"
    with: {steps: "${steps}"}
    in: {prompt_embeds: inputs.states, negative_prompt_embeds: inputs.away, latents: inputs.noise}
outputs: {latents: draw.latents}
"""
    states, away = torch.randn(2, 77, 20), torch.randn(2, 77, 20)
    pipeline = painting.pipeline()
    with torch.no_grad():
        wanted = pipeline(
            prompt_embeds=states, negative_prompt_embeds=away, latents=painting.noise(2), num_inference_steps=5, output_type="latent"
        ).images
    with mg.open(graph(home, text)) as opened:
        found = latents_of(opened.run(states=states, away=away, noise=painting.noise(2)))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    with pytest.raises(mg.GraphError, match="given neither `prompt` nor `prompt_embeds`"):
        mg.check(graph(home, text.replace("prompt_embeds: inputs.states, ", "").replace('states: "float[batch 77 20]", ', "")))


def test_a_decoder_in_which_float16_overflows_stays_in_float32(tmp_path):
    """Where the config of the VAE says so: there are numbers within that float16 has not, and none in the picture."""
    pipeline = painting_kinds.sdxl()
    with torch.no_grad():
        for tensor in pipeline.vae.decoder.conv_in.parameters():
            tensor.mul_(1e5)
    pipeline.vae.register_to_config(force_upcast=True)
    pipeline.save_pretrained(tmp_path / "model")
    text = """modelgraft: 1
params: {checkpoint: ""}
inputs: {latents: "float[batch 4 8 12]"}
nodes: {decode: {use: diffusion/decode, from: "${checkpoint}#vae", in: {latents: inputs.latents}}}
outputs: {pixels: decode}
"""
    latents = painting.noise(2).half()
    with torch.no_grad():
        wanted = pipeline.vae.decode(latents.float() / pipeline.vae.config.scaling_factor).sample
    with mg.open(graph(tmp_path, text, name="model", steps=None), dtype="float16") as opened:
        found = torch.stack([torch.as_tensor(one) for one in opened.run(latents=latents)["pixels"]]).float()
    assert found.isfinite().all()
    assert (found - wanted).abs().max() <= 2e-3 * wanted.abs().max()  # what is handed on is rounded to float16
