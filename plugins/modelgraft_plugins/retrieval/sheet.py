"""Hits as one picture: small pictures in rows, each with its place, its name and how near it is."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from modelgraft_plugins.lettering import Font, cut

CELL_PX, GAP_PX, EDGE_PX = 176, 16, 24  # of a picture with its frame, between two, around all
LINE_PX, TITLE_PX, BAR_PX = 15, 22, 4  # of a line of text, of the title, of the bar that shows a score
MOST_COLUMNS = 5
CORNER = 6
# paper, ink, soft ink, frame, bar
COLOURS = {
    "light": ("#ffffff", "#22272e", "#5b6470", "#eef1f4", "#1f5f99"),
    "dark": ("#161a20", "#e6e9ee", "#a7b0bc", "#252c36", "#7db8ec"),
}


@dataclass(frozen=True, slots=True)
class Hit:
    """One hit: the name of its file below the folder, the cosine of its angle, and a small picture as JPEG or b""."""

    name: str
    score: float
    small: bytes


def columns_of(count: int) -> int:
    """Columns that make a sheet about as wide as high."""
    rows = max(1, round(0.9 * math.sqrt(count)))
    return max(1, min(MOST_COLUMNS, -(-count // rows)))


def sheet_of(hits: Sequence[Hit], *, title: str, theme: Literal["light", "dark"]) -> Image.Image:
    """Draw the hits, nearest first, from left to right."""
    paper, ink, soft, frame, bar = COLOURS[theme]
    columns = columns_of(len(hits))
    rows = -(-len(hits) // columns)
    head = TITLE_PX + GAP_PX if title else 0
    cell = CELL_PX + 2 * (LINE_PX + 4) + GAP_PX
    size = (2 * EDGE_PX + columns * (CELL_PX + GAP_PX) - GAP_PX, 2 * EDGE_PX + head + rows * cell - GAP_PX)
    sheet = Image.new("RGB", size, paper)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE_PX - 2)
    if title:
        pen.text((EDGE_PX, EDGE_PX - 4), cut(title, size[0] - 2 * EDGE_PX, _title_font()), font=_title_font(), fill=ink)
    for index, hit in enumerate(hits):
        left, top = EDGE_PX + index % columns * (CELL_PX + GAP_PX), EDGE_PX + head + index // columns * cell
        pen.rounded_rectangle((left, top, left + CELL_PX - 1, top + CELL_PX - 1), CORNER, fill=frame)
        _place(sheet, pen, hit, left, top, soft)
        pen.rectangle(
            (left, top + CELL_PX + 1, left + max(1, round(CELL_PX * min(max(hit.score, 0.0), 1.0))) - 1, top + CELL_PX + BAR_PX - 1),
            fill=bar,
        )
        pen.text((left, top + CELL_PX + BAR_PX + 2), f"{index + 1}   {hit.score:.3f}", font=font, fill=ink)
        pen.text((left, top + CELL_PX + BAR_PX + 2 + LINE_PX), cut(hit.name, CELL_PX, font, keeps_end=True), font=font, fill=soft)
    return sheet


def _place(sheet: Image.Image, pen: ImageDraw.ImageDraw, hit: Hit, left: int, top: int, soft: str) -> None:
    """Put a small picture into the middle of its frame; where there is none, say what kind of file it is."""
    if not hit.small:
        ending = hit.name.rpartition(".")[2]
        pen.text((left + CELL_PX / 2, top + CELL_PX / 2), ending, font=_title_font(), fill=soft, anchor="mm")
        return
    small = Image.open(io.BytesIO(hit.small)).convert("RGB")
    small.thumbnail((CELL_PX - 8, CELL_PX - 8))
    sheet.paste(small, (left + (CELL_PX - small.width) // 2, top + (CELL_PX - small.height) // 2))


def _title_font() -> Font:
    return ImageFont.load_default(TITLE_PX - 4)
