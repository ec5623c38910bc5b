"""What a training step costs through the graph beside a loop that is written by hand, and what kept features save.

    python -m benchmarks.training [--minutes 1] [--quick] [--json]

Both loops call the same modules on the same batch with the same optimiser, clipped alike; their losses must be the same. Kept features are
those of an encoder of the size of ViT-B before a layer that learns; a step with them reads them from the disk. A head on vectors reads each
batch from JSON lines, beside one that has it in memory. Memory is the most that a process held
which read its data and trained for an epoch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, measuring, tables
from benchmarks.measuring import Sample
from benchmarks.tables import Asked, Row, Table, row_of

LAYERS = 6
ROUNDS = 25
BATCH, RECORDS = 16, 64
VECTORS, VECTORS_BATCH = {"seen": 1280, "read": 384}, 512  # of grafted/look
SIZES, QUICK_SIZES = (1_000, 100_000), (100, 1_000)  # records of an epoch
FLAT = """
modelgraft: 1
name: flat
inputs: {x: "float[batch 64]", y: "float[batch 3]"}
nodes: {hand: {use: projector/linear, with: {over: vector, out_features: 3}, in: {x: inputs.x}}}
outputs: {hand: hand}
losses: {apart: {use: loss/alignment, with: {over: vector}, in: {x: hand, wanted: inputs.y}}}
training: {data: data.jsonl, batch: 512, epochs: 1}
"""
EPOCH = """
import sys
import modelgraft as mg
from benchmarks.measuring import peak_mb
mg.train(sys.argv[1], out=sys.argv[2], data=sys.argv[3], device="cpu")
print(peak_mb())
"""
LAYERED = """
modelgraft: 1
name: layers
inputs: {x: "float[batch tokens 64]", y: "float[batch tokens 32]"}
nodes:
  eye:  {use: projector/mlp, with: {out_features: 512, hidden_features: 1024}, in: {x: inputs.x}, frozen: true}
  hand: {use: projector/mlp, with: {out_features: 32, hidden_features: 512}, in: {x: eye}}
outputs: {hand: hand}
losses: {apart: {use: loss/alignment, in: {x: hand, wanted: inputs.y}}}
training: {data: data.jsonl, batch: 16, steps: 100000, learning_rate: 0.0001}
"""
SEEN = """
modelgraft: 1
name: seen
params: {checkpoint: null}
inputs: {image: image, y: "float[batch 32]"}
nodes:
  pixels: {use: vision/preprocess, from: preset:vit-ti-16, in: {image: inputs.image}}
  eye:    {use: vision/encoder, from: "${checkpoint}", in: {pixels: pixels}, frozen: true}
  hand:   {use: projector/linear, with: {over: vector, out_features: 32}, in: {x: eye.pooled}}
