"""Programs that people run language models with, beside ours: the same weights, prompts and threads.

    python -m benchmarks.rivals [--minutes 4] [--bits 32,8,4] [--cases 2x1,1x1,2x4,start] [--only llama,modelgraft] [--quick] [--json]

SmolLM2-135M, real weights; prompts of 256 tokens, 32 new ones. Every program is a process of the environment that pins it
(`peers/environment.py`), reads weights that its own builder made of the same numbers (`peers/weights.py`), and waits as it does by
itself: nothing is said to it but how many threads it has. Sides of as many bits take turns, round by round, one at a time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
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

from benchmarks import measuring, tables
from benchmarks.peers import environment, weights
from benchmarks.peers.environment import Place
from benchmarks.peers.programs import PROGRAMS
from benchmarks.tables import Asked, Row, Table, told
from benchmarks.workers import Worker, asked_once

LENGTH, NEW, PROMPTS = 256, 32, 8  # tokens of a prompt, of an answer; how many prompts take turns
ROUNDS, LEAST = PROMPTS - 1, 3  # no prompt comes twice, the first answer's included: ours keeps beginnings that it has read
OPENING_S = 900  # of a first answer: ours may export, a compiled one compiles
REST_S = 0.02  # before a sample: threads of the one before stop spinning
MANY = min(2, os.cpu_count() or 1)
CASES = ((MANY, 1), (MANY, 4), (1, 1))  # threads, prompts in a batch
TEXTS = ("README.md", "graphs/README.md", "plugins/README.md", "CONTRIBUTING.md")  # that prompts are cut from


@dataclass(frozen=True, slots=True)
class Side:
    """A program, and the weights it reads; `cases` are those that are worth its time."""

    program: str
    precision: str
    bits: int
    cases: Sequence[tuple[int, int]] = CASES

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.program} {self.precision}"


OURS = {32: "modelgraft, onnx float32", 8: "modelgraft, onnx w8", 4: "modelgraft, onnx w4"}  # what the others of as many bits stand beside
REFERENCE = "transformers"  # whose texts are compared with
SIDES = (
    Side("modelgraft, onnx", "float32", 32),
    Side("modelgraft, torch", "float32", 32, ((MANY, 1),)),
    Side("transformers", "float32", 32),
    Side("transformers, compiled", "float32", 32, ((MANY, 1),)),
    Side("modelgraft, llamacpp", "f16", 32),
    Side("llama.cpp", "f16", 32),  # it keeps 16 bits of numbers that have no more
    Side("onnxruntime-genai", "float32", 32),
    Side("mobius", "float32", 32, ((MANY, 1),)),
    Side("OpenVINO", "f16", 32),
    Side("CTranslate2", "float32", 32),
    Side("modelgraft, onnx", "w8", 8),
    Side("modelgraft, onnx", "int8", 8),
    Side("modelgraft, llamacpp", "q8_0", 8),
    Side("llama.cpp", "q8_0", 8),
    Side("onnxruntime-genai", "int8", 8),
    Side("OpenVINO", "q8_0", 8),
    Side("CTranslate2", "int8", 8),
    Side("modelgraft, onnx", "w4", 4),
    Side("modelgraft, onnx", "w4, anew", 4),
    Side("modelgraft, llamacpp", "q4_1", 4),
    Side("llama.cpp", "q4_0", 4),
    Side("llama.cpp", "q4_1", 4),
    Side("onnxruntime-genai", "int4", 4),
    Side("mobius", "q4", 4),
    Side("OpenVINO", "q4_1", 4),
)


def prompts(tokenizer: Path) -> list[dict[str, Any]]:
    """Pieces of the project's own pages, of as many tokens each; every one begins with another token, so that no beginning is kept."""
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(tokenizer))
    pages = " ".join((measuring.ROOT / page).read_text(encoding="utf-8") for page in TEXTS)
    plain = re.sub(r"\s+", " ", re.sub(r"[`|*#\-]+", " ", pages)).split(" ")
    found: list[dict[str, Any]] = []
    for start in range(0, len(plain) - 2 * LENGTH, 61):
        ids = words.encode(" ".join(plain[start : start + 2 * LENGTH]), add_special_tokens=False).ids[:LENGTH]
        text = words.decode(ids)
        is_same = words.encode(text, add_special_tokens=False).ids == ids
        if len(ids) == LENGTH and is_same and ids[0] not in {other["ids"][0] for other in found}:
            found.append({"text": text, "ids": ids})
        if len(found) == PROMPTS:
            return found
    raise RuntimeError(f"the pages give {len(found)} prompts of {LENGTH} tokens, and {PROMPTS} are wanted")


