"""What is saved by what was kept: results of nodes, in memory and on the disk, and the beginnings of prompts.

    python -m benchmarks.reuse [--minutes 1] [--quick] [--json]

An encoder of the size of ViT-B sees the same picture again, with its results kept or not. A language model 768 wide reads prompts
that begin alike, or each in its own way; what it answers must be the same either way.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, measuring, onnx_sides, tables
from benchmarks.measuring import Sample
from benchmarks.tables import Asked, Row, Table, row_of

LAYERS = 6
ROUNDS = 15
BEGINNING = 448  # tokens that prompts have in common
WHOLE = 512


def results(asked: Asked) -> list[Row]:
    """The same picture once more: computed again, found in memory, found on the disk, and a picture that is new to a cache."""
    import torch

    import modelgraft as mg

    place = checkpoints.make("vit", asked.folder, layers=1 if asked.is_quick else LAYERS)
    path = asked.folder / "eye.yaml"
    wires, inputs = "pixels: inputs.pixels", 'pixels: "float[batch 3 224 224]"'
    path.write_text(onnx_sides.EYE.format(name="eye", inputs=inputs, use="vision/encoder", part="", wires=wires), encoding="utf-8")
    graph = mg.load(path, params={"checkpoint": str(place)})
    same, fresh = onnx_sides.encoder_inputs("vit")["pixels"], itertools.count(1)
    pipelines = {
        "nothing is kept": mg.open(graph, cache_bytes=0),
        "kept in memory": mg.open(graph),
        "kept on the disk": mg.open(graph, cache_bytes=0, cache_dir=asked.folder / "results"),
    }
    given = {name: pipeline.run(pixels=same)["tokens"] for name, pipeline in pipelines.items()}
    assert all(torch.equal(one, given["nothing is kept"]) for one in given.values())
    other = mg.open(graph)

    def once(pipeline: Any) -> Callable[[], Sample]:
        return lambda: measuring.timed(lambda: pipeline.run(pixels=same))

    def new() -> Sample:
        pixels = same + next(fresh)  # is made before the clock starts
        return measuring.timed(lambda: other.run(pixels=pixels))

    sides = {name: once(pipeline) for name, pipeline in pipelines.items()}
    found = measuring.interleave({**sides, "kept, and the picture is new": new}, asked.rounds(ROUNDS), seconds=asked.share(0.5))
    return [row_of("results of an encoder", name, samples, found["nothing is kept"]) for name, samples in found.items()]


def prefixes(asked: Asked) -> list[Row]:
    """The first token of a prompt of 512 tokens: of which no token, or the first 448, were read before."""
    import modelgraft as mg

    place = checkpoints.make("llama", asked.folder, layers=1 if asked.is_quick else LAYERS)
    path = asked.folder / "tongue.yaml"
    path.write_text(onnx_sides.TONGUE, encoding="utf-8")
    graph = mg.load(path, params={"checkpoint": str(place), "max_new_tokens": 1})

    def alike() -> Iterator[str]:
        beginning = checkpoints.text_of(BEGINNING, 25)
        return (beginning + checkpoints.text_of(WHOLE - BEGINNING + 1, number % 25) for number in itertools.count())

    def unlike() -> Iterator[str]:
        return (checkpoints.text_of(WHOLE, number % 25) for number in itertools.count())

    kept, anew, third = mg.open(graph, cache_bytes=0), mg.open(graph, cache_bytes=0), mg.open(graph, cache_bytes=0)
    first, second = itertools.islice(alike(), 2)
    kept.run(prompt=first)
    assert kept.run(prompt=second)["text"] == third.run(prompt=second)["text"], "a kept beginning changes no answer"

    def reading(pipeline: Any, prompts: Iterator[str]) -> Callable[[], Sample]:
        return lambda: measuring.timed(lambda: pipeline.run(prompt=next(prompts)))

    sides = {"every prompt begins anew": reading(anew, unlike()), f"{BEGINNING} of {WHOLE} tokens are as before": reading(kept, alike())}
    found = measuring.interleave(sides, asked.rounds(ROUNDS), seconds=asked.share(0.5))
    return [row_of("beginnings of prompts", name, samples, found["every prompt begins anew"]) for name, samples in found.items()]


def rows(asked: Asked) -> list[Row]:
    """Results, then beginnings."""
    return [*results(asked), *prefixes(asked)]


TABLE = Table(
    name="reuse",
    title="What is kept: results of nodes, beginnings of prompts",
    says="Milliseconds of a run, one thread, six layers 768 wide, random weights; the ratio is to the run that has nothing to use again, "
    "within rounds. The encoder gives 600 kB a picture; of a new picture a cache pays for looking and for keeping.",
    columns={"what": "what", "way": "way", "wall_ms": "wall ms", "cpu_ms": "CPU ms", "ratio": "ratio"},
    rows=rows,
    minutes=0.6,
)

if __name__ == "__main__":
    tables.alone(TABLE)
