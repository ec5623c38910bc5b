"""The onnx backend beside transformers on torch: the same weights and inputs, in turn within one process.

    python benchmarks/onnx.py [--cases vit,decode-b1,...] [--rounds N] [--threads 1,2] [--quick] [--json]

Cases: vit, qformer, audio (encoders, batch 1), decode-b1, decode-b4 (LLaMA of 125M widths, prompt of 64 tokens, 64 new),
past-b1, past-b4 (1,500 tokens of past), describe (real weights of SmolLM2-135M), blip2, idefics (whole graphs, 20 new
tokens), start (a second process to its first token), call (what is around a session). A ratio is how many times faster the graph is.
See README.md here.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file: its folder, whose onnx.py would stand before the package onnx, goes
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, composed, measuring, onnx_sides
from benchmarks.measuring import Sample
from benchmarks.onnx_sides import Side

PRECISIONS = ("float32", "int8")
NEW = 64  # tokens that a decode case writes
PAST = 1500
ANSWER = 20  # tokens of BLIP-2's answer
SENTENCE = 40  # tokens of a description, the graph's own limit
STARTS = {"start-llama": "llama", "start-blip2": "blip2"}


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: by thread count the rounds, by precision the goal, and the figure that the goal is about.

    checkpoint  which random checkpoint it needs
    goals       (precision, threads) -> the least ratio
    figure      "" for the whole, "writing_" for the time from the first token to the last
    """

    checkpoint: str
    rounds: int
    goals: Mapping[tuple[str, int], float]
    figure: str = ""
    threads: tuple[int, ...] = (1, 2)


def _goals(float32: float, int8: float | None, *, at_two: float | None = None) -> dict[tuple[str, int], float]:
    found = {("float32", 1): float32, ("float32", 2): at_two or float32}
    return found if int8 is None else {**found, ("int8", 1): int8, ("int8", 2): int8}


CASES: dict[str, Case] = {
    "vit": Case("vit", 15, _goals(1.2, 2.8)),
    "qformer": Case("blip2", 15, _goals(1.2, 2.8)),
    "audio": Case("whisper", 15, _goals(1.2, 1.7)),
    "decode-b1": Case("llama", 7, _goals(1.9, 4.3, at_two=1.55)),
    "decode-b4": Case("llama", 7, _goals(1.9, 4.3, at_two=1.55)),
    "past-b1": Case("llama", 5, _goals(1.9, None), "writing_"),
    "past-b4": Case("llama", 3, _goals(1.9, None), "writing_", (1,)),
    "describe": Case("", 7, _goals(1.8, 4.0), "writing_"),
    "blip2": Case("blip2", 9, _goals(1.5, 3.0)),
    "idefics": Case("idefics", 9, {}, "", (1,)),
    "start-llama": Case("llama", 7, {("float32", 1): 1.5}, "", (1,)),
    "start-blip2": Case("blip2", 7, {("float32", 1): 1.5}, "", (1,)),
    "call": Case("tiny", 300, {}, "", (1,)),
}


# -- workers ------------------------------------------------------------------------------------------------------------


def sides(case: str, folder: Path, *, is_quick: bool) -> dict[str, Side]:
    """Transformers, and the graph in every precision."""
    if case in onnx_sides.ENCODERS:
        return {"theirs": onnx_sides.their_encoder(case, folder)} | {p: onnx_sides.our_encoder(case, folder, p) for p in PRECISIONS}
    if case == "describe":
        theirs = onnx_sides.their_describe(SENTENCE)
        return {"theirs": theirs} | {p: onnx_sides.our_describe(p, SENTENCE) for p in (*PRECISIONS, "w8")}
    if case in composed.TEMPLATES:
        return _whole(case, folder)
    kind, _, batch = case.partition("-b")
    asked = {"length": PAST if kind == "past" else 64, "batch": int(batch), "tokens": 16 if is_quick else 32 if kind == "past" else NEW}
    if is_quick and kind == "past":
        asked["length"] = 300
    ours = {p: onnx_sides.our_tongue(folder, p, **asked) for p in PRECISIONS}
    return {"theirs": onnx_sides.their_tongue(folder, **asked)} | ours


def _whole(graph: str, folder: Path) -> dict[str, Side]:
    answers: dict[str, Callable[[], str]] = {"theirs": composed.theirs(graph, folder, ANSWER)}
    answers |= {p: composed.ours(graph, folder, ANSWER, options={"backend": "onnx", "precision": p}) for p in PRECISIONS}

    def side(answer: Callable[[], str]) -> Side:
        kept = [""]

        def run() -> None:
            kept[0] = answer()

        return Side(lambda: measuring.timed(run), lambda: kept[0])

    return {name: side(answer) for name, answer in answers.items()}