@dataclass(slots=True)
class Measured:
    """What was found of a side: samples by case, starts, its last texts by prompt, or why there is nothing."""

    samples: dict[tuple[int, int], list[dict[str, float]]] = field(default_factory=dict)
    starts: list[dict[str, float]] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    why: str = ""


class Bench:
    """The sides of a run, and what they need: weights, prompts, a cache for exports, a folder for logs."""

    def __init__(self, asked: Asked, sides: Sequence[Side]) -> None:
        from tokenizers import Tokenizer

        from benchmarks.startup import with_downloads

        self.asked, self.cache = asked, with_downloads(asked.folder / "kept")
        self.model = weights.original(self.cache)
        self.words = Tokenizer.from_file(str(self.model.checkpoint / "tokenizer.json"))
        self.prompts = prompts(self.model.checkpoint / "tokenizer.json")
        self.found = {side.name: Measured() for side in sides}
        self.places = environment.found(PROGRAMS)
        self.files: dict[str, str] = {}
        self.exported: set[str] = set()
        for side in sides:
            try:
                self.files[side.name] = weights.of(side.program, side.precision, self.model, build=False)
            except weights.NotMade as why:
                self.found[side.name].why = str(why)

    def worker(self, side: Side, threads: int, *, is_timed: bool = True) -> Worker:
        """A process of a side; one that is not timed has threads that sleep while they wait."""
        words = [self.places[side.program].python, "-m", "benchmarks.peers.programs", side.program, self.files[side.name], str(threads)]
        around = measuring.environment(threads, self.cache)
        if is_timed:
            del around["OMP_WAIT_POLICY"]
        log = self.asked.folder / f"{side.name.replace(' ', '-')}-{threads}.log"
        return Worker(words, around, log=log, patience=OPENING_S)

    def given(self, number: int, batch: int) -> list[int]:
        """The prompts of a round."""
        return [(number * batch + row) % PROMPTS for row in range(batch)]

    def sample(self, side: Side, worker: Worker, number: int, batch: int, *, new: int = NEW) -> dict[str, float] | None:
        """One answer; None, and a reason noted, where there is none."""
        time.sleep(REST_S)
        which = self.given(number, batch)
        answer = worker.ask({"prompts": [self.prompts[index] for index in which], "new": new})
        return self.kept(side, answer, which)

    def kept(self, side: Side, answer: dict[str, Any], which: Sequence[int]) -> dict[str, float] | None:
        """The figures of an answer; its texts are noted."""
        if "why" in answer:
            self.found[side.name].why = answer["why"]
            return None
        texts = answer.get("texts") or [self.words.decode(row) for row in answer["ids"]]
        self.found[side.name].texts.update(zip(which, (text.strip() for text in texts), strict=True))
        return {name: value for name, value in answer.items() if isinstance(value, float)}

    @contextmanager
    def opened(self, sides: Sequence[Side], threads: int) -> Iterator[dict[str, Worker]]:
        """Workers that have answered once, from exports that were there before they began: what exporting holds is not measured."""
        workers: dict[str, Worker] = {}
        try:
            for side in sides:
                self.made(side, threads)
                if not self.found[side.name].why:
                    start = time.monotonic()
                    workers[side.name] = self.worker(side, threads)
                    self.sample(side, workers[side.name], PROMPTS - 1, 1)
                    told(f"  {side.name} answered after {time.monotonic() - start:.1f} s {self.found[side.name].why}")
            yield workers
        finally:
            for worker in workers.values():
                worker.close()

    def made(self, side: Side, threads: int) -> None:
        """An answer of a process that is let go of: it leaves behind what ours makes once, as builders of the others did before."""
        if side.name in self.exported or not side.program.startswith("modelgraft") or self.found[side.name].why:
            return
        start, worker = time.monotonic(), self.worker(side, threads)
        self.sample(side, worker, PROMPTS - 1, 1)
        worker.close()
        self.exported.add(side.name)
        told(f"  {side.name} was made in {time.monotonic() - start:.1f} s {self.found[side.name].why}")

    def rounds(self, sides: Sequence[Side], workers: Mapping[str, Worker], case: tuple[int, int], seconds: float) -> None:
        """Sides take turns, in an order that turns round, until the seconds are over."""
        batch, end = case[1], time.monotonic() + seconds
        for number in range(-1 if batch > 1 else 0, ROUNDS):  # a batch of another size is tried once before
            if number >= (1 if self.asked.is_quick else LEAST) and time.monotonic() > end:
                break
            for side in sides if number % 2 else list(reversed(sides)):
                if case not in side.cases or self.found[side.name].why:
                    continue
                one = self.sample(side, workers[side.name], number % PROMPTS, batch)
                if one is not None and number >= 0:
                    self.found[side.name].samples.setdefault(case, []).append(one)

    def starts(self, sides: Sequence[Side], seconds: float) -> None:
        """Processes, from their start to the first token of a prompt."""
        end = time.monotonic() + seconds
        for number in range(1 if self.asked.is_quick else ROUNDS):
            if number >= LEAST and time.monotonic() > end:
                break
            for side in sides:
                if self.found[side.name].why or "compiled" in side.program:
                    continue
                since, which = time.perf_counter(), self.given(number, 1)
                request = {"prompts": [self.prompts[which[0]]], "new": 1}
                answer = asked_once(self.worker(side, MANY), request, since)
                if "why" not in answer:
                    self.found[side.name].starts.append(answer)

    def reference(self) -> dict[int, str]:
        """What transformers writes after every prompt; noted in the cache, beside the prompts."""
        kept, prompts = self.cache / "reference.json", [prompt["ids"] for prompt in self.prompts]
        if kept.is_file() and (noted := json.loads(kept.read_text(encoding="utf-8")))["prompts"] == prompts:
            return dict(enumerate(noted["texts"]))
        texts = self._referred()
        if len(texts) == len(prompts):
            kept.write_text(json.dumps({"prompts": prompts, "texts": [texts[index] for index in range(PROMPTS)]}), encoding="utf-8")
        return texts

    def _referred(self) -> dict[int, str]:
        (side,) = (side for side in SIDES if side.program == REFERENCE)
        self.files[side.name] = weights.of(side.program, side.precision, self.model)
        noted = self.found.setdefault(side.name, Measured())
        worker = self.worker(side, MANY, is_timed=False)
        for number in range(PROMPTS // 4):
            self.sample(side, worker, number, 4)
        worker.close()
        return dict(noted.texts)


def measure(asked: Asked, sides: Sequence[Side], cases: Sequence[tuple[int, int] | str] = (*CASES, "start")) -> list[Row]:
    """Groups of as many bits one after the other, each case in turn; then the rows."""
    bench = Bench(asked, sides)
    expected = bench.reference()
    groups = [[side for side in sides if side.bits == bits] for bits in OURS]
    groups = [group for group in groups if group]
    share = asked.seconds / max(1, len(groups) * len(cases))
    for group in groups:
        for threads in sorted({case[0] for case in cases if isinstance(case, tuple)}, reverse=True):
            with bench.opened([side for side in group if any(case[0] == threads for case in side.cases)], threads) as workers:
                for case in cases:
                    if isinstance(case, tuple) and case[0] == threads:
                        bench.rounds(group, workers, case, share)
                        told(f"  {group[0].bits} bits, {threads} threads, batch {case[1]}: {_line(bench, group, case)}")
        if "start" in cases:
            bench.starts(group, share)
    return [row(side, bench.found, bench.places[side.program], expected) for side in sides]


def _line(bench: Bench, group: Sequence[Side], case: tuple[int, int]) -> str:
    """Tokens a second of every side, for whoever waits."""
    found = {side.name: bench.found[side.name].samples.get(case, []) for side in group}
    speeds = {name: statistics.median(_speed(one, case[1]) for one in samples) for name, samples in found.items() if samples}
    return ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())


