"""Kosmos-2: `<phrase> a dog</phrase><object><patch_index_0044><patch_index_0863></object>`, corners as cells of a grid.

Source: arXiv 2306.14824, 2.1 (which writes <p>, <box> and <loc>), and the released processor, whose rounding this is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from modelgraft_plugins.grounding.boxes import Box, fault_of
from modelgraft_plugins.grounding.writing import Broken, Format, Grounded, Piece, Words

AGAIN = "</delimiter_of_multi_objects/>"  # between the boxes of one phrase
CELL = r"<patch_index_(\d+)>"
MARKS = rf"</?(?:phrase|object|grounding|image|doc|chunk|line)>|{AGAIN}|{CELL}|</?s>"
PAIR = re.compile(rf"\s*{CELL}\s*{CELL}\s*")
OBJECT = re.compile(
    rf"(?:<phrase>(?P<phrase>[^<]*)</phrase>\s*)?<object>(?P<places>(?:\s*<patch_index_\d+>|\s*{AGAIN})*)\s*(?P<end></object>)?"
)


def read(text: str, bins: int) -> Iterator[Piece]:
    """The pieces of an answer."""
    at = 0
    for found in OBJECT.finditer(text):
        yield from _words(text[at : found.start()])
        yield from _object(found, bins)
        at = found.end()
    yield from _words(text[at:])


def write(phrase: str, boxes: Sequence[Box], bins: int) -> str:
    """A phrase and its boxes."""
    said = f"<phrase>{phrase}</phrase>" if phrase else ""
    places = AGAIN.join(_written(box, bins) for box in boxes)
    return f"{said}<object>{places}</object>" if boxes else said


def cells(box: Box, bins: int) -> tuple[int, int]:
    """The cells of both corners: the first that the box begins in, and the last that it reaches into; counted row by row."""
    columns = math.floor(box[0] * bins), math.ceil(box[2] * bins - 1)
    rows = math.floor(box[1] * bins), math.ceil(box[3] * bins - 1)
    return rows[0] * bins + columns[0], rows[1] * bins + columns[1]


def box_of(first: int, last: int, bins: int) -> Box:
    """The box between two cells: from middle to middle, or all of both where they share a row or a column."""
    rows, columns = (first // bins, last // bins), (first % bins, last % bins)
    is_narrow = rows[0] == rows[1] or columns[0] == columns[1]
    before, behind = (0.0, 1.0) if is_narrow else (0.5, 0.5)
    return (columns[0] + before) / bins, (rows[0] + before) / bins, (columns[1] + behind) / bins, (rows[1] + behind) / bins


def _object(found: re.Match[str], bins: int) -> Iterator[Piece]:
    phrase, boxes = found["phrase"] or "", list[Box]()
    broken = list[Broken]()
    for place in found["places"].split(AGAIN):
        fault = None if found["end"] else "it does not end with </object>"
        if (pair := PAIR.fullmatch(place)) is None:
            fault = fault or "it has not two corners"
        elif max(numbers := (int(pair[1]), int(pair[2]))) >= bins * bins:
            fault = fault or f"the last corner is {bins * bins - 1:04d}"
        elif (fault := fault or fault_of(box := box_of(*numbers, bins))) is None:
            boxes.append(box)
        if fault is not None:
            broken.append(Broken(place.strip() or "<object>", fault))
    yield Grounded(phrase, tuple(boxes)) if boxes else Words(phrase)
    yield from broken


def _words(text: str) -> Iterator[Piece]:
    yield Words(re.sub(MARKS, "", text))
    yield from (Broken(stray[0], "it stands outside of <object>") for stray in re.finditer(CELL, text))


def _written(box: Box, bins: int) -> str:
    return "".join(f"<patch_index_{cell:04d}>" for cell in cells(box, bins))


FORMAT = Format(
    about="Kosmos-2: <phrase> and <object>, whose corners are cells of a grid of 32 x 32",
    frame="whole",
    bins=32,
    marks=MARKS,
    lead="<grounding>",
    read=read,
    write=write,
)
