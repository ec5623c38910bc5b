"""Questions about pictures: eight about one, and one about each of eight at once, beside transformers' own `generate`.

    python -m benchmarks.questions [--minutes 4] [--quick] [--json]

`eight questions`: the graph is asked eight times about the same picture; what its eye saw, and what the prompts have in common, is kept
from one question to the next. The other side calls processor and `generate` eight times. Goal: at least three times as fast. `eight
pictures`: a batch of eight different pictures, each with a question, beside transformers' batch. Goal: at least as fast. Weights are
random and the same; what both write must be equal before anything is timed.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, composed, measuring, tables
from benchmarks.tables import Asked, Row, Table, Timer

KINDS = ("llava", "blip2")
CASES = ("eight questions", "eight pictures")
COUNT, TOKENS = 8, 8
QUESTIONS = tuple(f"Question: what is {what}? Answer:" for what in ("red", "big", "near", "far", "new", "odd", "left", "right"))
ROUNDS, LEAST, STARTING_S = 20, 3, 25
Answers = Callable[[], list[str]]


def graph(kind: str, folder: Path, case: str) -> Answers:
    """The graph, as it is opened by default: it keeps what it may keep, and every round is about other pictures."""
    import modelgraft as mg

    pipeline = mg.open(kind, params={"checkpoint": str(folder), "max_new_tokens": TOKENS}, offline=True, backend="torch")
    shown = _shown()
    if case == "eight pictures":
        return lambda: pipeline.run(image=[next(shown) for _ in range(COUNT)], prompt=list(QUESTIONS))["text"]

    def asked() -> list[str]:
        picture = next(shown)
        return [pipeline.run(image=picture, prompt=question)["text"] for question in QUESTIONS]

    return asked


def whole(kind: str, folder: Path, case: str) -> Answers:
    """Transformers: processor, generate, and the texts of the new tokens."""
    import transformers

    classes = {"blip2": transformers.Blip2ForConditionalGeneration, "llava": transformers.LlavaForConditionalGeneration}
    model, processor = classes[kind].from_pretrained(folder).eval(), transformers.AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    shown, texts = _shown(), [composed.TEMPLATES[kind].format(question) for question in QUESTIONS]

    def answer(pictures: list[Any], asked: list[str]) -> list[str]:
        given = processor(images=pictures, text=asked, padding=True, return_tensors="pt")
        ids = model.generate(**given, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
        told: list[str] = processor.batch_decode(ids[:, -TOKENS:], skip_special_tokens=True)
        return told

    if case == "eight pictures":
        return lambda: answer([next(shown) for _ in range(COUNT)], texts)

    def alone() -> list[str]:
        picture = next(shown)
        return [answer([picture], [text])[0] for text in texts]

    return alone


def _shown() -> Any:
    """Pictures in turn, the same for both sides, none again within a run."""
    return (checkpoints.picture(number) for number in itertools.count())


def work(kind: str, case: str, folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Both sides in this process: their samples, or how their answers differ."""
    sides = {"theirs": whole(kind, folder, case), "ours": graph(kind, folder, case)}
    first = {name: [text.split() for text in run()] for name, run in sides.items()}
    if first["theirs"] != first["ours"]:
        return {"why": f"the answers differ: {first}"}
    alternatives = {name: lambda run=run: measuring.timed(run) for name, run in sides.items()}
    return {"samples": measuring.interleave(alternatives, rounds, warm=1, seconds=seconds, least=min(rounds, LEAST))}


def rows(asked: Asked) -> list[Row]:
    """A row for each model and case."""
    folder, timer, found = asked.folder / "questions", Timer(asked.seconds), list[Row]()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    places = {kind: checkpoints.make(kind, folder, layers=3 if asked.is_quick else checkpoints.LAYERS) for kind in KINDS}
    pairs = [(kind, case) for kind in KINDS for case in CASES]
    for number, (kind, case) in enumerate(pairs):
        share = max(0.0, timer.left() / (len(pairs) - number) - STARTING_S)
        found.append({"model": kind, "case": case, **measured(kind, case, places[kind], share, 2 if asked.is_quick else ROUNDS)})
        tables.told(f"  {kind}, {case}: {tables.shown(found[-1].get('wall')) or found[-1]['why']}")
    return found


def measured(kind: str, case: str, folder: Path, seconds: float, rounds: int) -> Row:
    """The figures of a case, or why there are none."""
    words = ("--worker", kind, case, str(folder), f"{seconds:.1f}", str(rounds))
    try:
        found = measuring.child("questions", *words, threads=1, cache=folder.parent / "cache")
    except RuntimeError as error:
        return {"why": str(error).splitlines()[-1][:300]}
    return {"why": found["why"]} if "why" in found else measuring.side_by_side(found["samples"]["ours"], found["samples"]["theirs"])


TABLE = Table(
    name="questions",
    title="Questions about pictures: a graph, beside transformers' generate",
    says=f"Torch, float32, one thread, random weights, {TOKENS} new tokens. Eight questions about one picture, goal at most 0.33; eight "
    "pictures with a question each, at once, goal at most 1.0.",
    columns={
        "model": "model",
        "case": "case",
        "theirs_ms": "transformers, ms",
        "ours_ms": "graph, ms",
        "wall": "wall ratio",
        "cpu": "CPU ratio",
        "rounds": "rounds",
    },
    rows=rows,
    minutes=4.0,
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _, _, named, what, where, seconds_given, most = sys.argv
        print(json.dumps(work(named, what, Path(where), float(seconds_given), int(most))))
    else:
        tables.alone(TABLE)
