"""A reply with two pictures and a sound, and a painter with its critic, beside the bare calls of the libraries that they are made of.

    python -m benchmarks.replies [--minutes 6] [--quick] [--json]

`reply`: a list of two texts asks for two pictures, drawn in one loop, and a third for a sound; the other side calls diffusers' pipelines
one after the other. `critic`: four pictures of one text in one loop, of which CLIP keeps one; the other side is diffusers' pipeline with
four pictures, and the two towers of transformers. Weights are random and the same, so is the noise; what comes out must be equal before
anything is timed.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import family_checkpoints, measuring, painting, tables
from benchmarks.tables import Asked, Row, Table, Timer

CASES = ("reply", "critic")
TEXTS = ("a red car near the house", "two cats on the grass")
HEARD = "a dog barks"
SIDE, TAKES, STEPS = 32, 4, 6
ROWS_OF_SOUND, SECONDS = 32, 2.048  # 64 ms each: steps of 256 samples at 16 kHz, in fours
NEAR = 2  # of 255 values of a colour: batches of another size add up in another order
CLOSE = 1e-3  # of the largest sample
ROUNDS, LEAST, STARTING_S = 20, 4, 25
BETAS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
Draw = Callable[[], Any]

BEGUN = """modelgraft: 1
extends: {graph}
inputs.noise: "{noise}"
nodes.denoise.in.latents: inputs.noise
nodes.denoise.with.guidance: 7.0
"""
REPLY = """modelgraft: 1
inputs: {pictures: "list[text]", sound: text, noise: "float[batch 4 NN NN]", hiss: "float[batch 8 RR 16]"}
nodes:
  asked:    {use: router/each, in: {x: inputs.pictures}}
  draw:     {use: "graph:./draw.yaml", in: {prompt: asked, noise: inputs.noise}}
  sound:    {use: "graph:./sound.yaml", in: {prompt: inputs.sound, noise: inputs.hiss}}
  pictures: {use: router/gather, in: {x: draw.image}}
outputs: {pictures: pictures, sound: sound.audio}
"""
CRITIC = "modelgraft: 1\nextends: critics/draw\nnodes.denoise.with.guidance: 7.0\n"


def sound(*, quick: bool) -> Any:
    """An AudioLDM of a quarter of the published widths."""
    import diffusers
    import transformers

    words = family_checkpoints._clip_words()
    text = transformers.ClapTextConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_attention_heads=4, num_hidden_layers=2, projection_dim=64,
        max_position_embeddings=96,
    )  # fmt: skip
    sizes = (32, 64) if quick else (64, 128, 192)
    model = diffusers.UNet2DConditionModel(
        sample_size=ROWS_OF_SOUND, in_channels=8, out_channels=8, block_out_channels=sizes, layers_per_block=1, attention_head_dim=8,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (len(sizes) - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (len(sizes) - 1) + ("UpBlock2D",), cross_attention_dim=sizes,
        class_embed_type="simple_projection", class_embeddings_concat=True, projection_class_embeddings_input_dim=64,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(32, 64, 64), latent_channels=8, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    vocoder = transformers.SpeechT5HifiGanConfig(
        model_in_dim=64, upsample_initial_channel=128, sampling_rate=16_000, normalize_before=False
    )
    return diffusers.AudioLDMPipeline(
        vae=vae, text_encoder=transformers.ClapTextModelWithProjection(text), tokenizer=words, unet=model,
        scheduler=diffusers.DDIMScheduler(**BETAS, steps_offset=1, clip_sample=False), vocoder=transformers.SpeechT5HifiGan(vocoder),
    )  # fmt: skip


def write_checkpoints(folder: Path, *, is_quick: bool) -> None:
    """A painter, a maker of sounds and a critic, of random weights."""
    import torch
    import transformers

    torch.manual_seed(3)
    painting.unet(quick=is_quick).save_pretrained(folder / "painter")
    sound(quick=is_quick).save_pretrained(folder / "sounds")
    words = family_checkpoints._clip_words()
    layers = 2 if is_quick else 6
    tower = {"num_hidden_layers": layers, "num_attention_heads": 8}
    text = {**tower, "hidden_size": 256, "intermediate_size": 1024, "vocab_size": len(words), "eos_token_id": words.eos_token_id}
    eye = {**tower, "hidden_size": 512, "intermediate_size": 2048, "patch_size": 16}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=eye))
    model.save_pretrained(folder / "critic")
    transformers.CLIPProcessor(family_checkpoints._clip_pictures(), words).save_pretrained(folder / "critic")


def noise(*shape: int) -> Any:
    """The same numbers on both sides."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def library(name: str, folder: Path) -> Any:
    """A pipeline of diffusers."""
    import diffusers

    found = diffusers.DiffusionPipeline.from_pretrained(folder / name, **({"safety_checker": None} if name == "painter" else {}))
    found.set_progress_bar_config(disable=True)
    return found


