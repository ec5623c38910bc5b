"""Qwen-VL: `<ref>a dog</ref><box>(12,40),(512,998)</box>`, corners in thousandths of a side, several boxes behind one phrase.

Of a `<quad>`, which has four corners, the box around it is read. Source: arXiv 2308.12966, 2.3, and `tokenization_qwen.py`; its drawing
divides by 1000, its evaluation of RefCOCO by 999, which `bins: 999` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from modelgraft_plugins.grounding.boxes import Box, fault_of
from modelgraft_plugins.grounding.writing import Broken, Format, Grounded, Piece, Words

MARKS = r"</?(?:ref|box|quad|img)>|<imgpad>|<\|(?:endoftext|im_start|im_end|extra_\d+)\|>"
CORNER = r"\(\s*(\d+)\s*,\s*(\d+)\s*\)"
CORNERS = {"box": 2, "quad": 4}
PLACED = re.compile(r"(?:<ref>(?P<phrase>[^<]*)</ref>\s*)?(?P<places>(?:<(?:box|quad)>[^<]*(?:</(?:box|quad)>)?)+)")
PLACE = re.compile(r"<(?P<kind>box|quad)>(?P<corners>[^<]*)(?P<end></(?P=kind)>)?")


def read(text: str, bins: int) -> Iterator[Piece]:
    """The pieces of an answer."""
    at = 0
    for found in PLACED.finditer(text):
        yield Words(re.sub(MARKS, "", text[at : found.start()]))
        boxes, broken = list[Box](), list[Broken]()
        for place in PLACE.finditer(found["places"]):
            box, fault = _box(place, bins)
            if fault is None:
                boxes.append(box)
            else:
                broken.append(Broken(place[0].strip(), fault))
        phrase = found["phrase"] or ""
        yield Grounded(phrase, tuple(boxes)) if boxes else Words(phrase)
        yield from broken
        at = found.end()
    yield Words(re.sub(MARKS, "", text[at:]))


def write(phrase: str, boxes: Sequence[Box], bins: int) -> str:
    """A phrase and its boxes."""
    said = f"<ref>{phrase}</ref>" if phrase else ""
    return said + "".join(_written(box, bins) for box in boxes)


def _box(place: re.Match[str], bins: int) -> tuple[Box, str | None]:
    """The box of a place, and what is wrong with it."""
    corners = [(int(x) / bins, int(y) / bins) for x, y in re.findall(CORNER, place["corners"])]
    wanted = CORNERS[place["kind"]]
    if not place["end"]:
        return (0, 0, 0, 0), f"it does not end with </{place['kind']}>"
    if len(corners) != wanted or re.sub(CORNER, "", place["corners"]).strip(" ,"):
        return (0, 0, 0, 0), f"it has not {wanted} corners (x,y)"
    if place["kind"] == "box":
        (x0, y0), (x1, y1) = corners
        box: Box = (x0, y0, x1, y1)
    else:
        across, down = zip(*corners, strict=True)
        box = (min(across), min(down), max(across), max(down))
    return box, fault_of(box)


def _written(box: Box, bins: int) -> str:
    x0, y0, x1, y1 = (min(int(place * bins), bins - 1) for place in box)
    return f"<box>({x0},{y0}),({x1},{y1})</box>"


FORMAT = Format(
    about="Qwen-VL: <ref> and <box>, whose corners are thousandths of a side",
    frame="whole",
    bins=1000,
    marks=MARKS,
    lead="",
    read=read,
    write=write,
)
