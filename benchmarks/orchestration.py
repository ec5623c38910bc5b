"""What running a graph costs per node when the nodes do nothing, beside other ways to run the same graph.

    python benchmarks/orchestration.py [--rounds 15] [--shapes chain,fan] [--mediapipe PYTHON] [--json]

Every engine is a process of its own and is asked for one sample per round, in turn, so that a busy machine meets all
alike; the figure is CPU time (all threads) per node: the median, and in brackets the lowest and highest tenth. Each engine first proves
that it calls every node once and hands on the very object that it got. `--mediapipe` names a Python that has MediaPipe
(0.10.21 is the last with its graph API); without it, MediaPipe is measured when this Python has it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose onnx.py would stand before the package onnx
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.orchestrators import ENGINES, NATIVE, SHAPES, Run, Shape, bodies, layered, modelgraft_graph

SAMPLE_S = 0.04  # CPU time of one sample
PAYLOAD_BYTES = 2**20
NAP_S = 0.05


# -- one engine, in its own process -------------------------------------------------------------------------------------


def work(engine: str) -> None:
    """Answer requests on stdin, one JSON line each: {"shape": name, "payload": kind} -> microseconds per node."""
    ready: dict[str, tuple[Run, int, Any]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = f"{asked['shape']} {asked['payload']}"
        if key not in ready:
            ready[key] = prepare(engine, SHAPES[asked["shape"]](), asked["payload"])
        run, loops, payload = ready[key]
        print(json.dumps(sample(run, loops, payload, len(SHAPES[asked["shape"]]().parents))), flush=True)


def prepare(engine: str, shape: Shape, kind: str) -> tuple[Run, int, Any]:
    """Build, prove that it works, and find how many runs fill a sample."""
    payload: Any = bytearray(PAYLOAD_BYTES) if kind == "1 MB" else object()
    run = ENGINES[engine](shape, bodies(shape))
    assert run(payload) is payload
    if engine not in NATIVE:
        prove(engine, shape)
    loops, spent = 1, 0.0
    while spent < SAMPLE_S / 4:
        loops *= 2
        spent = sample(run, loops, payload, 1)["cpu"] * loops / 1e6
    return run, max(1, round(loops * SAMPLE_S / spent)), payload


def prove(engine: str, shape: Shape) -> None:
    """Run with functions that count: every node once, in the first run and in later ones."""
    calls = [0]

    def counting(function: Any) -> Any:
        scope: dict[str, Any] = {"calls": calls, "function": function}
        names = ", ".join(f"x{i}" for i in range(function.__code__.co_argcount))
        exec(f"def counted({names}):\n    calls[0] += 1\n    return x0", scope)
        scope["counted"].__doc__ = "Count."
        return scope["counted"]

    run = ENGINES[engine](shape, {count: counting(function) for count, function in bodies(shape).items()})
    for _ in range(3):
        calls[0] = 0
        run(object())
        assert calls[0] == len(shape.parents), f"{engine} called {calls[0]} nodes of {len(shape.parents)}"


def sample(run: Run, loops: int, payload: Any, nodes: int) -> dict[str, float]:
    """Microseconds per node: CPU and wall."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(loops):
        run(payload)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu / loops / nodes * 1e6, "wall": wall / loops / nodes * 1e6}


# -- all of them --------------------------------------------------------------------------------------------------------


class Worker:
    """An engine in a process of its own."""

    def __init__(self, engine: str, python: str) -> None:
        command = [python, str(Path(__file__)), "--worker", engine]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def ask(self, shape: str, payload: str) -> dict[str, float] | None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"shape": shape, "payload": payload}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


def pythons(mediapipe: str | None) -> dict[str, str]:
    """The engines that can be measured here, with the Python of each."""
    found = {name: sys.executable for name in ENGINES if name not in NATIVE}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        found["onnxruntime (C++)"] = sys.executable
    if mediapipe or importlib.util.find_spec("mediapipe"):
        found["MediaPipe (C++)"] = mediapipe or sys.executable
    return found


