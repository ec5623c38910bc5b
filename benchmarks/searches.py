"""How long it takes to find what is nearest among many vectors, once their index is loaded.

    python -m benchmarks.searches [--minutes 1] [--quick] [--json]

Both sides compare float32 vectors of length 1 in this process, with two threads: the plain side is numpy's product and partition, the
graph is `retrieval/nearest`, from the vector that is asked with to paths and scores.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.tables import Asked, Row, Table, Timer

SIZES = ((100_000, 256), (100_000, 768))  # entries and numbers: those of FROMAGe, of CLIP ViT-L/14
QUICK = ((2_000, 256),)
COUNT, ASKED, THREADS = 9, 3, 2  # hits, different questions, threads
GOAL_MS = 20
STARTING_S = 20  # of a process: making the vectors, writing and opening the index
GRAPH = """
modelgraft: 1
name: nearest
inputs: {{vector: "float[batch {width}]"}}
nodes:
  found: {{use: retrieval/nearest, from: ./index.safetensors, with: {{count: {count}}}, in: {{vector: inputs.vector}}}}
outputs: {{paths: found.paths, scores: found.scores}}
"""


def write_index(folder: Path, entries: int, width: int) -> Any:
    """An index of random directions in the folder, and a graph that asks it; gives its vectors, float32[entries width]."""
    import numpy

    from modelgraft_plugins.retrieval import filed, header, searching

    vectors = searching.unit(numpy.random.default_rng(0).standard_normal((entries, width)))
    model = {"name": "random", "space": "", "sources": {}, "digest": "", "output": "nearest: vector"}
    about = header.About(width, entries, model, str(folder), "image")
    files = [filed.Entry(f"{number:06}.jpg", "", "") for number in range(entries)]
    filed.write_index(filed.Index(about, vectors, files, [b""] * entries), folder / "index.safetensors")
    (folder / "nearest.yaml").write_text(GRAPH.format(width=width, count=COUNT), encoding="utf-8")
    return vectors


def work(folder: Path, seconds: float, rounds: int, entries: int, width: int) -> dict[str, Any]:
    """Both sides in this process, in turns."""
    import numpy
    import torch

    import modelgraft as mg

    torch.set_num_threads(THREADS)
    vectors = write_index(folder, entries, width)
    questions = numpy.random.default_rng(1).standard_normal((ASKED, 1, width)).astype("float32")
    questions /= numpy.linalg.norm(questions, axis=-1, keepdims=True)
    asked = [torch.from_numpy(question) for question in questions]

    def plain() -> list[Any]:
        found = []
        for question in questions:
            scores = vectors @ question[0]
            some = numpy.argpartition(-scores, COUNT)[:COUNT]
            found.append(some[numpy.argsort(-scores[some])])
        return found

    with mg.open(folder / "nearest.yaml", cache_bytes=0) as pipeline:

        def graph() -> list[Any]:
            return [pipeline.run(vector=question)["paths"] for question in asked]

        names = [[f"{row:06}.jpg" for row in rows] for rows in plain()]
        if [[Path(path).name for path in paths] for paths in graph()] != names:
            return {"why": "the graph finds others"}
        sides = {"plain": lambda: measuring.timed(plain), "graph": lambda: measuring.timed(graph)}
        return {"samples": measuring.interleave(sides, rounds, seconds=seconds, least=min(rounds, 3))}


def rows(asked: Asked) -> list[Row]:
    """A row for each number of vectors and their width."""
    sizes = QUICK if asked.is_quick else SIZES
    timer, found = Timer(asked.seconds), list[Row]()
    for number, (entries, width) in enumerate(sizes):
        folder = asked.folder / f"{entries}-{width}"
        folder.mkdir()
        share = max(1.0, timer.left() / (len(sizes) - number) - STARTING_S)
        found.append({"entries": entries, "width": width, **measured(folder, share, 3 if asked.is_quick else 60, entries, width)})
        tables.told(f"  {entries} x {width}: {tables.shown(found[-1].get('graph_ms')) or found[-1]['why']}")
    return found


def measured(folder: Path, seconds: float, rounds: int, entries: int, width: int) -> Row:
    """The figures of one size, or why there are none."""
    try:
        words = ("--worker", str(folder), f"{seconds:.1f}", str(rounds), str(entries), str(width))
        found = measuring.child("searches", *words, threads=THREADS, cache=folder / "cache")
    except RuntimeError as error:
        return {"why": str(error).splitlines()[-1][:300]}
    if "why" in found:
        return {"why": found["why"]}
    sides = found["samples"]
    return {
        "plain_ms": measuring.spread_of(sides["plain"], "wall", times=1000 / ASKED),
        "graph_ms": measuring.spread_of(sides["graph"], "wall", times=1000 / ASKED),
        "cpu_ms": measuring.spread_of(sides["graph"], "cpu", times=1000 / ASKED),
        "gain": measuring.compared(sides["plain"], sides["graph"], "wall"),
        "rounds": len(sides["graph"]),
    }


TABLE = Table(
    name="searches",
    title="The nearest of many vectors, after the index is loaded",
    says=f"Two threads, float32, one question at a time, the {COUNT} nearest with paths and scores, every vector compared. `graph` is the "
    f"whole run of a graph of retrieval/nearest (goal: under {GOAL_MS} ms among 100,000), `plain` numpy's product and partition; "
    "`gain` is plain / graph. `CPU` is the time of all threads, which is about what a machine without other work takes.",
    columns={
        "entries": "vectors", "width": "numbers", "plain_ms": "plain, ms", "graph_ms": "graph, ms", "cpu_ms": "graph, CPU ms",
        "gain": "gain", "rounds": "rounds",
    },
    rows=rows,
    minutes=1.5,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _, _, where, seconds_given, most, number, wide = sys.argv
        print(json.dumps(work(Path(where), float(seconds_given), int(most), int(number), int(wide))))
    else:
        tables.alone(TABLE)
