"""How long starts take: light commands, and processes to their first token, with nothing kept and with what the first has kept.

    python -m benchmarks.startup [--minutes 3] [--quick] [--json]

Light commands stand beside importing the libraries that they need. First tokens stand beside transformers on the same weights: a
first start finds downloads and nothing that was made of them (exports, converted files), a second what the first has kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, measuring, tables
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
LAYERS = 4  # of the random language model: an export takes a part of a minute
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


def to_first_token(asked: Asked) -> list[Row]:
    """Processes that load a language model of random weights and write one token: transformers, and the graph on each backend."""
    place = checkpoints.made_aside("llama", asked.folder, layers=1 if asked.is_quick else LAYERS)
    words = ["-m", "benchmarks.onnx", "--worker", "start-llama", "--folder", str(place), "--side"]

    def second(side: str) -> Callable[[], Sample]:
        return lambda: _started([*words, side], asked.folder / "kept")

    def first(side: str) -> Callable[[], Sample]:
        def run() -> Sample:
            shutil.rmtree(asked.folder / "empty", ignore_errors=True)
            return _started([*words, side], asked.folder / "empty")

        return run

    seconds = {f"{side}, second start": second(side) for side in ("theirs", "torch", "float32", "int8")}
    found = measuring.interleave(seconds, 2 if asked.is_quick else ROUNDS, seconds=asked.share(0.25))
    firsts = {f"{side}, first start": first(side) for side in (("float32",) if asked.is_quick else ("torch", "float32", "int8"))}
    once = measuring.interleave(firsts, 1 if asked.is_quick else 3, warm=0, seconds=asked.share(0.15), least=1)
    base = found["theirs, second start"]
    names = {"theirs": "transformers", "torch": "graph on torch", "float32": "graph on onnx, float32", "int8": "graph on onnx, int8"}
    every = {**found, **once}
    return [
        row(
            f"first token of LLaMA, {names[name.partition(',')[0]]},{name.partition(',')[2]}", samples, base[: len(samples)],
            of="" if samples is base else "transformers",
        )
        for name, samples in every.items()
    ]  # fmt: skip


def _started(words: Sequence[str], cache: Path) -> Sample:
    """A process with a cache of its own."""
    return process(words, measuring.ROOT, cache=cache)


def describing(asked: Asked) -> list[Row]:
    """The main job with its real weights, from the command to the sentence."""
    photo = asked.folder / "photo.png"
    process(["-c", PHOTO, str(photo)], measuring.ROOT, cache=asked.folder / "cache")
    words = ["-m", "modelgraft", "run", "describe", "--input", f"image={photo}"]
    name = "modelgraft run describe, real weights"

    def run(cache: Path) -> Sample:
        return _started(words, cache)

    def first() -> Sample:
        shutil.rmtree(asked.folder / "bare", ignore_errors=True)
        return run(with_downloads(asked.folder / "bare"))

    try:
        run(with_downloads(asked.folder / "used"))  # fetches what was never fetched
    except RuntimeError as error:
        return [{"start": name, "why": str(error)[-200:]}]
    sides = {"first start": first, "second start": lambda: run(asked.folder / "used")}
    found = measuring.interleave(sides, 1 if asked.is_quick else 5, warm=0, seconds=asked.share(0.25), least=1)
    return [
        row(f"{name}, {side}", samples, found["second start"], of="the second start" if side == "first start" else "")
        for side, samples in found.items()
    ]


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
    return [*light(asked), *to_first_token(asked), *describing(asked)]


TABLE = Table(
    name="startup",
    title="Starts: light commands, the first token, the main job",
    says="Whole processes, one thread. Light commands beside importing their libraries; first tokens of a random LLaMA 768 wide (four "
    "layers) beside transformers' second start. A first start finds nothing that was made of weights: it converts, exports and proves.",
    columns={"start": "start", "wall_s": "wall s", "cpu_s": "CPU s", "mb": "MB", "ratio": "ratio", "of": "to"},
    rows=rows,
    minutes=2.4,
)

if __name__ == "__main__":
    tables.alone(TABLE)
