"""Backends by precision, measured by `modelgraft bench`: torch, compiled torch, and ONNX Runtime with weights of several kinds.

    python -m benchmarks.backends [--minutes 5] [--quick] [--json]

An eye and a language model of random weights, of real widths and few layers, and the main job with its real weights. `onnx.py` has
the onnx backend beside transformers, at full depth.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, measuring, onnx_sides, tables
from benchmarks.measuring import Ratio
from benchmarks.startup import with_downloads
from benchmarks.tables import Asked, Row, Table

LAYERS = 4
ROUNDS = 12
RECORDS = 6
NEW = 32  # tokens
MB = 1_000_000
MAKE = """
import json, sys
from pathlib import Path
from benchmarks import checkpoints, family_checkpoints
home, layers = Path(sys.argv[1]), int(sys.argv[2])
family_checkpoints.make("vit", home, layers=layers)
checkpoints.make("llama", home, layers=layers)
for number in range(6):
    checkpoints.picture(number).save(home / f"{number}.png")
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A graph, what is set in it, its records and the output that is compared; which backends and precisions."""

    title: str
    graph: str
    settings: Mapping[str, str]
    records: Sequence[Mapping[str, str]]
    output: str
    backends: str = "torch,compile,onnx"
    precisions: str = "float32,int8,w8"


def cases(folder: Path, layers: int) -> list[Case]:
    """What is measured, written into a folder."""
    tongue = folder / "tongue.yaml"
    tongue.write_text(onnx_sides.TONGUE, encoding="utf-8")
    pictures = [{"image": str(folder / f"{number}.png")} for number in range(RECORDS)]
    texts = [{"prompt": checkpoints.text_of(64, number)} for number in range(RECORDS)]
    exactly = {"nodes.sentence.with.min_new_tokens": str(NEW), "max_new_tokens": str(NEW)}
    return [
        Case(f"ViT-B/16, {layers} layers, a picture", "vit", {"checkpoint": str(folder / f"vit-{layers}")}, pictures, "logits"),
        Case(
            f"LLaMA 768 wide, {layers} layers, 64 tokens and {NEW} new", str(tongue),
            {"checkpoint": str(folder / f"llama-{layers}"), "max_new_tokens": str(NEW)}, texts, "text",
        ),
        Case(f"describe, real weights, {NEW} new", "describe", exactly, pictures, "text", "torch,onnx"),
    ]  # fmt: skip


def measured(case: Case, folder: Path, cache: Path, rounds: int) -> list[Row]:
    """The cells of a case as rows; one row with the reason where the bench gave no results."""
    records, out = folder / "records.jsonl", folder / "found.json"
    records.write_text("".join(json.dumps(record) + "\n" for record in case.records), encoding="utf-8")
    out.unlink(missing_ok=True)
    settings = [word for pair in case.settings.items() for word in ("--set", "=".join(pair))]
    words = [
        sys.executable, "-m", "modelgraft", "bench", case.graph, *settings,
        "--backend", case.backends, "--precision", case.precisions, "--records", str(records), "--output", case.output, "--threads", "1",
        "--rounds", str(rounds), "--cold", "0", "--out", str(out),
    ]  # fmt: skip
    done = subprocess.run(words, cwd=folder, env=measuring.environment(1, cache), capture_output=True, text=True, check=False)
    if not out.is_file():
        lines = done.stderr.strip().splitlines()
        return [{"case": case.title, "why": (lines[-1] if lines else f"it ended with {done.returncode}")[:300]}]
    return [row(case.title, cell) for cell in json.loads(out.read_text(encoding="utf-8"))["cells"]]


def row(title: str, cell: Mapping[str, Any]) -> Row:
    """A cell of `modelgraft bench`."""
    values = cell["values"]
    line: Row = {"case": title, "backend": values.get("backend"), "precision": values.get("precision")}
    if cell["state"] != "measured":
        reasons = "; ".join(dict.fromkeys(reason["text"] for reason in cell["reasons"]))
        return {**line, "why": f"{cell['state']}: {reasons}"[:300]}
    ratio = cell["ratio"] or {}
    return {
        **line,
        "wall_ms": _interval(cell["wall_s"], times=1000),
        "token_ms": _interval(cell["per_token_s"], times=1000),
        "weights_mb": cell["memory"]["measured"] / MB if cell["memory"]["measured"] else None,
        "wall": _interval(ratio.get("wall")) if ratio.get("verdict") != "baseline" else None,
        "cpu": _interval(ratio.get("cpu")) if ratio.get("verdict") != "baseline" else None,
        "parity": max(cell["parity"].values(), default=None),
        "agree": f"{cell['agreement']:.0%}" if cell["agreement"] is not None else None,
    }


def _interval(found: Mapping[str, Any] | None, *, times: float = 1.0) -> Ratio | float | None:
    """A figure with its interval, as the bench gives it; alone where there were too few rounds for one."""
    if found is None:
        return None
    value, low, high = (found[name] * times if found[name] is not None else None for name in ("value", "low", "high"))
    return value if low is None else Ratio(value, low, high, low, high, found["n"], "")


def rows(asked: Asked) -> list[Row]:
    """One case after the other; all use one cache, so that an export is made once."""
    layers, rounds = (1, 2) if asked.is_quick else (LAYERS, ROUNDS)
    subprocess.run([sys.executable, "-c", MAKE, str(asked.folder), str(layers)], cwd=measuring.ROOT, check=True, stdout=subprocess.DEVNULL)
    cache, found = with_downloads(asked.folder / "kept"), list[Row]()
    for case in cases(asked.folder, layers)[: 2 if asked.is_quick else None]:
        found += measured(case, asked.folder, cache, rounds)
        tables.told(
            f"  {case.title}: {', '.join(tables.shown(one.get('wall_ms')) or 'none' for one in found if one['case'] == case.title)}"
        )
    return found


TABLE = Table(
    name="backends",
    title="Backends by precision",
    says="One thread, by `modelgraft bench`: medians with their 95 % intervals, ratios to torch in float32 within rounds. Parity is the "
    "largest difference from that as a part of its largest number, agreement the part of the records with the same answer; random weights "
    "part sooner than trained ones. A combination that a backend does not have stands with the reason of the checker.",
    columns={
        "case": "case", "backend": "backend", "precision": "precision", "wall_ms": "wall ms", "token_ms": "ms per token",
        "wall": "wall ratio", "cpu": "CPU ratio", "weights_mb": "weights, MB", "parity": "off by", "agree": "same answers",
    },
    rows=rows,
    minutes=2.6,
)  # fmt: skip

if __name__ == "__main__":
    tables.alone(TABLE)
