"""Draw what `glimpse` says of drawings, and what `find` finds, as one picture.

    modelgraft map glimpse drawings.jsonl --out said.jsonl
    python -m benchmarks.contact drawings.jsonl said.jsonl [--index FILE --text WORDS --image FILE] --out sheet.png

drawings.jsonl  lines of `image`, `captions` (or `caption`) and `split`, as `benchmarks/sweeps/drawings.jsonl` has them
said.jsonl      what the map wrote: a line for each, in the same order
--index         of `modelgraft index grafted/embed FOLDER`; then `find` is asked for each --text and --image, which may be repeated

Under a drawing stands what was said: in black where it is the right name, in red with the right name under it where it is not. What is
drawn is printed as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from PIL import Image, ImageDraw, ImageFont

from modelgraft_plugins.lettering import cut

SIDE_PX, GAP_PX, EDGE_PX, COLUMNS = 88, 12, 12, 8  # of a drawing, between two, around all; as wide as a page shows it
LETTER_PX, LINE_PX = 12, 15
PAPER, INK, SOFT, WRONG = "#ffffff", "#16191d", "#6a737d", "#a3392c"
HEADS = {
    "test": "what glimpse says: hands that it never saw, things that it was trained on",
    "held_out": "and things that it never was trained on",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A drawing with the lines under it, each with its colour."""

    image: Path
    lines: Sequence[tuple[str, str]]


Section = tuple[str, Sequence[Cell]]


def said_sections(drawings: Path, said: Path) -> Iterator[Section]:
    """What was said of each drawing, by split. Raises ValueError where the two files have not as many lines."""
    lines, answers = ([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in (drawings, said))
    for split in dict.fromkeys(line.get("split", "test") for line in lines):
        found = []
        for line, answer in zip(lines, answers, strict=True):
            if line.get("split", "test") == split:
                found.append(said_cell(drawings.parent / line["image"], line, str(answer.get("text", "")).strip()))
        right = sum(len(cell.lines) == 1 for cell in found)
        yield f"{HEADS.get(split, split)}: {right} of {len(found)}", found


def said_cell(image: Path, line: Mapping[str, Any], text: str) -> Cell:  # Any: a line of JSON
    """A drawing and what was said of it, with the right name where it was not said."""
    names = line["captions"] if "captions" in line else [line["caption"]]
    return Cell(image, [(text, INK)] if text in names else [(text, WRONG), (names[0], SOFT)])


def found_sections(index: Path, texts: Sequence[str], images: Sequence[Path]) -> Iterator[Section]:
    """What was found by each text and picture."""
    import modelgraft as mg

    asks: list[dict[str, Any]] = [*({"text": one} for one in texts), *({"image": str(one)} for one in images)]
    with mg.open("find", params={"index": str(index), "count": COLUMNS}) as pipeline:
        for ask in asks:
            found = pipeline.run(**ask, outputs=["paths", "scores"])
            hits = [
                Cell(Path(path), [(f"{score:.2f}", SOFT)])
                for path, score in zip(found["paths"], found["scores"].flatten().tolist(), strict=True)
            ]
            yield f"what find finds for {ask['text']!r}" if "text" in ask else f"what is like {Path(ask['image']).name}", hits


def draw(sections: Sequence[Section]) -> Image.Image:
    """All of it, on white."""
    font, title = ImageFont.load_default(LETTER_PX), ImageFont.load_default(LETTER_PX + 2)
    width = 2 * EDGE_PX + COLUMNS * (SIDE_PX + GAP_PX) - GAP_PX
    rows = [[cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)] for _, cells in sections]
    heights = [[SIDE_PX + 6 + LINE_PX * max(len(cell.lines) for cell in row) + GAP_PX for row in some] for some in rows]
    sheet = Image.new("RGB", (width, 2 * EDGE_PX + sum(2 * LINE_PX + sum(some) for some in heights)), PAPER)
    pen, top = ImageDraw.Draw(sheet), EDGE_PX
    for (head, _), some, tall in zip(sections, rows, heights, strict=True):
        pen.text((EDGE_PX, top), cut(head, width - 2 * EDGE_PX, title), font=title, fill=INK)
        top += 2 * LINE_PX - 4
        for row, height in zip(some, tall, strict=True):
            for number, cell in enumerate(row):
                left = EDGE_PX + number * (SIDE_PX + GAP_PX)
                with Image.open(cell.image) as picture:
                    sheet.paste(picture.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS), (left, top))
                for place, (text, colour) in enumerate(cell.lines):
                    pen.text((left, top + SIDE_PX + 4 + place * LINE_PX), cut(text, SIDE_PX + GAP_PX - 4, font), font=font, fill=colour)
            top += height
        top += 4
    return sheet


def main() -> None:
    """Read the options, ask, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawings", type=Path)
    parser.add_argument("said", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--image", action="append", default=[], type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    sections = list(said_sections(given.drawings, given.said))
    if given.index is not None:
        sections += found_sections(given.index, given.text, given.image)
    for head, cells in sections:
        print(head)
        for cell in cells:
            print(f"  {cell.image.parent.name}/{cell.image.name}  {'; it is: '.join(text for text, _ in cell.lines)}")
    few = draw(sections).quantize(
        256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )  # the median cut turned green leaves yellow
    few.save(given.out, optimize=True)


if __name__ == "__main__":
    main()
