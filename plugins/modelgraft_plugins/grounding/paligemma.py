"""PaliGemma: `<loc0123><loc0045><loc0678><loc0910> cat ; ...`, y before x, in 1024ths of a side, boxes before their names.

Source: arXiv 2407.07726 and the README of its code (big_vision, paligemma). What `segment` writes behind a box is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from modelgraft_plugins.grounding.boxes import Box, fault_of
from modelgraft_plugins.grounding.writing import Broken, Format, Grounded, Piece, Words

PLACE = r"<loc(\d{4})>"
MARKS = r"<loc\d{4}>|<seg\d{3}>"
NAMED = re.compile(r"(?P<places>(?:<loc\d{4}>)+)(?:<seg\d{3}>)*(?P<space>\s*)(?P<name>[^;<\n]*?)(?P<behind>\s*(?=[;<\n]|$))")
CORNERS = 4


def read(text: str, bins: int) -> Iterator[Piece]:
    """The pieces of an answer."""
    at = 0
    for found in NAMED.finditer(text):
        yield Words(re.sub(MARKS, "", text[at : found.start()]))
        y0, x0, y1, x1 = (*(int(place) / bins for place in re.findall(PLACE, found["places"])), *(0,) * CORNERS)[:CORNERS]
        count = len(re.findall(PLACE, found["places"]))
        box = (x0, y0, x1, y1)
        fault = f"it has {count} numbers, wanted {CORNERS}" if count != CORNERS else fault_of(box)
        yield Words(found["name"]) if fault else Grounded(found["name"], (box,))
        yield from (Broken(found["places"], fault),) if fault else ()
        yield Words(found["behind"])
        at = found.end()
    yield Words(re.sub(MARKS, "", text[at:]))


def write(phrase: str, boxes: Sequence[Box], bins: int) -> str:
    """A name behind each of its boxes."""
    return " ; ".join(f"{_written(box, bins)} {phrase}".rstrip() for box in boxes) if boxes else phrase


def _written(box: Box, bins: int) -> str:
    x0, y0, x1, y1 = (min(int(place * bins), bins - 1) for place in box)
    return "".join(f"<loc{place:04d}>" for place in (y0, x0, y1, x1))


FORMAT = Format(
    about="PaliGemma: four <loc> before each name, y before x, in 1024ths of a side",
    frame="whole",
    bins=1024,
    marks=MARKS,
    lead="detect ",
    read=read,
    write=write,
)
