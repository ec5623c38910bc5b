"""What the onnx backend is to reach beside transformers, eager, on one thread: encoders, a decoder and a whole model of random weights.

    python -m benchmarks.goals [--minutes 12] [--json]
    python -m benchmarks.as_avx2 -m benchmarks.bench --tables goals

The cases are those of `onnx.py`; goals differ by whether the processor multiplies 8-bit numbers. Both ratios stand in the table, of the
time that passes and of the time that the processor computes: on a busy machine the second one says more. Beside each goal stands
what the processor lets anything reach at most: transformers' time by that of the bare products (`bounds.py`, `limits.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import bounds, machine, measuring, onnx
from benchmarks.tables import Asked, Row, Table, alone, told

NAMES: Mapping[str, str] = {
    "vit": "ViT-B/16, a picture", "qformer": "Q-Former of BLIP-2", "decode-b1": "LLaMA of 125M widths, 64 new tokens",
    "blip2": "BLIP-2 whole, 20 new tokens",
}  # fmt: skip
WITHOUT = {
    ("vit", "float32"): 1.3, ("vit", "int8"): 2.8, ("qformer", "float32"): 1.5, ("qformer", "int8"): 3.5,
    ("decode-b1", "float32"): 2.0, ("decode-b1", "int8"): 5.0, ("blip2", "float32"): 1.6, ("blip2", "int8"): 3.3,
}  # fmt: skip


def goal(case: str, precision: str) -> float | None:
    """How many times transformers' speed is wanted on this processor."""
    if machine.this_machine().multiplies_bytes:
        return onnx.CASES[case].goals.get((precision, 1))
    return WITHOUT.get((case, precision))


def row(case: str, precision: str, found: Mapping[str, Any], least_ms: float) -> Row:
    """A line of the table: what a worker of `onnx.py` found of a case, and the least time that it can take here."""
    if precision in found.get("refused", {}):
        return {"case": NAMES[case], "precision": precision, "why": found["refused"][precision]}
    theirs, ours = found["samples"]["theirs"], found["samples"][precision]
    same = found["equal"][precision]
    return {
        "case": NAMES[case],
        "precision": precision,
        "theirs_ms": measuring.Spread.of(1000 * one["wall"] for one in theirs),
        "ours_ms": measuring.Spread.of(1000 * one["wall"] for one in ours),
        "wall": measuring.compared(theirs, ours, "wall"),
        "cpu": measuring.compared(theirs, ours, "cpu"),
        "goal": goal(case, precision),
        "most": 1000 * measuring.Spread.of(one["cpu"] for one in theirs).median / least_ms,
        "same": f"{same:.0%} of the tokens" if same >= 0 else f"{-same:.0e} off",
        "gate": found["gates"][precision],
    }


def rows(asked: Asked) -> list[Row]:
    """Every case in a process of its own; rounds share the time as far as `onnx.py` asks for as many."""
    found: list[Row] = []
    cache, few = measuring.cache_within(asked.folder), "3" if asked.is_quick else "15"
    fastest = measuring.child("limits", "--json", "--rounds", few, threads=1, cache=cache)
    for case in NAMES:
        rounds = 1 if asked.is_quick else onnx.CASES[case].rounds
        place = checkpoint(case, asked.folder, is_quick=asked.is_quick)
        words = ["--worker", case, "--folder", str(place), "--rounds", str(rounds), *(["--quick"] if asked.is_quick else [])]
        measured = measuring.child("onnx", *words, threads=1, cache=cache)
        counted = measuring.child("bounds", case, str(place), threads=1, cache=cache)
        found += [row(case, precision, measured, bounds.least_ms(counted, fastest, precision)) for precision in onnx.PRECISIONS]
        told(f"  {NAMES[case]}: {', '.join(str(one.get('wall') or one['why']) for one in found[-2:])}")
    return found


def checkpoint(case: str, folder: Path, *, is_quick: bool) -> Path:
    """The random checkpoint of a case."""
    from benchmarks import checkpoints

    return checkpoints.make(onnx.CASES[case].checkpoint, folder, layers=3 if is_quick else checkpoints.LAYERS)


TABLE = Table(
    name="goals",
    title="The onnx backend beside transformers, eager, on one thread",
    says="Random weights of real sizes; a ratio is how many times faster the graph is, by the time that passes and by what the processor "
    "computes. Outputs are compared with those of transformers: the largest difference, or which part of the tokens is equal before one "
    "differs; gate is what the parity gate found of the export. At most here: how many times as fast the bare products of the case would "
    "be, at the fastest rate that any product of onnxruntime or torch reaches on this processor in the same run, with the weights of each "
    "token read once at the speed of the memory, and nothing between them.",
    columns={
        "case": "case", "precision": "precision", "theirs_ms": "transformers, ms", "ours_ms": "modelgraft, ms", "wall": "times as fast",
        "cpu": "by CPU time", "goal": "goal", "most": "at most here", "same": "beside transformers'", "gate": "gate",
    },
    rows=rows,
    minutes=12.0,
)  # fmt: skip


if __name__ == "__main__":
    alone(TABLE)
