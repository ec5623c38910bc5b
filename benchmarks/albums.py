"""How fast a folder of pictures is embedded: decoding, preparing and encoding side by side, and in which memory.

    python -m benchmarks.albums [--minutes 6] [--quick] [--json]

Both sides have the same random CLIP of the size of ViT-B/32 on torch with two threads, and read the same JPEG files in batches of
eight. The plain loop opens them with Pillow, prepares them with transformers' image processor and calls its model.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.measuring import Sample
from benchmarks.tables import Asked, Row, Table, Timer

SIZES = ((800, 600), (1600, 1200), (3200, 2400))  # of the photographs: of a page, of a screen, of a telephone
COUNT, QUICK_COUNT = 1_000, 16
DRAWN = 40  # different pictures; the others are links to them, which cost as much to decode
SAMPLED = 120  # pictures of a sample of time: ratios are taken within rounds of these
BATCH = 8
THREADS = 2
CLOSE = 1e-4  # what float32 may differ by
STARTING_S = 15  # of a process: imports, the checkpoint, loading it twice
GRAPH = """
modelgraft: 1
name: eye
inputs: {image: image}
nodes:
  pixels: {use: vision/preprocess, from: ./clip, in: {image: inputs.image}}
  vision: {use: vision/encoder, from: "./clip#vision_model", in: {pixels: pixels}}
  vector: {use: projector/linear, from: "./clip#visual_projection", with: {over: vector}, in: {x: vision.pooled}}
