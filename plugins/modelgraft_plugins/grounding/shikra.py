"""Shikra: `a dog[0.123,0.456,0.789,0.999]`, fractions with three digits of the square that the picture is padded to, boxes joined by `;`.

Source: arXiv 2306.15195, 3.2, and `BoxFormatter` and `PlainBoxFormatter` of its code. The phrase is what stands before, up to the last mark
of a sentence or comma; a point, `[0.5,0.5]`, is no box and is left out of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from modelgraft_plugins.grounding.boxes import Box, fault_of
from modelgraft_plugins.grounding.writing import Broken, Format, Grounded, Piece, Words

NUMBER = r"\d+(?:\.\d+)?"
ONE = rf"{NUMBER}(?:\s*,\s*{NUMBER})*"
MARKS = rf"\[\s*{ONE}(?:\s*;\s*{ONE})*\s*\]"
PLACED = re.compile(rf"(?P<phrase>[^\[\].,;:?!\n]*?)\s*(?P<places>{MARKS})")
CORNERS, POINT = 4, 2


def read(text: str, _bins: int) -> Iterator[Piece]:
    """The pieces of an answer."""
    at = 0
    for found in PLACED.finditer(text):
        yield Words(text[at : found.start()])
        boxes, broken = list[Box](), list[Broken]()
        for place in found["places"].strip("[] ").split(";"):
            numbers = [float(number) for number in place.split(",")]
            if len(numbers) == POINT:
                continue
            box = (*numbers, *(0.0,) * CORNERS)[:CORNERS]
            x0, y0, x1, y1 = box
            fault = f"it has {len(numbers)} numbers, wanted {CORNERS}" if len(numbers) != CORNERS else fault_of((x0, y0, x1, y1))
            if fault is None:
                boxes.append((x0, y0, x1, y1))
            else:
                broken.append(Broken(f"[{place.strip()}]", fault))
        space = found["phrase"][: len(found["phrase"]) - len(found["phrase"].lstrip())]
        yield Words(space)
        phrase = found["phrase"].strip()
        yield Grounded(phrase, tuple(boxes)) if boxes else Words(phrase)
        yield from broken
        at = found.end()
    yield Words(text[at:])


def write(phrase: str, boxes: Sequence[Box], _bins: int) -> str:
    """A phrase and its boxes."""
    places = ";".join(",".join(f"{place:.3f}" for place in box) for box in boxes)
    return f"{phrase}[{places}]" if boxes else phrase


FORMAT = Format(
    about="Shikra: fractions of the padded picture in brackets, as plain text",
    frame="padded",
    bins=1000,
    marks=MARKS,
    lead="",
    read=read,
    write=write,
)
