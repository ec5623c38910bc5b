"""How reading, checking, planning and opening a graph grow with its nodes, from 10 to 10,000.

    python -m benchmarks.growth [--minutes 2] [--quick] [--json]

Layers of nodes that do nothing and read one to three of the layer before. Every sample is a process of its own, with the
libraries imported and the file written before the clock starts; memory is the peak above what stood then.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.measuring import Sample, Spread
from benchmarks.orchestrators import bodies, layered, modelgraft_file, modelgraft_graph, modelgraft_registry
from benchmarks.tables import Asked, Row, Table

LAYERS = {10: (2, 4), 100: (10, 10), 1000: (50, 20), 10_000: (500, 20)}  # nodes, about -> layers and their width
PHASES = ("check", "plan", "open", "run")
ROUNDS = 7


def sample(nodes: int) -> Sample:
    """Seconds of each phase, and MB, in this process."""
    import modelgraft as mg

    with mg.open(modelgraft_graph(layered(1, 2), bodies(layered(1, 2)))) as pipeline:
        pipeline.run(x=1)  # imports are not what is measured
    shape = layered(*LAYERS[nodes])
    registry = modelgraft_registry(bodies(shape))
    with tempfile.TemporaryDirectory() as folder:
        path = modelgraft_file(shape, Path(folder))
        gc.collect()
        before = measuring.lowered_peak()
        clock = [time.process_time()]
        graph = mg.check(mg.load(path, registry=registry))
        clock.append(time.process_time())

    def stamp() -> None:
        clock.append(time.process_time())

    mg.plan(graph)
    stamp()
    with mg.open(graph) as pipeline:
        stamp()
        pipeline.run(x=1)
        stamp()
    spent = {name: end - start for name, (start, end) in zip(PHASES, itertools.pairwise(clock), strict=True)}
    return {**spent, "nodes": len(shape.parents), "mb": measuring.peak_mb() - before}


def rows(asked: Asked) -> list[Row]:
    """A row for each size, measured in turn."""
    sizes = [size for size in LAYERS if not asked.is_quick or size <= 1000]
    sides = {
        str(size): (lambda size=size: measuring.child("growth", "--worker", str(size), threads=1, cache=asked.folder / "cache"))
        for size in sizes
    }
    found = measuring.interleave(sides, 2 if asked.is_quick else ROUNDS, warm=0, seconds=asked.seconds, least=2)
    return [row(samples) for samples in found.values()]


def row(samples: list[Sample]) -> Row:
    """Milliseconds of each phase, and what reading, checking and planning cost per node."""
    nodes = int(samples[0]["nodes"])
    return {
        "nodes": nodes,
        **{f"{name}_ms": measuring.spread_of(samples, name, times=1000) for name in PHASES},
        "per_node_us": Spread.of((one["check"] + one["plan"]) / nodes * 1e6 for one in samples),
        "kb_per_node": Spread.of(one["mb"] * 1024 / nodes for one in samples),
        "mb": measuring.spread_of(samples, "mb"),
    }


TABLE = Table(
    name="growth",
    title="Growth of reading, checking and planning with the number of nodes",
    says="CPU time of one thread; reading is from a YAML file, checking includes it. The first run includes what is done once. Memory is "
    "the peak above what the imports took. Each sample is a process of its own.",
    columns={
        "nodes": "nodes", "check_ms": "read and check, ms", "plan_ms": "plan, ms", "open_ms": "open, ms", "run_ms": "first run, ms",
        "per_node_us": "check and plan, µs per node", "mb": "memory, MB", "kb_per_node": "kB per node",
    },
    rows=rows,
    minutes=0.9,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(sample(int(sys.argv[2]))))
    else:
        tables.alone(TABLE)