def measure(rounds: int, shapes: list[str], engines: dict[str, str]) -> list[dict[str, Any]]:
    """Samples in rounds: in each, every engine once for every case."""
    cases = [
        (shape, payload)
        for shape in shapes
        for payload in ("object", "1 MB")
        if payload == "object" or shape in ("chain", "fan", "layered")
    ]
    samples: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    workers = {name: Worker(name, python) for name, python in engines.items()}
    for shape, payload in cases:
        asked = [name for name in workers if payload == "object" or name not in NATIVE]
        for _ in range(rounds):
            for name in asked:
                found = workers[name].ask(shape, payload)
                if found is not None:
                    samples.setdefault((shape, payload, name), []).append(found)
    for worker in workers.values():
        worker.close()
    return [row(*key, found) for key, found in samples.items()]


def row(shape: str, payload: str, engine: str, found: list[dict[str, float]]) -> dict[str, Any]:
    cpu = sorted(one["cpu"] for one in found)
    tenth = len(cpu) // 10
    return {
        "shape": SHAPES[shape]().name,
        "payload": payload,
        "engine": engine,
        "cpu_us": statistics.median(cpu),
        "low_us": cpu[tenth],
        "high_us": cpu[-1 - tenth],
        "wall_us": statistics.median(one["wall"] for one in found),
    }


# -- what is not per node -----------------------------------------------------------------------------------------------


def overlap() -> dict[str, float]:
    """Four branches that each wait 50 ms outside the GIL, run together: milliseconds of the first run and of later ones."""
    import modelgraft as mg

    shape = Shape("sleep", {**{f"n{i}": () for i in range(4)}, "end": tuple(f"n{i}" for i in range(4))})

    def nap(x0: Any) -> Any:
        """Wait."""
        time.sleep(NAP_S)
        return x0

    graph = modelgraft_graph(shape, {**bodies(shape), 1: nap})
    first, later = [], []
    for _ in range(5):
        with mg.open(graph) as pipeline:
            for run in range(3):
                start = time.perf_counter()
                pipeline.run(x=1)
                (later if run else first).append((time.perf_counter() - start) * 1e3)
    return {"first_ms": statistics.median(first), "later_ms": statistics.median(later)}


def building() -> list[dict[str, float]]:
    """Seconds to read and check, to plan, and to run for the first time, by number of nodes."""
    import modelgraft as mg

    rows = []
    for layers in (5, 50, 500):
        shape = layered(layers, 20)
        code = bodies(shape)
        start = time.perf_counter()
        graph = modelgraft_graph(shape, code)
        checked = time.perf_counter()
        mg.plan(graph)
        planned = time.perf_counter()
        with mg.open(graph) as pipeline:
            opened = time.perf_counter()
            pipeline.run(x=1)
            ran = time.perf_counter()
        rows.append({"nodes": len(shape.parents), "check_s": checked - start, "plan_s": planned - checked, "first_run_s": ran - opened})
    return rows


def show(rows: list[dict[str, Any]], sleeping: dict[str, float], built: list[dict[str, float]]) -> None:
    """Print the tables: each engine's time per node, and how many times that of modelgraft it is."""
    own = {(one["shape"], one["payload"]): one["cpu_us"] for one in rows if one["engine"] == "modelgraft"}
    print(f"{'graph':16} {'payload':7} {'engine':24} {'CPU us per node':>24} {'wall':>8} {'x modelgraft':>13}")
    for one in rows:
        spread = f"{one['cpu_us']:.3f} ({one['low_us']:.3f}-{one['high_us']:.3f})"
        ratio = one["cpu_us"] / own[one["shape"], one["payload"]]
        print(f"{one['shape']:16} {one['payload']:7} {one['engine']:24} {spread:>24} {one['wall_us']:8.3f} {ratio:13.2f}")
    print(f"\nfour branches of 50 ms: {sleeping['first_ms']:.1f} ms in the first run, {sleeping['later_ms']:.1f} ms later")
    for one in built:
        seconds = f"read and check {one['check_s']:.2f} s, plan {one['plan_s']:.2f} s, first run {one['first_run_s']:.2f} s"
        print(f"{one['nodes']:6} nodes: {seconds}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--mediapipe", metavar="PYTHON")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    rows = measure(options.rounds, options.shapes.split(","), pythons(options.mediapipe))
    sleeping, built = overlap(), building()
    if options.json:
        print(json.dumps({"rows": rows, "overlap": sleeping, "building": built}, indent=1))
    else:
        show(rows, sleeping, built)


if __name__ == "__main__":
    main()
