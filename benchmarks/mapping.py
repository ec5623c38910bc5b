"""How fast `modelgraft map` goes through records, and what it holds, from 10 to 100,000 of them.

    python -m benchmarks.mapping [--minutes 2] [--quick] [--json]

The graph fills a template, which costs next to nothing: what is measured is reading, checking, batching and writing of records.
Each sample is the whole command in a process of its own. Beside it a plain loop of Python does the same with the json module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.measuring import Sample, Spread
from benchmarks.tables import Asked, Row, Table

SIZES = (10, 100, 1_000, 10_000, 100_000)
QUICK_SIZES = (10, 1_000)
ROUNDS = 5
TEMPLATE = "Question: {question} Answer: {answer}"
GRAPH = f"""
modelgraft: 1
name: label
inputs: {{question: text, answer: text}}
nodes:
  line: {{use: text/template, with: {{template: "{TEMPLATE}"}}, in: {{question: inputs.question, answer: inputs.answer}}}}
outputs: {{text: line}}
"""
PLAIN = f"""
import json, sys
with open(sys.argv[1]) as given, open(sys.argv[2], "w") as out:
    for line in given:
        out.write(json.dumps({{"text": "{TEMPLATE}".format(**json.loads(line))}}) + "\\n")
"""


def write_records(folder: Path, count: int) -> Path:
    """JSON lines of about 150 bytes, each another one."""
    path = folder / f"{count}.jsonl"
    answer = "a number of some size, which is said in a sentence of some length; " * 2
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"question": f"what is {number}?", "answer": answer}) + "\n" for number in range(count))
    return path


def process(words: Sequence[str], folder: Path, *, cache: Path | None = None) -> Sample:
    """Seconds, and the most MB, of a process of this Python that runs in a folder.

    Linux counts what the process that starts it holds as if it were its own, so that one must be small: it imports no torch.
    """
    start = time.perf_counter()
    one = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=measuring.environment(1, cache or folder / "cache"), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert one.stderr is not None
    said = one.stderr.read()
    _, status, used = os.wait4(one.pid, 0)
    one.returncode = os.waitstatus_to_exitcode(status)
    if one.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {one.returncode}: {said.strip()[-500:]}")
    return {"wall": time.perf_counter() - start, "cpu": used.ru_utime + used.ru_stime, "mb": used.ru_maxrss / 1024}


def mapped(folder: Path, count: int) -> Sample:
    """`modelgraft map` of so many records; every one must come out."""
    out = folder / "out.jsonl"
    for left in folder.glob("out.jsonl*"):
        left.unlink()
    sample = process(["-m", "modelgraft", "map", "label.yaml", f"{count}.jsonl", "--out", "out.jsonl"], folder)
    with out.open(encoding="utf-8") as lines:
        assert sum(1 for _ in lines) == count, "records were lost"
    return sample


def rows(asked: Asked) -> list[Row]:
    """A row for each number of records, measured in turn, the plain loop after its own."""
    folder, sizes = asked.folder, QUICK_SIZES if asked.is_quick else SIZES
    (folder / "label.yaml").write_text(GRAPH, encoding="utf-8")
    sides: dict[str, Callable[[], Sample]] = {}
    for size in sizes:
        path = write_records(folder, size)
        sides[f"{size}"] = lambda size=size: mapped(folder, size)
        sides[f"{size} plain"] = lambda path=path: process(["-c", PLAIN, str(path), "plain.jsonl"], folder)
    found = measuring.interleave(sides, 2 if asked.is_quick else ROUNDS, warm=0, seconds=asked.seconds, least=2)
    least = str(sizes[0])
    return [row(size, found[str(size)], found[f"{size} plain"], found[least], sizes[0]) for size in sizes]


def row(size: int, samples: Sequence[Sample], plain: Sequence[Sample], fewest: Sequence[Sample], count: int) -> Row:
    """The whole, and how many records a second go through beyond what a start costs: that is what the fewest records took."""
    beyond = [one["cpu"] - start["cpu"] for one, start in zip(samples, fewest, strict=True)]
    return {
        "records": size,
        "wall_s": measuring.spread_of(samples, "wall"),
        "cpu_s": measuring.spread_of(samples, "cpu"),
        "per_second": Spread.of((size - count) / one for one in beyond) if size > 100 * count and min(beyond) > 0 else None,
        "mb": measuring.spread_of(samples, "mb"),
        "more_mb": Spread.of(one["mb"] - start["mb"] for one, start in zip(samples, fewest, strict=True)),
        "plain_s": measuring.spread_of(plain, "cpu"),
        "plain_mb": measuring.spread_of(plain, "mb"),
    }


TABLE = Table(
    name="mapping",
    title="`modelgraft map`: records a second, and memory",
    says="Whole processes: one that fills a template with each record of a file of JSON lines. Records a second are those of CPU time "
    "beyond what ten records take; memory is the peak of the process, and beyond that of ten records. Plain: a loop of Python with the "
    "json module.",
    columns={
        "records": "records", "wall_s": "wall s", "cpu_s": "CPU s", "per_second": "records a CPU second", "mb": "MB",
        "more_mb": "MB more than for ten", "plain_s": "plain, CPU s", "plain_mb": "plain, MB",
    },
    rows=rows,
    minutes=0.9,
)  # fmt: skip

if __name__ == "__main__":
    tables.alone(TABLE)