def replying(folder: Path) -> dict[str, Draw]:
    """Two pictures and a sound: the graph, and bare calls one after the other."""
    import torch

    import modelgraft as mg

    begun, hiss = noise(1, 4, SIDE, SIDE), noise(1, 8, ROWS_OF_SOUND, 16)
    painter, sounds = library("painter", folder), library("sounds", folder)
    (folder / "draw.yaml").write_text(BEGUN.format(graph="stable_diffusion", noise=f"float[batch 4 {SIDE} {SIDE}]"), encoding="utf-8")
    (folder / "sound.yaml").write_text(
        BEGUN.format(graph="diffusion/audioldm", noise=f"float[batch 8 {ROWS_OF_SOUND} 16]"), encoding="utf-8"
    )
    text = REPLY.replace("NN", str(SIDE)).replace("RR", str(ROWS_OF_SOUND))
    for name, whose in (("draw", "painter"), ("sound", "sounds")):
        more = f", seconds: {SECONDS}" if name == "sound" else ""
        text = text.replace(f'"graph:./{name}.yaml", ', f'"graph:./{name}.yaml", with: {{checkpoint: ./{whose}, steps: {STEPS}{more}}}, ')
    (folder / "reply.yaml").write_text(text, encoding="utf-8")
    pipeline = mg.open(folder / "reply.yaml", cache_bytes=0)

    def theirs() -> Any:
        settings = {"num_inference_steps": STEPS, "guidance_scale": 7.0}
        with torch.no_grad():
            pictures = [painter(text, latents=begun, **settings).images[0] for text in TEXTS]
            return pictures, sounds(HEARD, latents=hiss, audio_length_in_s=SECONDS, **settings).audios[0]

    def ours() -> Any:
        found = pipeline.run(pictures=[list(TEXTS)], sound=HEARD, noise=begun, hiss=hiss)
        return found["pictures"][0], found["sound"][0].samples[0]

    return {"theirs": theirs, "ours": ours}


def judging(folder: Path) -> dict[str, Draw]:
    """Four pictures of which CLIP keeps one: the graph, and the libraries' calls."""
    import torch
    import transformers

    import modelgraft as mg

    painter = library("painter", folder)
    critic = transformers.CLIPModel.from_pretrained(folder / "critic").eval()
    processor = transformers.CLIPProcessor.from_pretrained(folder / "critic")
    (folder / "judged.yaml").write_text(CRITIC, encoding="utf-8")
    params = {"checkpoint": str(folder / "painter"), "critic": str(folder / "critic"), "takes": TAKES, "steps": STEPS}
    pipeline = mg.open(folder / "judged.yaml", params=params, cache_bytes=0)
    begun = torch.stack(list(pipeline.run(prompt=TEXTS[0], outputs=["noise"])["noise"]))

    def theirs() -> Any:
        settings = {"num_inference_steps": STEPS, "guidance_scale": 7.0}
        with torch.no_grad():
            drawn = painter(TEXTS[0], num_images_per_prompt=TAKES, latents=begun, **settings).images
            scores = critic(**processor(text=[TEXTS[0]], images=drawn, return_tensors="pt", padding=True)).logits_per_text[0]
        return [drawn[int(scores.argmax())]], None

    return {"theirs": theirs, "ours": lambda: ([pipeline.run(prompt=TEXTS[0])["image"]], None)}


SIDES: dict[str, Callable[[Path], dict[str, Draw]]] = {"reply": replying, "critic": judging}


def apart(one: Any, other: Any) -> str:
    """How two answers differ, "" where they do not."""
    import numpy

    colours = [abs(numpy.asarray(a, float) - numpy.asarray(b, float)).max() for a, b in zip(one[0], other[0], strict=True)]
    if max(colours) > NEAR:
        return f"the pictures differ by {max(colours):.0f} of 255"
    if one[1] is None:
        return ""
    size = min(len(one[1]), len(other[1]))
    differs = float(abs(numpy.asarray(one[1][:size]) - numpy.asarray(other[1][:size])).max() / abs(numpy.asarray(one[1])).max())
    return f"the sounds differ by {differs:.1e}" if differs > CLOSE else ""


def work(name: str, folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Both sides in this process: their samples, or how their answers differ."""
    sides = SIDES[name](folder)
    if why := apart(sides["theirs"](), sides["ours"]()):
        return {"why": why}
    alternatives = {name: lambda run=run: measuring.timed(run) for name, run in sides.items()}
    return {"samples": measuring.interleave(alternatives, rounds, warm=1, seconds=seconds, least=min(rounds, LEAST))}


def rows(asked: Asked) -> list[Row]:
    """A row for each case."""
    folder, timer, found = asked.folder / "replies", Timer(asked.seconds), list[Row]()
    shutil.rmtree(folder, ignore_errors=True)
    write_checkpoints(folder, is_quick=asked.is_quick)
    for number, name in enumerate(CASES):
        share = max(0.0, timer.left() / (len(CASES) - number) - STARTING_S)
        found.append({"case": name, **measured(name, folder, share, 2 if asked.is_quick else ROUNDS)})
        tables.told(f"  {name}: {tables.shown(found[-1].get('wall')) or found[-1]['why']}")
    return found


def measured(name: str, folder: Path, seconds: float, rounds: int) -> Row:
    """The figures of a case, or why there are none."""
    words = ("--worker", name, str(folder), f"{seconds:.1f}", str(rounds))
    try:
        found = measuring.child("replies", *words, threads=1, cache=folder / "cache")
    except RuntimeError as error:
        return {"why": str(error).splitlines()[-1][:300]}
    if "why" in found:
        return {"why": found["why"]}
    return measuring.side_by_side(found["samples"]["ours"], found["samples"]["theirs"])


TABLE = Table(
    name="replies",
    title="Replies with media: a graph, beside bare calls of the libraries",
    says="Torch, float32, one thread, random weights, the same noise. `reply`: two pictures in one loop and a sound, beside three calls of "
    "diffusers; goal at most 1.05. `critic`: four pictures in one loop and CLIP, beside diffusers and transformers.",
    columns={
        "case": "case",
        "theirs_ms": "libraries, ms",
        "ours_ms": "graph, ms",
        "wall": "wall ratio",
        "cpu": "CPU ratio",
        "rounds": "rounds",
    },
    rows=rows,
    minutes=5.0,
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _, _, named, where, seconds_given, most = sys.argv
        print(json.dumps(work(named, Path(where), float(seconds_given), int(most))))
    else:
        tables.alone(TABLE)
