"""Programs that people read pictures with, beside ours: the same weights, pictures and threads.

    python -m benchmarks.rivals_seeing [--minutes 3] [--models ViT-B/16,LLaVA] [--cases 1x1,1x8] [--only OpenVINO] [--quick] [--json]

ViT-B/16 from its pixels to its vectors, batches of 1 and 8, and a LLaVA of 125M widths from a picture to 20 tokens; random weights of
these sizes. Every program is a process that reads what its own builder made of the same checkpoint (`peers/seeing_weights.py`), and waits
as it does by itself. Sides of as many bits take turns, round by round, one at a time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, measuring, tables
from benchmarks.measuring import Sample
from benchmarks.peers import environment, seeing_weights
from benchmarks.peers.environment import Place
from benchmarks.peers.seeing import QUESTION, SEERS
from benchmarks.peers.weights import NotMade
from benchmarks.rivals import same
from benchmarks.tables import Asked, Row, Table, told
from benchmarks.workers import Worker

NEW, SIDE, PICTURES = 20, 224, 3  # tokens of an answer; pixels of a picture, which no program has to resize; how many take turns
ROUNDS, LEAST = 9, 3
OPENING_S = 900  # of a first answer: ours may export, a compiled one compiles
REST_S = 0.02  # before a sample: threads of the one before stop spinning
MANY = min(2, os.cpu_count() or 1)
BATCHES: Mapping[str, Sequence[int]] = {"ViT-B/16": (1, 8), "LLaVA": (1,)}
CASES = tuple((threads, batch) for threads in dict.fromkeys((MANY, 1)) for batch in (1, 8))  # threads, pictures in a batch
REFERENCE = "transformers"  # whose answers are compared with


@dataclass(frozen=True, slots=True)
class Side:
    """A program, the model that it runs, and the weights it reads; `cases` are those that are worth its time."""

    model: str
    program: str
    precision: str
    bits: int
    cases: Sequence[tuple[int, int]] = CASES

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model}: {self.program} {self.precision}"


SIDES = (
    Side("ViT-B/16", "modelgraft, onnx", "float32", 32),
    Side("ViT-B/16", "transformers", "float32", 32),
    Side("ViT-B/16", "transformers, compiled", "float32", 32, ((1, 1), (1, 8))),
    Side("ViT-B/16", "onnxruntime", "float32", 32),
    Side("ViT-B/16", "OpenVINO", "float32", 32),
    Side("ViT-B/16", "modelgraft, onnx", "int8", 8),
    Side("ViT-B/16", "onnxruntime", "int8", 8),
    Side("ViT-B/16", "OpenVINO", "int8", 8),
    Side("LLaVA", "modelgraft, onnx", "float32", 32),
    Side("LLaVA", "transformers", "float32", 32),
    Side("LLaVA", "transformers, compiled", "float32", 32, ((1, 1),)),
    Side("LLaVA", "OpenVINO", "float32", 32),
    Side("LLaVA", "modelgraft, onnx", "int8", 8),
)
OURS = "modelgraft, onnx"  # what the others of as many bits stand beside


@dataclass(slots=True)
class Measured:
    """What was found of a side: samples by case, MB, how its answers are beside transformers', or why there is nothing."""

    samples: dict[tuple[int, int], list[Sample]] = field(default_factory=dict)
    apart: list[float] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    why: str = ""


