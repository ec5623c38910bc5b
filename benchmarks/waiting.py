"""What four branches cost that each wait, outside of Python's lock, for 50 ms: run side by side, or one after the other.

python -m benchmarks.waiting [--quick] [--json]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.measuring import Sample
from benchmarks.orchestrators import Shape, bodies, modelgraft_graph
from benchmarks.tables import Asked, Row, Table

NAP_S = 0.05
BRANCHES = 4
ROUNDS = 15


def nap(x0: Any) -> Any:
    """Wait."""
    time.sleep(NAP_S)
    return x0


def ours() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A first run, which opens a pipeline of its own, and a later run of one that has run before."""
    import modelgraft as mg

    names = [f"n{index}" for index in range(BRANCHES)]
    shape = Shape("naps", {**dict.fromkeys(names, ()), "end": tuple(names)})
    graph = modelgraft_graph(shape, {**bodies(shape), 1: nap})
    kept = mg.open(graph)
    kept.run(x=1)

    def first() -> Sample:
        with mg.open(graph) as pipeline:
            return measuring.timed(lambda: pipeline.run(x=1))

    return first, lambda: measuring.timed(lambda: kept.run(x=1))


def in_turn() -> None:
    """Four calls."""
    for _ in range(BRANCHES):
        nap(1)


def rows(asked: Asked) -> list[Row]:
    """Milliseconds of a run."""
    first, later = ours()
    with ThreadPoolExecutor(BRANCHES) as pool:
        sides: dict[str, Callable[[], Sample]] = {
            "a pool of threads": lambda: measuring.timed(lambda: list(pool.map(nap, range(BRANCHES)))),
            "plain calls": lambda: measuring.timed(in_turn),
            "modelgraft, first run of a pipeline": first,
            "modelgraft, later runs": later,
        }
        found = measuring.interleave(sides, 3 if asked.is_quick else ROUNDS, seconds=asked.seconds)
    pool_times = found["a pool of threads"]
    return [
        {
            "way": way,
            "wall_ms": measuring.spread_of(samples, "wall", times=1000),
            "ratio": measuring.compared(samples, pool_times, "wall") if samples is not pool_times else None,
        }
        for way, samples in found.items()
    ]


TABLE = Table(
    name="waiting",
    title="Branches that wait: four of 50 ms, run together",
    says="Wall time of a run in milliseconds; the ratio is to a pool of four threads, within rounds.",
    columns={"way": "way", "wall_ms": "wall ms", "ratio": "times the pool"},
    rows=rows,
    minutes=0.2,
)

if __name__ == "__main__":
    tables.alone(TABLE)