def _speed(sample: Mapping[str, float], batch: int) -> float:
    return batch * (NEW - 1) / sample["decode"]


def row(side: Side, every: Mapping[str, Measured], place: Place, expected: Mapping[int, str]) -> Row:
    """A side: tokens a second by case with how many times ours of as many bits, and the rest."""
    found, own = every[side.name], every.get(OURS[side.bits], Measured())
    how = ", ".join(part for part in (place.version, PROGRAMS[side.program].how) if part)
    line: Row = {"program": side.program, "how": how, "weights": side.precision}
    if found.why and not found.samples:
        return {**line, "why": found.why}
    for (threads, batch), samples in found.samples.items():
        key = _key(threads, batch)
        line[key] = measuring.Spread.of(_speed(one, batch) for one in samples)
        ours = own.samples.get((threads, batch), [])
        if ours and own is not found:
            line[f"{key}_ratio"] = measuring.compared(ours[: len(samples)], samples[: len(ours)], "decode")
    first = found.samples.get((MANY, 1), [])
    if first:
        line["prompt"] = measuring.Spread.of(LENGTH / one["prefill"] for one in first)
        line["mb"] = round(max(one["anonymous"] for one in first))
    if found.starts:
        line["start_s"] = measuring.spread_of(found.starts, "wall")
    line["same"] = same(found.texts, expected)
    return {**line, "why": found.why} if found.why else line


