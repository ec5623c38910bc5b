"""The denoising loop beside that of diffusers, on the same random parts, on torch and on onnx.

    python benchmarks/painting.py [--rounds 9] [--kinds unet,flow] [--threads 1] [--steps 8] [--prompts 1] [--quick] [--json]

`unet`: a Stable Diffusion whose UNet is 160 to 480 wide, at 256 x 256 pixels; `flow`: a Stable Diffusion 3 of six blocks of 384.
The library's pipeline, the graph on torch and the graph on onnx draw the same prompts from the same noise, in turn within one process, text
encoders and decoder included; pictures must be equal within two values of a colour before anything is measured. Ratios are
ours to theirs, round by round; the goal on torch is 1.02. See README.md here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file: its folder, whose onnx.py would stand before the package onnx, goes
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import family_checkpoints, measuring
from benchmarks.measuring import Sample, Spread

GOAL = 1.02
SIDE = 32  # latents of a side
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ASKED = ("a red car near the house", "two cats on the grass")
Draw = Callable[[], list[Any]]
GRAPHS = {"unet": "stable_diffusion", "flow": "diffusion/stable_diffusion_3"}


def vae(*, quick: bool, **more: Any) -> Any:
    """A quarter of the published widths."""
    import diffusers

    sizes = (8, 8, 8, 8) if quick else (32, 64, 128, 128)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return diffusers.AutoencoderKL(block_out_channels=sizes, layers_per_block=1, latent_channels=4, norm_num_groups=8, **kinds, **more)


def clip(words: Any, width: int, *, projected: bool = False) -> Any:
    """A text tower of few layers."""
    import transformers

    config = transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_attention_heads=8, num_hidden_layers=3, vocab_size=len(words),
        eos_token_id=words.eos_token_id, bos_token_id=words.bos_token_id, projection_dim=width,
    )  # fmt: skip
    return transformers.CLIPTextModelWithProjection(config) if projected else transformers.CLIPTextModel(config)


def unet(*, quick: bool) -> Any:
    """A Stable Diffusion of half the published widths or less."""
    import diffusers

    words = family_checkpoints._clip_words()
    model = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64) if quick else (160, 320, 480), layers_per_block=1, sample_size=SIDE, cross_attention_dim=256,
        down_block_types=("CrossAttnDownBlock2D",) * (1 if quick else 2) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (1 if quick else 2), attention_head_dim=8,
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        vae=vae(quick=quick), text_encoder=clip(words, 256), tokenizer=words, unet=model, feature_extractor=None,
        requires_safety_checker=False,
        scheduler=diffusers.DDIMScheduler(**BETAS, steps_offset=1, clip_sample=False, set_alpha_to_one=False), safety_checker=None,
    )  # fmt: skip


def flow(*, quick: bool) -> Any:
    """A Stable Diffusion 3 without its T5, as it may be used."""
    import diffusers

    words, heads = family_checkpoints._clip_words(), 2 if quick else 6
    model = diffusers.SD3Transformer2DModel(
        sample_size=SIDE, patch_size=2, in_channels=4, out_channels=4, num_layers=2 if quick else 6, attention_head_dim=64,
        num_attention_heads=heads, joint_attention_dim=512, caption_projection_dim=64 * heads, pooled_projection_dim=512,
        pos_embed_max_size=SIDE,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        vae=vae(quick=quick, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(words, 256, projected=True),
        text_encoder_2=clip(words, 256, projected=True), text_encoder_3=None, tokenizer=words, tokenizer_2=words, tokenizer_3=None,
        transformer=model, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


KINDS: dict[str, Callable[..., Any]] = {"unet": unet, "flow": flow}


def sides(kind: str, folder: Path, *, steps: int, prompts: int) -> dict[str, Draw]:
    """What draws the same pictures: the library, and the graph on either backend. Nothing that it computes is kept."""
    import diffusers
    import torch

    import modelgraft as mg

    lacking = {"unet": {"safety_checker": None}, "flow": {"text_encoder_3": None, "tokenizer_3": None}}
    whole = diffusers.DiffusionPipeline.from_pretrained(folder / "model", **lacking[kind])
    whole.set_progress_bar_config(disable=True)
    noise = torch.randn(prompts, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    asked = [ASKED[number % len(ASKED)] for number in range(prompts)]
    text = f'modelgraft: 1\nextends: {GRAPHS[kind]}\ninputs.noise: "float[batch 4 {SIDE} {SIDE}]"\nnodes.denoise.in.latents: inputs.noise\n'
    (folder / "begun.yaml").write_text(f"{text}nodes.denoise.with.guidance: 7.0\n")
    graph = mg.load(folder / "begun.yaml", params={"checkpoint": str(folder / "model"), "steps": steps})

    def theirs() -> list[Any]:
        with torch.no_grad():
            return list(whole(asked, negative_prompt=[""] * prompts, latents=noise, num_inference_steps=steps, guidance_scale=7.0).images)

    def ours(backend: str) -> Draw:
        pipeline = mg.open(graph, backend=backend, cache_bytes=0, offline=True)
        return lambda: list(pipeline.run(prompt=asked, negative=[""] * prompts, noise=noise)["image"])

    return {"theirs": theirs, "torch": ours("torch"), "onnx": ours("onnx")}


def compare(draws: dict[str, Draw]) -> int:
    """The largest difference of a colour to the library's pictures; the first run of each, which loads what is loaded late."""
    import numpy

    found = {name: [numpy.asarray(one, int) for one in draw()] for name, draw in draws.items()}
    worst = max(numpy.abs(one - other).max() for name in found for one, other in zip(found[name], found["theirs"], strict=True))
    if worst > 2:
        raise SystemExit(f"the pictures differ by {worst} of 255")
    return int(worst)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The row of one kind, in this process."""
    import torch

    folder = Path(options.folder)
    torch.manual_seed(3)
    made = KINDS[options.kind](quick=options.quick)
    made.save_pretrained(folder / "model")
    draws = sides(options.kind, folder, steps=options.steps, prompts=options.prompts)
    worst = compare(draws)

    def sampled(draw: Draw) -> Callable[[], Sample]:
        return lambda: measuring.timed(draw)

    samples = measuring.interleave({name: sampled(draw) for name, draw in draws.items()}, options.rounds)
    seconds = {name: [one["wall"] for one in found] for name, found in samples.items()}
    return {"kind": options.kind, "worst": worst, "load": measuring.load(), "seconds": seconds, "samples": samples}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    cells = [
        (
            row["kind"], *(str(Spread.of(row["seconds"][name])) for name in ("theirs", "torch", "onnx")),
            str(measuring.ratio(row["samples"]["torch"], row["samples"]["theirs"], "wall")), f"<= {GOAL}",
            str(measuring.ratio(row["samples"]["onnx"], row["samples"]["theirs"], "wall")), str(row["worst"]), f"{row['load']:.1f}",
        )
        for row in rows
    ]  # fmt: skip
    measuring.print_table(("kind", "theirs s", "torch s", "onnx s", "torch", "goal", "onnx", "of 255", "load"), cells)
    print("ratios are ours to theirs, round by round: median (lowest tenth - highest tenth); `of 255`: the largest difference of a colour")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--kinds", default="unet,flow")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="small parts and two rounds: whether it works, not how fast it is")
    parser.add_argument("--json", action="store_true")
    for hidden in ("--kind", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 9)
    if options.kind:
        print(json.dumps(measure(options)))
        return
    before, rows = measuring.surroundings(), []
    for kind in options.kinds.split(","):
        with tempfile.TemporaryDirectory(prefix="modelgraft-bench-") as folder:
            words = ["--kind", kind, "--folder", folder, "--rounds", str(options.rounds), "--steps", str(options.steps)]
            words += ["--prompts", str(options.prompts), *(["--quick"] * options.quick)]
            rows.append(measuring.child("painting", *words, threads=options.threads, cache=Path(folder) / "cache"))
    if options.json:
        print(json.dumps({"surroundings": before, "rows": rows}, indent=1))
    else:
        print(f"{before}, {options.threads} threads, {options.steps} steps, {options.prompts} prompts")
        show(rows)


if __name__ == "__main__":
    main()
