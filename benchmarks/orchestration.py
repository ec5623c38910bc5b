"""What running a graph costs per node when the nodes do nothing, beside other ways to run the same graph.

    python -m benchmarks.orchestration [--minutes 6] [--quick] [--json]

Every engine is a process of its own and is asked for one sample per round, in an order that turns round, so that a busy machine
meets all alike. The figure is CPU time (all threads, and of Ray all its processes) per node. Each engine first proves that it
calls every node once and hands on what it got. The peers live in environments of their own (`peers/environment.py`); one that
cannot be had is a row that says why.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file: this folder, whose onnx.py would stand before the package onnx, leaves the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.measuring import Sample
from benchmarks.orchestrators import ENGINES, NATIVE, SHAPES, Run, Shape, bodies
from benchmarks.peers import engines as peers
from benchmarks.tables import Asked, Row, Table, Timer
from benchmarks.workers import Worker

SAMPLE_S = 0.04  # CPU time of one sample
REMOTE_S = 0.4  # of one whose processes are measured by the system, in hundredths of a second
PAYLOAD_BYTES = 2**20
ROUNDS = 25
QUICK_SHAPES = ("one", "layered")
FAMILIAR = ("chain", "fan", "layered")  # graphs that are measured with the large payload too


# -- one engine, in its own process -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine builds, and what cannot be asked of it."""

    build: Callable[[Shape, Mapping[int, Any]], Run]
    is_native: bool = False
    copies: bool = False
    is_remote: bool = False


def engine_of(name: str) -> Engine:
    """One of ours, or a peer."""
    if name in ENGINES:
        return Engine(ENGINES[name], is_native=name in NATIVE)
    peer = peers.PEERS[name]
    return Engine(peer.build, is_native=name in peers.NATIVE, copies=peer.copies, is_remote=peer.is_remote)


