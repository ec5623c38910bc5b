"""What opening a model takes at most: from files of every kind, on both backends, in every precision, the first time and later.

    python -m benchmarks.memory [--minutes 6] [--quick] [--json]

Each opening is a process that has run a tiny model of the same kind before, so that imports are not counted; then its peak is set back,
it opens the model and writes two tokens. Goal: a peak of at most 1.1 times the weights in the precision that they run in.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.startup import with_downloads
from benchmarks.tables import Asked, Row, Table, Timer, told

LAYERS = 12
SHARDS = 4
MB = 1_000_000
BYTES: Mapping[str, float] = {"float32": 4, "bfloat16": 2, "int8": 1, "w8": 1 + 4 / 32, "w4": 0.5 + 4 / 32}  # a scale for 32 numbers
GGUF = "GGUF, 4-bit blocks"
HALF = "safetensors, bfloat16"
MAKE = """
import json, shutil, sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from benchmarks import checkpoints
home, layers, shards = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
plain = checkpoints.make("llama", home, layers=layers)
checkpoints.make("tiny", home, layers=1)
tensors = load_file(plain / "model.safetensors")
names = sorted(tensors)
def written(kind, stem, ending, save, count):
    place = home / kind
    shutil.copytree(plain, place, ignore=shutil.ignore_patterns("model.safetensors"))
    parts = [names[part::count] for part in range(count)]
    files = [f"{stem}-{part + 1:05}-of-{count:05}.{ending}" if count > 1 else f"{stem}.{ending}" for part in range(count)]
    for file, part in zip(files, parts):
        save({name: tensors[name].clone() for name in part}, place / file)
    if count > 1:
        places = {name: file for file, part in zip(files, parts) for name in part}
        (place / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
as_tensors = lambda found, path: save_file(found, path, metadata={"format": "pt"})
written("safetensors-sharded", "model", "safetensors", as_tensors, shards)
written("safetensors-half", "model", "safetensors", lambda found, path: as_tensors({n: t.bfloat16() for n, t in found.items()}, path), 1)
written("pickle", "pytorch_model", "bin", torch.save, 1)
written("pickle-sharded", "pytorch_model", "bin", torch.save, shards)
print(sum(tensor.numel() for tensor in tensors.values()))
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """Files of a kind, where they are, how many numbers they hold, and how they are opened."""

    kind: str
    source: str
    numbers: int
    backend: str
    precision: str

    def weights_mb(self, held: float | None) -> float:
        """Of all numbers in the precision. held: bytes of a number as the graph holds them, where its blocks say more than the precision.

        A table of words that stays in float32 beside a graph counts as if it were in blocks too: that is not allowed for.
        """
        return self.numbers * (held or BYTES[self.precision]) / MB


def sources(asked: Asked, cache: Path) -> dict[str, tuple[str, int]]:
    """By kind a source and how many numbers it holds: one model in files of five kinds, and the published GGUF."""
    layers = 1 if asked.is_quick else LAYERS
    words = [sys.executable, "-c", MAKE, str(asked.folder), str(layers), str(SHARDS)]
    done = subprocess.run(words, cwd=measuring.ROOT, env=measuring.environment(1, cache), check=True, capture_output=True, text=True)
    numbers = int(done.stdout.split()[-1])
    kinds = {
        "safetensors": f"llama-{layers}", HALF: "safetensors-half", "safetensors, four files": "safetensors-sharded", "pickle": "pickle",
        "pickle, four files": "pickle-sharded",
    }  # fmt: skip
    found = {kind: (str(asked.folder / place), numbers) for kind, place in kinds.items()}
    if not asked.is_quick:
        found[GGUF] = _published(cache)
    return found


def _published(cache: Path) -> tuple[str, int]:
    """SmolLM2-135M; its numbers are those of the checkpoint that is read from it, four bytes each."""
    from benchmarks.peers import weights

    model = weights.original(cache)
    shutil.rmtree(cache / "converted", ignore_errors=True)  # so that a first opening is one
    numbers = 134_515_008  # of its config: 49152 x 576 words, 30 layers of 3,540,096, and a last norm
    return model.source, numbers


def openings(found: Mapping[str, tuple[str, int]]) -> Iterator[Opening]:
    """Float32 of every kind on both backends; the other precisions of the first kind, of halves and of the GGUF."""
    for number, (kind, (source, numbers)) in enumerate(found.items()):
        is_told = number == 0 or kind in (HALF, GGUF)
        for precision in ("float32", "bfloat16") if is_told else ("float32",):
            yield Opening(kind, source, numbers, "torch", precision)
        for precision in ("float32", "int8", "w8", "w4") if is_told else ("float32",):
            yield Opening(kind, source, numbers, "onnx", precision)


def opened(one: Opening, tiny: Path, cache: Path) -> dict[str, float]:
    """MB of one opening in a process of its own. Raises RuntimeError as `measuring.child`."""
    words = ["--worker", one.source, one.backend, one.precision, "--tiny", str(tiny)]
    found: dict[str, float] = measuring.child("memory", *words, threads=1, cache=cache)
    return found


def work(source: str, backend: str, precision: str, tiny: Path) -> dict[str, float]:
    """Open a tiny model, set the peak back, open the model and write two tokens."""
    import resource

    import modelgraft as mg
    from benchmarks import onnx_sides

    path = Path(tiny).parent / "tongue.yaml"
    path.write_text(onnx_sides.TONGUE, encoding="utf-8")

    def run(place: str) -> object:
        graph = mg.load(path, params={"checkpoint": place, "max_new_tokens": 2})
        numbers = {"dtype": precision} if backend == "torch" else {"precision": precision}
        pipeline = mg.open(graph, backend=backend, threads=1, cache_bytes=0, **numbers)
        pipeline.run(prompt="a text")
        return pipeline

    kept = run(str(tiny))
    del kept
    base = measuring.lowered_peak()
    lowest = measuring.status_mb("RssAnon")
    peaks = measuring.with_peaks(lambda: run(source))
    return {
        "peak": peaks["peak"] - base,
        "anonymous": peaks["anonymous"] - lowest,
        "child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "held": bytes_of_a_number() if backend == "onnx" and precision in ("w8", "w4") else 0.0,
    }


def bytes_of_a_number() -> float:
    """Of the largest graph of the cache, its blocks with their scales, and with what stands at the middle of those that a file holds."""
    import onnx

    from modelgraft_plugins.onnx import store

    data = max(store.exports_root().glob("*/*/*.onnx.data"), key=lambda path: path.stat().st_size)
    graph = onnx.load(data.with_suffix(""), load_external_data=False).graph
    blocks = [{fact.name: fact.i for fact in node.attribute} for node in graph.node if node.op_type == "MatMulNBits"]
    beside = {name for node in graph.node if node.op_type == "MatMulNBits" for name in node.input[1:]}
    beside |= {name for node in graph.node if node.name.endswith(".shifts") for name in node.input}
    plain = sum(math.prod(held.dims) for held in graph.initializer if held.name not in beside)
    numbers: int = plain + sum(facts["K"] * facts["N"] for facts in blocks)
    return data.stat().st_size / numbers


def row(one: Opening, start: str, found: Mapping[str, float]) -> Row:
    """An opening; its ratio is to the weights in the precision."""
    mib, weights = 2**20 / MB, one.weights_mb(found["held"])
    return {
        "kind": one.kind, "backend": one.backend, "precision": one.precision, "start": start, "weights": round(weights),
        "peak": round(found["peak"] * mib), "ratio": found["peak"] * mib / weights, "anonymous": round(found["anonymous"] * mib),
        "own": found["anonymous"] * mib / weights, "child": round(found["child"] * mib) or None,
    }  # fmt: skip


def rows(asked: Asked) -> list[Row]:
    """Every opening twice in a cache of its own: the first finds nothing, the second what it kept."""
    cache = with_downloads(asked.folder / "kept")
    every = list(openings(sources(asked, cache)))
    timer, found, tiny = Timer(asked.seconds), list[Row](), asked.folder / "tiny-1"
    for one in every:
        if asked.is_quick and (one.precision != "float32" or "four" in one.kind):
            continue
        own = asked.folder / "one"
        shutil.rmtree(own, ignore_errors=True)
        with_downloads(own)
        for start in ("first", "second"):
            line: Row = {"kind": one.kind, "backend": one.backend, "precision": one.precision, "start": start}
            if timer.is_over() and not asked.is_quick:
                found.append({**line, "why": "the minutes of the table were over"})
                continue
            try:
                found.append(row(one, start, opened(one, tiny, own)))
            except RuntimeError as error:
                found.append({**line, "why": str(error).strip().splitlines()[-1][-200:]})
        told(f"  {one.kind}, {one.backend} {one.precision}: {', '.join(tables.shown(line.get('ratio')) or 'none' for line in found[-2:])}")
    return found


TABLE = Table(
    name="memory",
    title="Memory of opening a model",
    says="A LLaMA of 125 million numbers at random in files of five kinds, and SmolLM2-135M as published. The peak of a process "
    "from before it opens the model to after its second token, imports left out, as MB and as a part of the weights (all numbers in the "
    "precision that is asked for, blocks with their scales as the graph holds them; goal: 1.1). Mapped pages of files count, as the "
    "system counts them; anonymous ones belong to no file. A first opening finds nothing that was made of the weights. A child is the "
    "largest process that it started, imports included.",
    columns={
        "kind": "files", "backend": "backend", "precision": "precision", "start": "opening", "weights": "weights, MB", "peak": "peak, MB",
        "ratio": "of the weights", "anonymous": "anonymous, MB", "own": "of the weights", "child": "a child, MB",
    },
    rows=rows,
    minutes=8.0,
)  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """The table, or one opening of it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--worker", nargs=3)
    parser.add_argument("--tiny", type=Path)
    options, rest = parser.parse_known_args(words)
    if options.worker:
        print(json.dumps(work(*options.worker, options.tiny)))
    else:
        tables.alone(TABLE, rest)


if __name__ == "__main__":
    main()