outputs: {vector: vector}
"""


def write_pictures(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """JPEG files that look like photographs: smooth, with noise, each another one up to DRAWN."""
    import numpy
    from PIL import Image

    folder.mkdir()
    drawn = []
    for number in range(min(count, DRAWN)):
        noise = numpy.random.default_rng(number)
        coarse = Image.fromarray(noise.integers(0, 256, (12, 16, 3), dtype=numpy.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = noise.integers(-12, 13, (size[1], size[0], 1))
        path = folder / f"{number:04}.jpg"
        Image.fromarray((numpy.asarray(coarse) + grain).clip(0, 255).astype(numpy.uint8)).save(path, quality=90)
        drawn.append(path)
    for number in range(len(drawn), count):
        (folder / f"{number:04}.jpg").hardlink_to(drawn[number % DRAWN])
    return sorted(folder.glob("*.jpg"))


def write_model(folder: Path) -> None:
    """The vision tower of a random CLIP of the size of ViT-B/32, and its image processor."""
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = transformers.CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=32, projection_dim=512
    )
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)


def plain(folder: Path) -> Callable[[list[Path]], Iterator[Any]]:
    """A loop as one writes it: gives a batch of vectors after the other."""
    import torch
    import transformers
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = transformers.CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    prepare = CLIPImageProcessorPil.from_pretrained(folder)

    def run(files: list[Path]) -> Iterator[Any]:
        for start in range(0, len(files), BATCH):
            pictures = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
            with torch.inference_mode():
                yield model(**prepare(pictures, return_tensors="pt")).image_embeds

    return run


def mapped(folder: Path, *, ahead: int | None) -> Callable[[list[Path]], Iterator[Any]]:
    """The graph over a list of records."""
    import modelgraft as mg

    (folder.parent / "eye.yaml").write_text(GRAPH, encoding="utf-8")
    pipeline = mg.open(folder.parent / "eye.yaml", cache_bytes=0)

    def run(files: list[Path]) -> Iterator[Any]:
        for result in pipeline.map([{"image": file} for file in files], batch_size=BATCH, ahead=ahead):
            yield result["vector"]

    return run


def drain(found: Iterator[Any]) -> None:
    """Take every result, and hold none."""
    for _ in found:
        pass


def work(folder: Path, seconds: float, rounds: int, count: int) -> dict[str, Any]:
    """All sides in this process, over the same files: samples of time in turns, then memory over all files."""
    import torch

    torch.set_num_threads(THREADS)
    files = sorted((folder / "pictures").glob("*.jpg"))
    sides = {"plain": plain(folder / "clip"), "in turn": mapped(folder / "clip", ahead=0), "ahead": mapped(folder / "clip", ahead=None)}
    few = files[: 2 * BATCH]
    wanted = torch.cat(list(sides["plain"](few)))
    for name in ("in turn", "ahead"):
        if (off := float((torch.cat(list(sides[name](few))) - wanted).abs().max())) > CLOSE:
            return {"why": f"the vectors of {name} differ by {off:.1e}"}
    some = files[: min(SAMPLED, count)]
    alternatives = {name: lambda run=run: measuring.timed(lambda: drain(run(some))) for name, run in sides.items()}
    samples = measuring.interleave(alternatives, rounds, seconds=0.6 * seconds, least=min(rounds, 3))
    tenth = files[: max(BATCH, count // 10)]
    memory: dict[str, Sample] = {}
    for name in ("ahead", "plain"):
        start = measuring.lowered_peak()
        drain(sides[name](tenth))
        early = measuring.peak_mb()
        took = measuring.timed(lambda run=sides[name]: drain(run(files)))
        memory[name] = {**took, "start": start, "early": early, "late": measuring.peak_mb()}
    return {"samples": samples, "memory": memory, "pictures": len(some)}


def rows(asked: Asked) -> list[Row]:
    """A row for each size of pictures."""
    sizes, count = (SIZES[:1], QUICK_COUNT) if asked.is_quick else (SIZES, COUNT)
    write_model(asked.folder / "clip")
    timer, found = Timer(asked.seconds), list[Row]()
    for number, size in enumerate(sizes):
        folder = asked.folder / f"{size[0]}"
        folder.mkdir()
        shutil.copytree(asked.folder / "clip", folder / "clip", copy_function=os.link)
        write_pictures(folder / "pictures", size, count)
        share = max(0.0, timer.left() / (len(sizes) - number) - STARTING_S)
        line: Row = {"picture": f"{size[0]} x {size[1]}", "pictures": count}
        found.append({**line, **measured(folder, share, 1 if asked.is_quick else 15, count)})
        tables.told(f"  {line['picture']}: {tables.shown(found[-1].get('gain')) or found[-1]['why']}")
    return found


def measured(folder: Path, seconds: float, rounds: int, count: int) -> Row:
    """The figures of one size, or why there are none."""
    try:
        words = ("--worker", str(folder), f"{seconds:.1f}", str(rounds), str(count))
        found = measuring.child("albums", *words, threads=THREADS, cache=folder / "cache")
    except RuntimeError as error:
        return {"why": str(error).splitlines()[-1][:300]}
    if "why" in found:
        return {"why": found["why"]}
    sides, memory, some = found["samples"], found["memory"], found["pictures"]
    return {
        "plain_ms": measuring.spread_of(sides["plain"], "wall", times=1000 / some),
        "ahead_ms": measuring.spread_of(sides["ahead"], "wall", times=1000 / some),
        "gain": measuring.compared(sides["plain"], sides["ahead"], "wall"),
        "in_turn": measuring.compared(sides["plain"], sides["in turn"], "wall"),
        "cpu": measuring.compared(sides["ahead"], sides["plain"], "cpu"),
        "whole": memory["plain"]["wall"] / memory["ahead"]["wall"],
        "more_mb": memory["ahead"]["late"] - memory["ahead"]["early"],
        "above_mb": memory["ahead"]["late"] - memory["ahead"]["start"],
        "plain_above_mb": memory["plain"]["late"] - memory["plain"]["start"],
        "rounds": len(sides["ahead"]),
    }


TABLE = Table(
    name="albums",
    title="Pictures of a folder, embedded: decoding, preparing and encoding side by side",
    says=f"Two threads, torch, float32, a random CLIP of the size of ViT-B/32, batches of {BATCH}. Times are of one picture, over "
    f"{SAMPLED} of them in each round; `gain` is how much faster the graph is than a plain loop of Pillow and transformers (goal: 1.3), "
    f"`in turn` the same without batches side by side. `gain, all` is that over all pictures, once. Memory: the peak above what was held "
    f"before, and how much it grew between a tenth of the pictures and all of them (goal: nothing).",
    columns={
        "picture": "picture", "pictures": "pictures", "plain_ms": "plain loop, ms", "ahead_ms": "graph, ms", "gain": "gain",
        "in_turn": "in turn", "cpu": "CPU ratio", "whole": "gain, all", "more_mb": "MB grown", "above_mb": "MB above start",
        "plain_above_mb": "plain, MB above", "rounds": "rounds",
    },
    rows=rows,
    minutes=6.0,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _, _, where, seconds_given, most, number = sys.argv
        print(json.dumps(work(Path(where), float(seconds_given), int(most), int(number))))
    else:
        tables.alone(TABLE)
