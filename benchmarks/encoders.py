"""What a graph costs around an encoder: its forward pass through a graph, beside the wrapped model's own call.

    python -m benchmarks.encoders [--minutes 4] [--quick] [--json]

Prepared tensors go in, so that nothing but the encoder is in the way; weights are random, of the published sizes, and the same.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.tables import Asked, Row, Table, Timer

CLOSE = 1e-4  # of the largest number: what float32 may differ by
ROUNDS, LEAST = 40, 8
STARTING_S = 12  # of a process: imports, the checkpoint, loading it twice
QUICK_LAYERS = 2


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder: its class of transformers with its config, the node of a graph, what goes in, and what comes out there.

    node   `use` and more of the node; `${source}` is the checkpoint
    given  the input: its name, its type and its size without the batch;  number  of token ids, 0 for floating numbers
    """

    kind: str
    config: str
    settings: dict[str, Any]
    node: str
    given: tuple[str, str, tuple[int, ...]]
    theirs: str
    ours: str
    number: int = 0


EYE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224}
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
PIXELS = ("pixels", "float[batch 3 224 224]", (3, 224, 224))
ENCODERS = {
    "CLIP ViT-B/32": Encoder(
        "CLIPVisionModel", "CLIPVisionConfig", {**EYE, "patch_size": 32}, 'use: vision/encoder, from: "${source}"',
        PIXELS, "last_hidden_state", "tokens",
    ),
    "ViT-B/16": Encoder(
        "ViTModel", "ViTConfig", {**EYE, "patch_size": 16}, 'use: vision/encoder, from: "${source}"', PIXELS, "last_hidden_state", "tokens"
    ),
    "CLIP's text": Encoder(
        "CLIPTextModel", "CLIPTextConfig", TEXT, 'use: text/encoder, from: "${source}"', ("ids", "int64[batch 77]", (77,)),
        "last_hidden_state", "tokens", number=49_000,
    ),
    "wav2vec 2.0 base": Encoder(
        "Wav2Vec2Model", "Wav2Vec2Config", {"layerdrop": 0.0}, 'use: audio/encoder, from: "${source}"',
        ("samples", "float[batch 32000]", (32_000,)), "last_hidden_state", "tokens",
    ),
}  # fmt: skip
BATCHES, THREADS = (1, 8), (1, 2)
QUICK = ("CLIP ViT-B/32",)


def write_checkpoint(encoder: Encoder, folder: Path, *, is_quick: bool) -> None:
    """Random weights of the published size; with `is_quick` few layers."""
    import transformers

    settings = {**encoder.settings, **({"num_hidden_layers": QUICK_LAYERS} if is_quick else {})}
    getattr(transformers, encoder.kind)(getattr(transformers, encoder.config)(**settings)).save_pretrained(folder)


def sides_of(encoder: Encoder, folder: Path, batch: int) -> dict[str, Callable[[], Any]]:
    """The model's own call, and the graph's, on the same numbers."""
    import torch
    import transformers

    import modelgraft as mg

    name, type_, size = encoder.given
    draw = torch.Generator().manual_seed(0)
    value = (
        torch.randint(1, encoder.number, (batch, *size), generator=draw) if encoder.number else torch.randn(batch, *size, generator=draw)
    )
    model = getattr(transformers, encoder.kind).from_pretrained(folder / "model").eval()
    node = encoder.node.replace("${source}", "./model")
    text = f'modelgraft: 1\ninputs: {{x: "{type_}"}}\nnodes:\n  encoder: {{{node}, in: {{{name}: inputs.x}}}}\n'
    (folder / "graph.yaml").write_text(f"{text}outputs: {{x: encoder.{encoder.ours}}}\n", encoding="utf-8")
    pipeline = mg.open(folder / "graph.yaml", cache_bytes=0)

    def theirs() -> Any:
        with torch.inference_mode():
            return getattr(model(value), encoder.theirs)

    return {"theirs": theirs, "ours": lambda: pipeline.run(x=value)["x"]}


def work(name: str, folder: Path, seconds: float, rounds: int, batch: int) -> dict[str, Any]:
    """Both sides in this process: their samples, or how their answers differ."""
    sides = sides_of(ENCODERS[name], folder, batch)
    one, other = sides["theirs"](), sides["ours"]()
    if one.shape != other.shape or float((one - other).abs().max()) > CLOSE * float(one.abs().max()):
        return {"why": "the answers differ"}
    alternatives = {name: lambda run=run: measuring.timed(run) for name, run in sides.items()}
    return {"samples": measuring.interleave(alternatives, rounds, warm=3, seconds=seconds, least=min(rounds, LEAST))}


def rows(asked: Asked) -> list[Row]:
    """A row for each encoder, batch and number of threads."""
    names = QUICK if asked.is_quick else tuple(ENCODERS)
    cells = [(name, batch, threads) for name in names for batch in BATCHES for threads in THREADS if not asked.is_quick or batch == 1]
    timer, found = Timer(asked.seconds), list[Row]()
    for number, (name, batch, threads) in enumerate(cells):
        folder = asked.folder / name.replace("/", "-")
        if not folder.is_dir():
            for before in asked.folder.glob("*/model"):
                shutil.rmtree(before)
            write_checkpoint(ENCODERS[name], folder / "model", is_quick=asked.is_quick)
        share = max(0.0, timer.left() / (len(cells) - number) - STARTING_S)
        line: Row = {"encoder": name, "batch": batch, "threads": threads}
        found.append({**line, **measured(name, folder, share, 2 if asked.is_quick else ROUNDS, batch, threads)})
        tables.told(f"  {name}, {batch}, {threads} threads: {tables.shown(found[-1].get('wall')) or found[-1]['why']}")
    return found


def measured(name: str, folder: Path, seconds: float, rounds: int, batch: int, threads: int) -> Row:
    """The figures of a cell, or why there are none."""
    words = ("--worker", name, str(folder), f"{seconds:.1f}", str(rounds), str(batch))
    try:
        found = measuring.child("encoders", *words, threads=threads, cache=folder / "cache")
    except RuntimeError as error:
        return {"why": str(error).splitlines()[-1][:300]}
    if "why" in found:
        return {"why": found["why"]}
    return measuring.side_by_side(found["samples"]["ours"], found["samples"]["theirs"])


TABLE = Table(
    name="encoders",
    title="Encoders: the forward pass through a graph, beside the model's own call",
    says="Torch, float32, random weights of the published sizes, the same prepared tensors on both sides. Ratios are ours to theirs: the "
    "goal is at most 1.03.",
    columns={
        "encoder": "encoder", "batch": "batch", "threads": "threads", "theirs_ms": "model, ms", "ours_ms": "graph, ms",
        "wall": "wall ratio", "cpu": "CPU ratio", "rounds": "rounds",
    },
    rows=rows,
    minutes=6.0,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _, _, named, where, seconds_given, most, size = sys.argv
        print(json.dumps(work(named, Path(where), float(seconds_given), int(most), int(size))))
    else:
        tables.alone(TABLE)