def work(name: str) -> None:
    """Answer requests on stdin, one JSON line each: {"shape": name, "payload": kind} -> microseconds per node, or why not."""
    peers.quiet()
    engine, ready = engine_of(name), dict[str, tuple[Run, int, Any]]()
    answers = os.fdopen(os.dup(1), "w")  # what an engine prints does not stand among the answers
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        key, shape = f"{asked['shape']} {asked['payload']}", SHAPES[asked["shape"]]()
        try:
            if key not in ready:
                ready[key] = prepare(engine, shape, asked["payload"])
            run, loops, payload = ready[key]
            answer = sample(run, loops, payload, len(shape.parents), is_remote=engine.is_remote)
        except Exception as error:  # noqa: BLE001 an engine of others may raise anything
            answer = {"why": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def prepare(engine: Engine, shape: Shape, kind: str) -> tuple[Run, int, Any]:
    """Build, prove that it works, and find how many runs fill a sample."""
    payload: Any = bytearray(PAYLOAD_BYTES) if kind == "1 MB" else "a text".upper()
    run = engine.build(shape, bodies(shape))
    given = run(payload)
    assert given == payload if engine.copies else given is payload, "it hands on something else"
    if not engine.is_native and not engine.is_remote:
        prove(engine, shape)
    wanted, loops, spent = REMOTE_S if engine.is_remote else SAMPLE_S, 1, 0.0
    while True:
        spent = sample(run, loops, payload, 1, is_remote=engine.is_remote)["wall" if engine.is_remote else "cpu"] * loops / 1e6
        if spent >= wanted / 4:
            return run, max(1, round(loops * wanted / spent)), payload
        loops *= 2


def prove(engine: Engine, shape: Shape) -> None:
    """Run with functions that count: every node once, in the first run and in later ones."""
    calls = [0]

    def counting(function: Any) -> Any:
        scope: dict[str, Any] = {"calls": calls, "function": function}
        names = ", ".join(f"x{i}" for i in range(function.__code__.co_argcount))
        exec(f"def counted({names}):\n    calls[0] += 1\n    return x0", scope)
        scope["counted"].__doc__ = "Count."
        return scope["counted"]

    run = engine.build(shape, {count: counting(function) for count, function in bodies(shape).items()})
    for _ in range(3):
        calls[0] = 0
        run("a text")
        assert calls[0] == len(shape.parents), f"it called {calls[0]} nodes of {len(shape.parents)}"


def sample(run: Run, loops: int, payload: Any, nodes: int, *, is_remote: bool) -> Sample:
    """Microseconds per node: CPU and wall."""
    below = measuring.cpu_below if is_remote else lambda: 0.0
    wall, cpu, others = time.perf_counter(), time.process_time(), below()
    for _ in range(loops):
        run(payload)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": (cpu + below() - others) / loops / nodes * 1e6, "wall": wall / loops / nodes * 1e6}


# -- all of them --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """The Python of an engine, its version, how it is run; or why it cannot be."""

    python: str
    how: str = ""
    why: str = ""


def places() -> dict[str, Place]:
    """Every engine, those that cannot be measured here included."""
    from benchmarks.peers import environment

    own = {name: Place(sys.executable) for name in ENGINES}
    found = environment.found()
    others = {
        name: Place(found[name].python, f"{found[name].version}, {peer.how}" if found[name].version else peer.how, found[name].why)
        for name, peer in peers.PEERS.items()
    }
    return {**own, **others}


def asked_of(engine: str, shape: str, payload: str) -> bool:
    """Whether an engine can be asked for a graph with a payload."""
    if payload != "text" and (shape not in FAMILIAR or engine in (*NATIVE, *peers.NATIVE)):
        return False
    return engine not in peers.PEERS or shape not in peers.PEERS[engine].skips


def measure(asked: Asked, where: Mapping[str, Place]) -> list[Row]:
    """Samples in rounds, in each of them every engine once for every case; then the rows."""
    shapes = QUICK_SHAPES if asked.is_quick else tuple(SHAPES)
    cases = [(shape, payload) for payload in ("text", "1 MB") for shape in shapes]
    around = measuring.environment(1, asked.folder / "cache")
    workers = {
        name: Worker([place.python, "-m", "benchmarks.orchestration", "--worker", name], around)
        for name, place in where.items()
        if not place.why
    }
    samples: dict[tuple[str, str, str], list[Sample]] = {}
    failed: dict[tuple[str, str, str], str] = {}
    timer = Timer(asked.seconds)
    for number in range(-1, ROUNDS):  # the first builds, and does not count
        if timer.is_over() and number >= (2 if asked.is_quick else 3):
            break
        for shape, payload in cases:
            names = [name for name in workers if asked_of(name, shape, payload) and (shape, payload, name) not in failed]
            for name in names if number % 2 else reversed(names):
                found = workers[name].ask({"shape": shape, "payload": payload})
                if "why" in found:
                    failed[shape, payload, name] = found["why"]
                elif number >= 0:
                    samples.setdefault((shape, payload, name), []).append(found)
        tables.told(f"  orchestration: round {number + 1} of at most {ROUNDS}")
    for worker in workers.values():
        worker.close()
    keys = [(shape, payload, name) for shape, payload in cases for name in where if asked_of(name, shape, payload)]
    reasons = {key: failed.get(key) or where[key[2]].why for key in keys}
    return [row(key, samples, where[key[2]], reasons[key]) for key in keys]


def row(key: tuple[str, str, str], samples: Mapping[tuple[str, str, str], Sequence[Sample]], place: Place, why: str) -> Row:
    """One engine on one graph; its ratio is to modelgraft in the same round."""
    shape, payload, engine = key
    line: Row = {"graph": SHAPES[shape]().name, "payload": payload, "engine": engine, "how": place.how}
    if why:
        return {**line, "why": why}
    found, own = samples[key], samples[shape, payload, "modelgraft"]
    return {
        **line,
        "cpu_us": measuring.spread_of(found, "cpu"),
        "wall_us": measuring.spread_of(found, "wall"),
        "ratio": measuring.compared(found[: len(own)], own[: len(found)], "cpu") if engine != "modelgraft" else None,
        "rounds": len(found),
    }


def rows(asked: Asked) -> list[Row]:
    """All engines on all graphs."""
    return measure(asked, places())


TABLE = Table(
    name="orchestration",
    title="Orchestration: what a node costs that does nothing",
    says="CPU time per node in microseconds, all threads: median of rounds with tenths. The ratio is to modelgraft with timings on, within "
    "rounds, with the 95 % interval of its median: above 1 the engine costs more. Engines take turns within a round; each is a process.",
    columns={
        "graph": "graph", "payload": "payload", "engine": "engine", "how": "version, how", "cpu_us": "CPU µs per node",
        "wall_us": "wall µs", "ratio": "times modelgraft", "rounds": "rounds",
    },
    rows=rows,
    minutes=3.3,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2])
    else:
        tables.alone(TABLE)