def _key(threads: int, batch: int) -> str:
    return f"many_{batch}" if threads == MANY else f"one_{batch}"


def same(texts: Mapping[int, str], expected: Mapping[int, str]) -> str:
    """How many texts are those of the reference, and which part of a text is, on average, before it parts from it."""
    both = [(texts[index], expected[index]) for index in texts if index in expected]
    if not both:
        return ""
    parts = [
        sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*pair, strict=False))) / max(len(pair[1]), 1)
        for pair in both
    ]
    return f"{sum(one == other for one, other in both)} of {len(both)}, {statistics.mean(parts):.0%}"


def rows(asked: Asked) -> list[Row]:
    """All sides; a trial takes ours and those of 4 bits."""
    return measure(asked, [side for side in SIDES if not asked.is_quick or side.bits == 4])


TABLE = Table(
    name="rivals",
    title="Rivals: whole programs that run language models",
    says=f"SmolLM2-135M, real weights, prompts of {LENGTH} tokens and {NEW} new ones, greedy; tokens a second after the first. Ratios are "
    "to modelgraft's onnx backend with weights of as many bits (float32, w8, w4), within rounds: above 1 the other is faster. A start is "
    "from a process to the first token behind a text, with everything made before; memory is what a process holds that belongs to no "
    "file. Texts are compared with those of transformers: how many are equal, and which part is before they differ.",
    columns={
        "program": "program", "how": "version, how", "weights": "weights", "many_1": f"{MANY} threads", "many_1_ratio": "times ours",
        "one_1": "1 thread", "one_1_ratio": "times ours", "many_4": f"{MANY} threads, batch 4", "many_4_ratio": "times ours",
        "prompt": "prompt, tokens/s", "start_s": "start, s", "mb": "MB of its own", "same": "texts as transformers'",
    },
    rows=rows,
    minutes=3.0,
    parts=[("--bits", str(bits)) for bits in OURS],
)  # fmt: skip


def main() -> None:
    """A part of the table, or all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=TABLE.minutes, help="of the rounds")
    parser.add_argument("--bits", default="32,8,4", help="of weights")
    parser.add_argument("--cases", default=",".join([*(f"{threads}x{batch}" for threads, batch in CASES), "start"]), help="threads x batch")
    parser.add_argument("--only", default="", help="sides whose name begins so, parted by |")
    parser.add_argument("--quick", action="store_true", help="whether it works, not how fast it is")
    parser.add_argument("--json", action="store_true", help="the rows for programs")
    parser.add_argument("--kept", type=Path, help="a cache of exports that stays; by default a new one")
    options = parser.parse_args()
    bits = {int(word) for word in options.bits.split(",")}
    sides = [side for side in SIDES if side.bits in bits and side.name.startswith(tuple(options.only.split("|")))]
    cases = [word if word == "start" else tuple(int(part) for part in word.split("x")) for word in options.cases.split(",")]
    tables.printed(TABLE, lambda asked: measure(asked, sides, cases), options)


if __name__ == "__main__":
    main()