def work(case: str, folder: Path, *, rounds: int, is_quick: bool) -> dict[str, Any]:
    """Measure a case in this process: samples by side, how equal the answers were, and the parity of the exports."""
    if case == "call":
        from benchmarks import onnx_calls

        return onnx_calls.measure(folder, rounds)
    measured = sides(case, folder, is_quick=is_quick)
    refused = {name: why for name, side in measured.items() if (why := _refusal(side))}
    measured = {name: side for name, side in measured.items() if name not in refused}
    ours = [name for name in measured if name != "theirs"]
    equal: dict[str, list[float]] = {name: [] for name in ours}
    gave: dict[str, Any] = {}

    def sampled(name: str) -> Callable[[], Sample]:
        def run() -> Sample:
            sample = measured[name].run()
            gave[name] = measured[name].gave()
            if len(gave) == len(measured):  # the last of a round: all have answered the same question
                for precision in ours:
                    equal[precision].append(_sameness(gave[precision], gave["theirs"]))
                gave.clear()
            return sample

        return run

    samples = measuring.interleave({name: sampled(name) for name in measured}, rounds, warm=0)
    return {
        "samples": samples,
        "equal": {name: min(found) for name, found in equal.items()},
        "gates": {name: measured[name].parity() for name in ours},
        "refused": refused,
        "load": measuring.load(),
    }


def _refusal(side: Side) -> str:
    """Warm a side up; why its export is not used, or an empty string."""
    from modelgraft.kernel.words.errors import GraphError

    try:
        side.run()
    except GraphError as error:
        return str(error).partition("\n")[0]
    return ""


def _sameness(mine: Any, theirs: Any) -> float:
    """Of texts: which part of the tokens is equal up to the first that is not. Of tensors: the largest relative difference, negated."""
    if not isinstance(mine, str | list):
        return -float((mine - theirs).abs().max() / theirs.abs().max())
    ours, others = (" ".join(text if isinstance(text, list) else [text]).split() for text in (mine, theirs))
    same = next((index for index, (one, other) in enumerate(zip(ours, others, strict=False)) if one != other), min(len(ours), len(others)))
    return same / max(len(ours), len(others), 1)


def first_token(model: str, folder: Path, side: str) -> None:
    """What a process does that starts and writes one token."""
    if model == "blip2":
        options = {"backend": "onnx", "precision": side}
        (composed.theirs(model, folder, 1) if side == "theirs" else composed.ours(model, folder, 1, options=options))()
        return
    asked = {"length": 64, "batch": 1, "tokens": 1}
    if side == "theirs":
        onnx_sides.their_tongue(folder, **asked).run()
    elif side == "torch":
        onnx_sides.our_tongue(folder, None, backend="torch", **asked).run()
    else:
        onnx_sides.our_tongue(folder, side, **asked).run()


def starts(case: str, folder: Path, cache: Path, *, rounds: int) -> dict[str, Any]:
    """Processes that start and write one token, in turn; the round before the first fills the cache of exports."""

    def process(side: str) -> Callable[[], Sample]:
        words = [sys.executable, "-m", "benchmarks.onnx", "--worker", case, "--folder", str(folder), "--side", side]

        def run() -> Sample:
            wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(words, cwd=measuring.ROOT, env=measuring.environment(1, cache), check=True, stdout=subprocess.DEVNULL)
            wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
            return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}

        return run

    samples = measuring.interleave({side: process(side) for side in ("theirs", *PRECISIONS)}, rounds)
    return {"samples": samples, "equal": {}, "gates": {}, "load": measuring.load()}


# -- the benchmark ------------------------------------------------------------------------------------------------------


