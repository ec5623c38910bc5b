"""BLIP-2, LLaVA and IDEFICS put together from parts, beside the same models whole: time and memory, on torch.

    python benchmarks/composed.py [--rounds 15] [--models blip2,llava] [--threads 1] [--tokens 20] [--quick] [--json]

The graphs `blip2`, `llava` and (with --models) `idefics`, and transformers' own `generate`, its processor included, answer about
the same pictures with the same weights, in turn within one process; tokens must be equal. Memory is the peak of a process that
imports, loads and answers once. Ratios are ours to theirs, round by round; the goals are 1.05 for time and for memory. See README.md
here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a file: its folder, whose onnx.py would stand before the package onnx, goes
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, measuring
from benchmarks.measuring import Sample, Spread

GOAL = 1.05
ASKED = "Question: what do you see in the picture? Answer:"
TEMPLATES = {"blip2": "{}", "idefics": "{}", "llava": "USER: <image>\n{} ASSISTANT:"}  # what the graph's own template makes of a prompt
Answer = Callable[[], str]  # about another picture at every call, so that nothing of the last answer can be used again


def pictures() -> Iterator[Any]:
    """Three pictures in turn, the same for both sides."""
    return itertools.cycle([checkpoints.picture(number) for number in range(3)])


def ours(model: str, folder: Path, tokens: int, *, options: dict[str, Any] | None = None) -> Answer:
    """The graph; nothing that it computes is kept from one answer to the next."""
    import modelgraft as mg

    graph = mg.load(model, params={"checkpoint": str(folder), "max_new_tokens": tokens})
    pipeline = mg.open(graph, cache_bytes=0, offline=True, **(options or {"backend": "torch"}))
    shown = pictures()
    return lambda: pipeline.run(image=next(shown), prompt=ASKED)["text"]


def theirs(model: str, folder: Path, tokens: int) -> Answer:
    """Transformers: processor, generate, and the text of the new tokens."""
    import transformers

    kinds = {
        "blip2": transformers.Blip2ForConditionalGeneration,
        "idefics": transformers.IdeficsForVisionText2Text,
        "llava": transformers.LlavaForConditionalGeneration,
    }
    whole, processor = kinds[model].from_pretrained(folder).eval(), transformers.AutoProcessor.from_pretrained(folder)
    shown, asked = pictures(), TEMPLATES[model].format(ASKED)

    def answer() -> str:
        given = processor(images=next(shown), text=asked, return_tensors="pt")
        ids = whole.generate(**given, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        return processor.batch_decode(ids[:, -tokens:], skip_special_tokens=True)[0]

    return answer


SIDES = {"theirs": theirs, "ours": ours}


# -- workers ------------------------------------------------------------------------------------------------------------


def measure_time(model: str, folder: Path, tokens: int, rounds: int) -> dict[str, Any]:
    """Both sides in turn, after their answers were found equal."""
    answers = {name: side(model, folder, tokens) for name, side in SIDES.items()}
    texts = {name: answer() for name, answer in answers.items()}
    if texts["ours"].split() != texts["theirs"].split():
        raise SystemExit(f"{model}: the answers differ: {texts}")
    assert len(texts["ours"].split()) > tokens // 2, "a random model writes words"

    def sampled(answer: Answer) -> Callable[[], Sample]:
        return lambda: measuring.timed(answer)

    found = measuring.interleave({name: sampled(answer) for name, answer in answers.items()}, rounds)
    return {"samples": found, "load": measuring.load()}


def measure_memory(model: str, folder: Path, tokens: int, side: str) -> Sample:
    """One side, once, in this process."""

    def load_and_answer() -> None:
        SIDES[side](model, folder, tokens)()

    return measuring.with_peaks(load_and_answer)


# -- the benchmark ------------------------------------------------------------------------------------------------------


def measure(model: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The row of one model."""
    tokens, layers = str(options.tokens), 3 if options.quick else checkpoints.LAYERS
    place = checkpoints.make(model, folder, layers=layers)
    words = ("--model", model, "--folder", str(place), "--tokens", tokens, "--rounds", str(options.rounds))

    def run(*more: str) -> Any:
        return measuring.child("composed", *words, *more, threads=options.threads, cache=folder / "cache")

    time = run("--worker", "time")
    sizes = {side: [run("--worker", side) for _ in range(options.memory_rounds)] for side in SIDES}
    samples = time["samples"]
    return {
        "model": model,
        "threads": options.threads,
        "layers": layers,
        "load": time["load"],
        "seconds": {side: Spread.of(one["wall"] for one in samples[side]) for side in SIDES},
        "wall": measuring.ratio(samples["ours"], samples["theirs"], "wall"),
        "cpu": measuring.ratio(samples["ours"], samples["theirs"], "cpu"),
        "megabytes": {side: Spread.of(one["peak"] for one in sizes[side]) for side in SIDES},
        "peak": measuring.ratio(sizes["ours"], sizes["theirs"], "peak"),
        "anonymous": measuring.ratio(sizes["ours"], sizes["theirs"], "anonymous"),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the tables."""
    headings = ("model", "theirs s", "ours s", "wall", "CPU", "goal", "theirs MB", "ours MB", "peak", "anonymous", "load")
    cells = [
        (
            row["model"], str(row["seconds"]["theirs"]), str(row["seconds"]["ours"]), str(row["wall"]), str(row["cpu"]), f"<= {GOAL}",
            f"{row['megabytes']['theirs'].median:.0f}", f"{row['megabytes']['ours'].median:.0f}", str(row["peak"]), str(row["anonymous"]),
            f"{row['load']:.1f}",
        )
        for row in rows
    ]  # fmt: skip
    measuring.print_table(headings, cells)
    print("ratios are ours to theirs, round by round: median (lowest tenth - highest tenth); the tokens of both were equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--models", default="blip2,llava")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="three layers and five rounds: whether it works, not how fast it is")
    parser.add_argument("--json", action="store_true")
    for hidden in ("--worker", "--model", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rounds = options.rounds or (5 if options.quick else 15)
    options.memory_rounds = 1 if options.quick else 3
    if options.worker:
        place = Path(options.folder)
        if options.worker == "time":
            print(json.dumps(measure_time(options.model, place, options.tokens, options.rounds)))
        else:
            print(json.dumps(measure_memory(options.model, place, options.tokens, options.worker)))
        return
    with tempfile.TemporaryDirectory(prefix="modelgraft-bench-") as folder:
        before = measuring.surroundings()
        rows = [measure(model, options, Path(folder)) for model in options.models.split(",")]
    if options.json:
        print(json.dumps({"surroundings": before, "rows": rows}, indent=1, default=lambda spread: [spread.median, spread.low, spread.high]))
    else:
        print(f"{before}, {options.threads} threads")
        show(rows)


if __name__ == "__main__":
    main()
