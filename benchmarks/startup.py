"""How long starts take: light commands, and processes to their first token, with nothing kept and with what the first has kept.

    python -m benchmarks.startup [--minutes 3] [--quick] [--json]

Light commands stand beside importing the libraries that they need. First tokens stand beside transformers on the same weights: a
first start finds downloads and nothing that was made of them (exports, converted files), a second what the first has kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, measuring, onnx_sides, tables
from benchmarks.mapping import process
from benchmarks.measuring import Sample
from benchmarks.tables import Asked, Row, Table

LIBRARIES = "import pydantic, yaml, networkx, typer, rich"
COMMANDS = (
    ("--version",),
    ("--help",),
    ("check", "blip2"),
    ("plan", "blip2"),
    ("show", "blip2", "--format", "svg"),
    ("components",),
    ("plugins", "list"),
    ("graphs",),
    ("schema",),
    ("explain", "blip2", "qformer"),
)
ROUNDS = 9
THEIRS = "theirs"
SIDES = {
    THEIRS: "transformers", "torch": "graph on torch",
    **{precision: f"graph on onnx, {precision}" for precision in ("float32", "int8", "w8", "w4")},
}  # fmt: skip
MODELS: Mapping[str, tuple[str, int, Sequence[str]]] = {  # what is called how, its layers, its sides
    "llama": ("first token of LLaMA", 4, tuple(SIDES)),
    "vit": ("first output of ViT-B/16", 12, (THEIRS, "float32", "int8")),
}
WAYS: Mapping[str, Sequence[str]] = {
    "torch": (),
    **{f"onnx, {precision}": ("--backend", "onnx", "--precision", precision) for precision in ("float32", "w8")},
    "auto": ("--backend", "auto"),
}
PHOTO = "import sys; from PIL import Image; from skimage import data; Image.fromarray(data.chelsea()).save(sys.argv[1])"


def light(asked: Asked) -> list[Row]:
    """Whole processes of light commands."""
    base = f"python -c '{LIBRARIES}'"
    words: dict[str, list[str]] = {base: ["-c", LIBRARIES], "python -c 'import modelgraft'": ["-c", "import modelgraft"]}
    words |= {f"modelgraft {' '.join(command)}": ["-m", "modelgraft", *command] for command in COMMANDS[: 2 if asked.is_quick else None]}
    sides = {name: (lambda one=one: process(one, asked.folder)) for name, one in words.items()}
    found = measuring.interleave(sides, 2 if asked.is_quick else ROUNDS, seconds=asked.share(0.35))
    return [row(name, samples, found[base], of="its libraries" if name != base else "") for name, samples in found.items()]


def row(start: str, samples: Sequence[Sample], base: Sequence[Sample], *, of: str) -> Row:
    """A start, and its ratio to another in the same round."""
    return {
        "start": start,
        "wall_s": measuring.spread_of(samples, "wall"),
        "cpu_s": measuring.spread_of(samples, "cpu"),
        "mb": measuring.spread_of(samples, "mb"),
        "ratio": measuring.compared(samples, base, "wall") if of else None,
        "of": of,
    }


def to_first_answer(asked: Asked) -> list[Row]:
    """Processes that load a model of random weights and answer once: transformers, and the graph on each backend in each precision."""
    found: list[Row] = []
    for model, (what, layers, sides) in MODELS.items():
        place = checkpoints.made_aside(model, asked.folder, layers=1 if asked.is_quick else layers)
        words = ["-m", "benchmarks.startup", "--worker", model, str(place)]
        seconds = {side: partial(_started, [*words, side], asked.folder / f"kept-{model}") for side in sides}
        firsts = {side: partial(_first, [*words, side], asked.folder / "empty") for side in sides if side != THEIRS}
        if asked.is_quick:
            firsts = {side: run for side, run in firsts.items() if side == "float32"}
        later, missing = in_turn(seconds, 2 if asked.is_quick else ROUNDS, asked.share(0.1))
        once, _ = in_turn({side: run for side, run in firsts.items() if side in later}, 1 if asked.is_quick else 3, asked.share(0.1))
        base = later[THEIRS]
        for start, samples in (("first", once), ("second", later)):
            found += [
                row(f"{what}, {SIDES[side]}, {start} start", one, base[: len(one)], of="transformers" if one is not base else "")
                for side, one in samples.items()
            ]
        found += [{"start": f"{what}, {SIDES[side]}", "why": why} for side, why in missing.items()]
    return found


def in_turn(sides: Mapping[str, Callable[[], Sample]], rounds: int, seconds: float) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """Samples of sides that take turns, and why others have none: each is tried once before, which fills its cache."""
    works, missing = dict[str, Callable[[], Sample]](), dict[str, str]()
    for side, run in sides.items():
        try:
            run()
            works[side] = run
        except RuntimeError as error:
            missing[side] = str(error).strip().splitlines()[-1][-200:]
    return measuring.interleave(works, rounds, warm=0, seconds=seconds, least=1), missing


def _first(words: Sequence[str], cache: Path) -> Sample:
    """In a cache with nothing in it."""
    shutil.rmtree(cache, ignore_errors=True)
    return _started(words, cache)


def answer(model: str, folder: Path, side: str) -> None:
    """What a process does that starts and answers once."""
    if model == "vit":
        made = onnx_sides.their_encoder(model, folder) if side == THEIRS else onnx_sides.our_encoder(model, folder, side)
        made.run()
        return
    from benchmarks.onnx import first_token

    first_token(model, folder, side)


def _started(words: Sequence[str], cache: Path) -> Sample:
    """A process with a cache of its own."""
    return process(words, measuring.ROOT, cache=cache)


def describing(asked: Asked) -> list[Row]:
    """The main job with its real weights, from the command to the sentence, on both backends."""
    photo = asked.folder / "photo.png"
    process(["-c", PHOTO, str(photo)], measuring.ROOT, cache=asked.folder / "cache")
    words, found = ["-m", "modelgraft", "run", "describe", "--input", f"image={photo}"], list[Row]()
    for name, options in list(WAYS.items())[: 1 if asked.is_quick else None]:
        what, used, bare = f"modelgraft run describe, {name}", asked.folder / f"used-{len(found)}", asked.folder / "bare"

        def first(options: Sequence[str] = options, bare: Path = bare) -> Sample:
            shutil.rmtree(bare, ignore_errors=True)
            return _started([*words, *options], with_downloads(bare))

        def second(options: Sequence[str] = options, used: Path = used) -> Sample:
            return _started([*words, *options], with_downloads(used))

        later, missing = in_turn({"second": second}, 1 if asked.is_quick else 5, asked.share(0.05))
        if missing:
            found.append({"start": what, "why": missing["second"]})
            continue
        once = measuring.interleave({"first": first}, 1 if asked.is_quick else 2, warm=0, seconds=asked.share(0.05), least=1)["first"]
        rest = later["second"]
        found.append(row(f"{what}, first start", once, rest[: len(once)], of="its second start"))
        found.append(row(f"{what}, second start", rest, rest, of=""))
    return found


def with_downloads(cache: Path) -> Path:
    """An empty cache in which the downloads of this account are found: what was made of them is not."""
    usual = measuring.usual_cache() / "archives"
    usual.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "archives").exists():
        (cache / "archives").symlink_to(usual)
    return cache


def rows(asked: Asked) -> list[Row]:
    """All starts."""
    return [*light(asked), *to_first_answer(asked), *describing(asked)]


TABLE = Table(
    name="startup",
    title="Starts: light commands, the first token, the main job",
    says="Whole processes, one thread. Light commands beside importing their libraries; first answers of models of random weights (a LLaMA "
    "768 wide of four layers, a whole ViT-B/16) beside transformers' start. A first start finds nothing that was made of weights: it "
    "converts, exports and proves.",
    columns={"start": "start", "wall_s": "wall s", "cpu_s": "CPU s", "mb": "MB", "ratio": "ratio", "of": "to"},
    rows=rows,
    minutes=2.4,
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        answer(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    else:
        tables.alone(TABLE)