def measure(name: str, threads: int, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows of one case with so many threads."""
    case, cache = CASES[name], measuring.cache_within(folder)
    place = checkpoints.make(case.checkpoint, folder, layers=3 if options.quick else checkpoints.LAYERS) if case.checkpoint else folder
    rounds = options.rounds or (2 if options.quick else case.rounds)
    if name in STARTS:
        found = starts(name, place, cache, rounds=rounds)
    else:
        words = ["--worker", name, "--folder", str(place), "--rounds", str(rounds)]
        found = measuring.child("onnx", *words, *(["--quick"] if options.quick else []), threads=threads, cache=cache)
    if name == "call":
        return [{"case": name, "threads": threads, **row} for row in found]
    refused = [{"case": name, "threads": threads, "precision": key, "refused": why} for key, why in found.get("refused", {}).items()]
    ours = [precision for precision in found["samples"] if precision != "theirs"]
    return [*refused, *(row(name, threads, precision, figure, found) for precision in ours for figure in _figures(found))]


def _figures(found: Mapping[str, Any]) -> list[str]:
    return ["", "writing_"] if "writing_wall" in found["samples"]["theirs"][0] else [""]


def row(name: str, threads: int, precision: str, figure: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    theirs, ours = found["samples"]["theirs"], found["samples"][precision]
    goal = CASES[name].goals.get((precision, threads)) if CASES[name].figure == figure else None
    return {
        "case": f"{name}, {'first to last token' if figure else 'whole'}",
        "precision": precision,
        "threads": threads,
        "theirs_ms": measuring.Spread.of(1000 * one[f"{figure}wall"] for one in theirs).median,
        "ours_ms": measuring.Spread.of(1000 * one[f"{figure}wall"] for one in ours).median,
        "goal": goal,
        "wall": measuring.ratio(theirs, ours, f"{figure}wall"),
        "cpu": measuring.ratio(theirs, ours, f"{figure}cpu"),
        "equal": found["equal"].get(precision),
        "gate": found["gates"].get(precision),
        "load": found["load"],
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the tables."""
    headings = ("case", "precision", "threads", "theirs ms", "ours ms", "goal", "", "wall", "CPU", "equal", "gate", "load")
    cells = [
        (
            one["case"], one["precision"], str(one["threads"]), f"{one['theirs_ms']:.1f}", f"{one['ours_ms']:.1f}", *_verdict(one),
            str(one["wall"]), str(one["cpu"]), _equality(one["equal"]), "" if one["gate"] is None else f"{one['gate']:.0e}",
            f"{one['load']:.1f}",
        )
        for one in rows
        if "wall" in one
    ]  # fmt: skip
    if cells:
        measuring.print_table(headings, cells)
        print("wall and CPU: theirs to ours, round by round, median (lowest tenth - highest tenth); the goal is about wall")
        print("equal: tokens up to the first that differs, or the largest difference relative to the largest number, against transformers")
        print("gate: the largest relative difference that the export's own parity gate found")
    for one in rows:
        if "refused" in one:
            print(f"{one['case']} in {one['precision']}, {one['threads']} threads, was not measured: {one['refused']}")
        if "over" in one:
            print(f"{one['call']}: {one['microseconds']} us, {one['over']} us more than {one['bare']} (goal: at most 10)")


def _verdict(one: Mapping[str, Any]) -> tuple[str, str]:
    if one["goal"] is None:
        return "", ""
    return f"{one['goal']}", "ok" if one["wall"].median >= one["goal"] else "missed"


def _equality(found: float | None) -> str:
    """Differences are negative numbers: see `_sameness`."""
    if found is None:
        return ""
    return f"{found:.0%}" if found >= 0 else f"{-found:.0e} off"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=0, help="by default as many as the case needs")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--quick", action="store_true", help="three layers and two rounds: whether it works, not how fast it is")
    parser.add_argument("--json", action="store_true")
    for hidden in ("--worker", "--folder", "--side"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker in STARTS:
        first_token(STARTS[options.worker], Path(options.folder), options.side)
        return
    if options.worker:
        found = work(options.worker, Path(options.folder), rounds=options.rounds, is_quick=options.quick)
        print(json.dumps(found))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="modelgraft-bench-") as folder:
        print(measuring.surroundings(), file=sys.stderr if options.json else sys.stdout, flush=True)
        asked = [name for name in CASES if any(name == wish or name.startswith(f"{wish}-") for wish in options.cases.split(","))]
        for name in asked:
            for threads in map(int, options.threads.split(",")):
                if threads in CASES[name].threads or len(options.threads) == 1:
                    found = measure(name, threads, options, Path(folder))
                    said = ", ".join(f"{one['precision']} {one['wall']}" for one in found if "wall" in one)
                    print(f"{name}, {threads} threads: {said or 'see below'}", file=sys.stderr, flush=True)
                    rows += found
    if options.json:
        print(json.dumps(rows, indent=1, default=lambda spread: [spread.median, spread.low, spread.high]))
    else:
        show(rows)


if __name__ == "__main__":
    main()