outputs: {hand: hand}
losses: {apart: {use: loss/alignment, with: {over: vector}, in: {x: hand, wanted: inputs.y}}}
training: {data: data.jsonl, batch: 16, steps: 100000}
"""


def _write(folder: Path, text: str, records: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.yaml").write_text(text, encoding="utf-8")
    (folder / "data.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return folder / "graph.yaml"


def _run(graph: Path | str, out: Path, **flags: Any) -> Any:
    """A stage that is ready to be opened."""
    import modelgraft as mg
    from modelgraft_plugins.training.asked import Asked as AskedOfTraining
    from modelgraft_plugins.training.chosen import chosen_stages, stage_run

    params = flags.pop("params", None)
    solved = mg.check(mg.load(graph, params=params))
    (stage,) = chosen_stages(solved, None, flags)
    return stage_run(solved, stage, AskedOfTraining(out=out, device="cpu"))


def steps(asked: Asked) -> list[Row]:
    """A step of two small layers behind two that stay as they are."""
    import copy

    import torch

    draws = torch.Generator().manual_seed(0)
    records = [
        {"x": torch.randn(1, 16, 64, generator=draws).tolist(), "y": torch.randn(1, 16, 32, generator=draws).tolist()}
        for _ in range(RECORDS)
    ]
    run = _run(_write(asked.folder / "layers", LAYERED, records), asked.folder / "out")
    with run.opened() as stepper:
        batch, _ = run.batch(stepper.learning, range(BATCH), run.data.rows)
        eye, hand = stepper.learning.modules["eye"], copy.deepcopy(stepper.learning.modules["hand"])
        x, y = batch.values["x"], batch.values["y"]
        groups = [{"params": [p for p in hand.parameters() if (p.ndim > 1) == many], "weight_decay": 0.01 * many} for many in (True, False)]
        optimizer, number, last = torch.optim.AdamW(groups, lr=1e-4, fused=True), [0], [0.0, 0.0]

        def by_hand() -> None:
            with torch.no_grad():
                seen = eye(x)
            loss = torch.linalg.vector_norm(hand(seen) - y, dim=-1).mean(-1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(hand.parameters(), 1.0)
            optimizer.step()
            last[0] = loss.item()

        def by_graph() -> None:
            last[1] = stepper.update([batch], step=number[0], ready=[{}]).loss
            number[0] += 1

        by_hand()
        by_graph()
        assert abs(last[0] - last[1]) < 1e-5, "both loops begin with one loss"
        sides = {"written by hand": _timed(by_hand), "through the graph": _timed(by_graph)}
        found = measuring.interleave(sides, asked.rounds(ROUNDS), seconds=asked.share(0.4))
    return [row_of("a step", name, samples, found["written by hand"]) for name, samples in found.items()]


def features(asked: Asked) -> list[Row]:
    """A step behind an encoder of pictures that stays as it is: run, or kept."""
    import numpy as np
    from PIL import Image

    place = checkpoints.make("vit", asked.folder, layers=1 if asked.is_quick else LAYERS)
    home, draws = asked.folder / "seen", np.random.default_rng(0)
    home.mkdir(parents=True, exist_ok=True)
    for number in range(RECORDS):
        Image.fromarray(draws.integers(0, 255, (224, 224, 3), np.uint8)).save(home / f"{number}.png")
    records = [{"image": str(home / f"{number}.png"), "y": draws.normal(size=(1, 32)).tolist()} for number in range(RECORDS)]
    graph = _write(home, SEEN, records)
    params = {"checkpoint": str(place)}
    plain = _run(graph, asked.folder / "plain", params=params)
    kept = _run(graph, asked.folder / "kept", params=params, features="float16")
    with plain.opened() as one, kept.opened() as other:

        def step(run: Any, stepper: Any) -> Callable[[], None]:
            number = [0]

            def once() -> None:
                start = number[0] * BATCH % RECORDS
                batch, ready = run.batch(stepper.learning, range(start, start + BATCH), run.data.rows)
                stepper.update([batch], step=number[0], ready=[ready])
                number[0] += 1

            return once

        sides = {"run in each step": _timed(step(plain, one)), "kept": _timed(step(kept, other))}
        found = measuring.interleave(sides, asked.rounds(ROUNDS), seconds=asked.share(0.4))
    return [row_of("frozen parts", name, samples, found["run in each step"]) for name, samples in found.items()]


def variants(asked: Asked) -> list[Row]:
    """Four connectors of two epochs behind the same encoder of pictures: a training after another in one process, or all side by side."""
    import modelgraft as mg

    place = checkpoints.make("vit", asked.folder, layers=1 if asked.is_quick else LAYERS)
    graph, rates, count = asked.folder / "seen" / "graph.yaml", [1e-2, 1e-3, 1e-4, 1e-5], [0]

    def train(features: str, *, are_together: bool) -> Callable[[], None]:
        def once() -> None:
            count[0] += 1
            out = asked.folder / "variants" / str(count[0])
            given: dict[str, Any] = {"device": "cpu", "params": {"checkpoint": str(place)}, "epochs": 2, "steps": 2 * RECORDS // BATCH}
            if are_together:
                mg.train(graph, out=out, sweep={"learning_rate": rates}, features=features, **given)
                return
            for rate in rates:
                mg.train(graph, out=out / str(rate), learning_rate=rate, features=features, **given)

        return once

    rows = []
    for features, what in (("off", "four connectors"), ("float16", "four connectors, features kept")):
        sides = {name: _timed(train(features, are_together=name == "side by side")) for name in ("one after another", "side by side")}
        found = measuring.interleave(sides, 2 if asked.is_quick else 5, seconds=asked.share(0.2))
        rows += [row_of(what, name, samples, found["one after another"]) for name, samples in found.items()]
    return rows


def intake(asked: Asked) -> list[Row]:
    """A step of a small head on vectors: one batch again and again, or each read from JSON lines."""
    import torch

    from modelgraft_plugins.training.ahead import Ahead

    draws = torch.Generator().manual_seed(0)
    records = [{name: torch.randn(1, size, generator=draws).tolist() for name, size in VECTORS.items()} for _ in range(2 * VECTORS_BATCH)]
    home = asked.folder / "vectors"
    home.mkdir(parents=True, exist_ok=True)
    (home / "data.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    run = _run("grafted/look", asked.folder / "looked", data=str(home / "data.jsonl"), batch=VECTORS_BATCH)
    with run.opened() as stepper:

        def read(group: int) -> Any:
            return run.read(stepper.learning, [(number + 7 * group) % len(records) for number in range(VECTORS_BATCH)], run.data.rows)

        held, number = run.accepted(read(0), run.data.rows), [0]
        with Ahead(read, lambda: 0) as ahead:

            def from_memory() -> None:
                stepper.update([held[0]], step=number[0], ready=[held[1]])

            def from_file() -> None:
                batch, ready = run.accepted(ahead.take(number[0]), run.data.rows)
                number[0] += 1
                ahead.begin(number[0])
                stepper.update([batch], step=number[0], ready=[ready])

            sides = {"a batch in memory": _timed(from_memory), "read from JSON lines": _timed(from_file)}
            found = measuring.interleave(sides, asked.rounds(ROUNDS), seconds=asked.share(0.2))
    return [row_of("512 records of vectors", name, samples, found["a batch in memory"]) for name, samples in found.items()]


def memory(asked: Asked) -> list[Row]:
    """What a process holds at most that trains a small layer for an epoch, from few records and from many."""
    graph, row = _write(asked.folder / "flat", FLAT, []), json.dumps({"x": [[0.123] * 64], "y": [[0.5] * 3]})
    rows: list[Row] = []
    for count in QUICK_SIZES if asked.is_quick else SIZES:
        for way in ("jsonl", "parquet"):
            data = graph.with_name(f"{count}.{way}")
            if way == "jsonl":
                data.write_text(f"{row}\n" * count, encoding="utf-8")
            else:
                _write_parquet(data, row, count)
            words = [sys.executable, "-c", EPOCH, str(graph), str(asked.folder / f"epoch-{data.name}"), str(data)]
            done = subprocess.run(
                words, cwd=measuring.ROOT, env=measuring.environment(1, asked.folder / "cache"), capture_output=True, text=True, check=True
            )
            rows.append({"what": f"an epoch of {count:,} records", "way": way, "peak_mb": float(done.stdout.split()[-1])})
    return rows


def _write_parquet(path: Path, row: str, count: int) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([json.loads(row)] * min(count, 1000))
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        for _ in range(0, count, table.num_rows):
            writer.write_table(table)


def _timed(run: Callable[[], None]) -> Callable[[], Sample]:
    return lambda: measuring.timed(run)


def rows(asked: Asked) -> list[Row]:
    """Steps, then features, then variants, then reading, then memory."""
    return [*steps(asked), *features(asked), *variants(asked), *intake(asked), *memory(asked)]


TABLE = Table(
    name="training",
    title="Training: a step through the graph, and features that are kept",
    says="Milliseconds of a step of 16 records, one thread, random weights; the ratio is to the first row of each kind, within rounds. "
    "Steps behind the encoder read their pictures or features from the disk; those of vectors train grafted/look with 512 records; "
    "four connectors are whole trainings of two epochs, with all that begins and ends them. The peak is of a process that reads its data "
    "and trains for an epoch, mapped pages included.",
    columns={"what": "what", "way": "way", "wall_ms": "wall ms", "cpu_ms": "CPU ms", "ratio": "ratio", "peak_mb": "peak MB"},
    rows=rows,
    minutes=1.0,
)

if __name__ == "__main__":
    tables.alone(TABLE)