class Bench:
    """The sides of a run, and what they need: weights, pictures, a cache for exports, a folder for logs."""

    def __init__(self, asked: Asked, sides: Sequence[Side]) -> None:
        self.asked, self.found = asked, {side.name: Measured() for side in sides}
        self.places = {model: environment.found(seers) for model, seers in SEERS.items()}
        self.expected: dict[str, dict[int, str]] = {}
        self.vectors: dict[int, Any] = {}
        self.files: dict[str, str] = {}
        for side in sides:
            self.find(side)

    def find(self, side: Side) -> None:
        """What a side opens, or why there is nothing."""
        try:
            self.files[side.name] = seeing_weights.of(side.model, side.program, side.precision, build=False)
        except NotMade as why:
            self.found.setdefault(side.name, Measured()).why = str(why)

    def worker(self, side: Side, threads: int, *, is_timed: bool = True) -> Worker:
        """A process of a side; one that is not timed has threads that sleep while they wait."""
        place = self.places[side.model][side.program]
        words = [place.python, "-m", "benchmarks.peers.seeing", side.model, side.program, self.files[side.name], str(threads)]
        around = measuring.environment(threads, self.asked.folder / "kept")
        if is_timed:
            del around["OMP_WAIT_POLICY"]
        log = self.asked.folder / f"{side.name.replace(' ', '-').replace('/', '-')}-{threads}.log"
        return Worker(words, around, log=log, patience=OPENING_S)

    def request(self, side: Side, number: int, batch: int, *, is_kept: bool) -> dict[str, Any]:
        """What a side is asked in a round; `is_kept`: its vectors are wanted."""
        folder = self.asked.folder
        if side.model == "LLaVA":
            return {"picture": str(picture(folder, number % PICTURES)), "prompt": QUESTION, "new": NEW}
        into = str(folder / f"{side.program}-{side.precision}.npy".replace(" ", "-")) if is_kept else ""
        return {"given": str(pixels(folder, number % PICTURES, batch)), "into": into}

    def sample(self, side: Side, worker: Worker, number: int, batch: int, *, is_kept: bool = False) -> Sample | None:
        """One answer; None, and a reason noted, where there is none."""
        time.sleep(REST_S)
        request = self.request(side, number, batch, is_kept=is_kept)
        answer, noted = worker.ask(request), self.found[side.name]
        if "why" in answer:
            noted.why = answer["why"]
            return None
        if "texts" in answer:
            noted.texts[number % PICTURES] = " ".join(answer["texts"][0].split())
        elif request["into"]:
            self.compare(side, Path(request["into"]), batch)
        return {name: value for name, value in answer.items() if isinstance(value, float)}

    def compare(self, side: Side, file: Path, batch: int) -> None:
        """How far vectors are from those of transformers, relative to the largest of these."""
        import numpy as np

        found = np.load(file)
        if side.program == REFERENCE:
            self.vectors.setdefault(batch, found)
        if batch in self.vectors:
            expected = self.vectors[batch]
            self.found[side.name].apart.append(float(np.abs(found - expected).max() / np.abs(expected).max()))

    @contextmanager
    def opened(self, sides: Sequence[Side], threads: int) -> Iterator[dict[str, Worker]]:
        """Workers that have answered once."""
        workers: dict[str, Worker] = {}
        try:
            for side in sides:
                if not self.found[side.name].why:
                    start = time.monotonic()
                    workers[side.name] = self.worker(side, threads)
                    self.sample(side, workers[side.name], 0, 1)
                    told(f"  {side.name} answered after {time.monotonic() - start:.1f} s {self.found[side.name].why}")
            yield workers
        finally:
            for worker in workers.values():
                worker.close()

    def rounds(self, sides: Sequence[Side], workers: Mapping[str, Worker], case: tuple[int, int], seconds: float) -> None:
        """Sides take turns, in an order that turns round, until the seconds are over; before the first round all answer once."""
        end = time.monotonic() + seconds
        for number in range(-1, ROUNDS):
            if number >= (1 if self.asked.is_quick else LEAST) and time.monotonic() > end:
                break
            for side in sides if number % 2 or number < 0 else list(reversed(sides)):
                if case not in side.cases or self.found[side.name].why:
                    continue
                one = self.sample(side, workers[side.name], max(number, 0), case[1], is_kept=number < 0)
                if one is not None and number >= 0:
                    self.found[side.name].samples.setdefault(case, []).append(one)

    def refer(self, model: str, batches: Sequence[int]) -> None:
        """What transformers answers, which the others are compared with."""
        (side,) = (side for side in SIDES if side.model == model and side.program == REFERENCE)
        self.find(side)
        noted = self.found.setdefault(side.name, Measured())
        if noted.why:
            return
        worker = self.worker(side, MANY, is_timed=False)
        for batch in batches if model != "LLaVA" else range(PICTURES):
            self.sample(side, worker, batch if model == "LLaVA" else 0, 1 if model == "LLaVA" else batch, is_kept=True)
        worker.close()
        self.expected[model] = dict(noted.texts)


def pixels(folder: Path, number: int, batch: int) -> Path:
    """A file of random pixels, float32[batch 3 224 224]."""
    import numpy as np

    file = folder / f"pixels-{number}-{batch}.npy"
    if not file.is_file():
        np.save(file, np.random.default_rng(number).standard_normal((batch, 3, SIDE, SIDE), dtype=np.float32))
    return file


def picture(folder: Path, number: int) -> Path:
    """A file of a picture that has the size of the model's eye, uint8[224 224 3]."""
    import numpy as np

    file = folder / f"picture-{number}.npy"
    if not file.is_file():
        np.save(file, np.asarray(checkpoints.picture(number).resize((SIDE, SIDE))))
    return file


def measure(asked: Asked, sides: Sequence[Side], cases: Sequence[tuple[int, int]] = CASES) -> list[Row]:
    """Models and bits one after the other, each case in turn; then the rows."""
    bench = Bench(asked, sides)
    groups = [[side for side in sides if (side.model, side.bits) == key] for key in dict.fromkeys((one.model, one.bits) for one in sides)]
    plans = [(group, [case for case in cases if case[1] in BATCHES[group[0].model]]) for group in groups]
    weight = sum(case[1] for _, many in plans for case in many)
    for model in dict.fromkeys(side.model for side in sides):
        bench.refer(model, sorted({case[1] for case in cases if case[1] in BATCHES[model]}))
    for group, many in plans:
        for threads in dict.fromkeys(case[0] for case in many):
            with bench.opened([side for side in group if any(case[0] == threads for case in side.cases)], threads) as workers:
                for case in many:
                    if case[0] == threads:
                        bench.rounds(group, workers, case, asked.seconds * case[1] / weight)
                        told(f"  {group[0].model}, {group[0].bits} bits, {threads} threads, batch {case[1]}: {_line(bench, group, case)}")
    return [row(side, bench) for side in sides]


