"""Drawings on disk: made once, and listed in splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelgraft.commands import file_aside, json_text
from modelgraft.plugin import InputError
from modelgraft_plugins.drawings.naming import Concept
from modelgraft_plugins.drawings.rendering import is_whole

JUDGES = ("test", "held_out")
Tell = Callable[[int, int, int], None]  # how many drawings are done, how many of them could not be drawn, and how many there are


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing that is to be made: what a line of the data says of it, and the icon that it is."""

    image: str  # from the folder of the size on
    concept: Concept
    vendor: str
    split: str
    icon: str

    def line(self) -> dict[str, Any]:
        """The line of the data."""
        about = {"caption": self.concept.caption, "keywords": list(self.concept.keywords), "vendor": self.vendor}
        return {"image": self.image, **about, "concept": self.concept.code, "group": self.concept.group, "split": self.split}


def draw(drawings: Sequence[Drawing], folder: Path, png_of: Callable[[Drawing], bytes], tell: Tell) -> Iterator[tuple[str, str]]:
    """Draw what is not there; gives each drawing that could not be made, and why. `png_of` may raise InputError."""
    failed = 0
    for done, drawing in enumerate(drawings, 1):
        path = folder / drawing.image
        try:
            if not (path.is_file() and is_whole(path.read_bytes())):
                _write(path, png_of(drawing))
        except InputError as error:
            failed += 1
            yield drawing.image, str(error)
        tell(done, failed, len(drawings))


def _write(path: Path, png: bytes) -> None:
    """Write a picture in place: there are thousands of small files, and `is_whole` finds the half that a kill leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)


def list_splits(folder: Path, splits: Sequence[str], drawings: Sequence[Drawing]) -> dict[str, int]:
    """List each split as a whole, and what judges by vendor too: figures of unlike hands do not belong into one mean. Gives counts."""
    counts = {}
    for split in splits:
        found = [drawing for drawing in drawings if drawing.split == split]
        counts[split] = len(found)
        write_lines(folder / f"{split}.jsonl", (drawing.line() for drawing in found))
        if split in JUDGES:
            for vendor in dict.fromkeys(drawing.vendor for drawing in found):
                write_lines(folder / f"{split}.{vendor}.jsonl", (drawing.line() for drawing in found if drawing.vendor == vendor))
    return counts


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of JSON lines, which appears whole."""
    with file_aside(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.writelines(json_text(line) + "\n" for line in lines)


def held_out() -> Mapping[str, str]:
    """The names of the concepts that nothing is trained on, by code: the committed list, chosen once by `making.chosen`."""
    from importlib.resources import files

    listed = files("modelgraft_plugins.drawings").joinpath("held_out.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in listed if line and not line.startswith("#"))