def _line(bench: Bench, group: Sequence[Side], case: tuple[int, int]) -> str:
    """Milliseconds of every side, for whoever waits."""
    found = {f"{side.program} {side.precision}": bench.found[side.name].samples.get(case, []) for side in group}
    middles = {name: 1000 * statistics.median(one["wall"] for one in samples) for name, samples in found.items() if samples}
    return ", ".join(f"{name} {middle:.1f} ms" for name, middle in middles.items())


def row(side: Side, bench: Bench) -> Row:
    """A side: milliseconds by case with how many times ours of as many bits, and the rest."""
    found, place = bench.found[side.name], bench.places[side.model].get(side.program, Place())
    how = ", ".join(part for part in (place.version, SEERS[side.model][side.program].how) if part)
    line: Row = {"model": side.model, "program": side.program, "how": how, "weights": side.precision}
    if found.why and not found.samples:
        return {**line, "why": found.why}
    own = bench.found.get(Side(side.model, OURS, side.precision, side.bits).name, Measured())
    for (threads, batch), samples in found.samples.items():
        key = f"{'many' if threads == MANY else 'one'}_{batch}"
        line[key] = measuring.spread_of(samples, "wall", times=1000)
        ours = own.samples.get((threads, batch), [])
        if ours and own is not found:
            line[f"{key}_ratio"] = measuring.compared(ours[: len(samples)], samples[: len(ours)], "wall")
    every = [one for samples in found.samples.values() for one in samples]
    line["mb"] = round(max((one["anonymous"] for one in every), default=0))
    line["same"] = same(found.texts, bench.expected.get(side.model, {})) if side.model == "LLaVA" else _apart(found.apart)
    return {**line, "why": found.why} if found.why else line


def _apart(found: Sequence[float]) -> str:
    return f"{max(found):.1e} apart" if found else ""


def rows(asked: Asked) -> list[Row]:
    """All sides; a trial takes the encoder in float32."""
    return measure(asked, [side for side in SIDES if not asked.is_quick or (side.model, side.bits) == ("ViT-B/16", 32)])


TABLE = Table(
    name="rivals_seeing",
    title="Rivals: an encoder and a whole model that sees",
    says="ViT-B/16 from pixels to vectors, and a LLaVA of 125M widths (ViT-B/16, a projector, a LLaMA of twelve layers) from a picture to "
    f"{NEW} tokens, greedy, with its processor; random weights, milliseconds of a call. Ratios are to modelgraft's onnx backend in the "
    "same precision, within rounds: above 1 the other is faster. Memory is the most that a process held that belongs to no file. Answers "
    "are compared with those of transformers: the largest difference of vectors relative to the largest of them; how many texts are "
    "equal, and which part is before they differ.",
    columns={
        "model": "model", "program": "program", "how": "version, how", "weights": "weights",
        "many_1": f"{MANY} threads, ms", "many_1_ratio": "times ours", "one_1": "1 thread, ms", "one_1_ratio": "times ours",
        "many_8": f"{MANY} threads, batch 8", "many_8_ratio": "times ours", "one_8": "1 thread, batch 8", "one_8_ratio": "times ours",
        "mb": "MB of its own", "same": "answers as transformers'",
    },
    rows=rows,
    minutes=3.0,
    parts=[("--models", model) for model in SEERS],
)  # fmt: skip


def main() -> None:
    """A part of the table, or all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=TABLE.minutes, help="of the rounds")
    parser.add_argument("--models", default=",".join(SEERS))
    parser.add_argument("--bits", default="32,8", help="of weights")
    parser.add_argument("--cases", default=",".join(f"{threads}x{batch}" for threads, batch in CASES), help="threads x batch")
    parser.add_argument("--only", default="", help="programs whose name begins so, parted by |")
    parser.add_argument("--quick", action="store_true", help="whether it works, not how fast it is")
    parser.add_argument("--json", action="store_true", help="the rows for programs")
    parser.add_argument("--kept", type=Path, help="a cache of exports that stays; by default a new one")
    options = parser.parse_args()
    models, bits, only = options.models.split(","), {int(word) for word in options.bits.split(",")}, tuple(options.only.split("|"))
    sides = [side for side in SIDES if side.model in models and side.bits in bits and side.program.startswith(only)]
    cases = [(int(threads), int(batch)) for threads, _, batch in (word.partition("x") for word in options.cases.split(","))]
    tables.printed(TABLE, lambda asked: measure(asked, sides, cases), options)


if __name__ == "__main__":
    main()
