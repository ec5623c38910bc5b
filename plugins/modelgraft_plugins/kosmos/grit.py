"""Captions whose phrases are found on their pictures, as Kosmos-2 was trained on them (GrIT, arXiv 2306.14824, 3.1).

Noun chunks and a detector's boxes come in, rows of the published data go out: [start, end, x0, y0, x1, y1, score], in letters of the
caption and in parts of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.kosmos import Grit

Box = Mapping[str, Any]  # with corners in pixels, a text and a score
Phrase = Mapping[str, Any]  # as text/phrases gives them


def load(config: Grit, context: LoadContext) -> Callable[..., dict[str, Any]]:
    """Make the function from captions, pictures, parses and boxes to what belongs together."""
    node = context.node.name

    def pair(caption: list[str], image: list[Any], parse: list[Sequence[Phrase]], boxes: list[Sequence[Box]]) -> dict[str, Any]:
        import torch

        found = [
            _paired(config, f"{node}: record {row + 1} of {len(caption)}", text, picture.size, phrases, there)
            for row, (text, picture, phrases, there) in enumerate(zip(caption, image, parse, boxes, strict=True))
        ]
        fits = torch.tensor([bool(row["boxes"]) for row in found], dtype=torch.bool)
        return {**{name: [row[name] for row in found] for name in found[0]}, "fits": fits, "else": ~fits}

    return pair


def _paired(
    config: Grit, label: str, caption: str, size: tuple[int, int], phrases: Sequence[Phrase], boxes: Sequence[Box]
) -> dict[str, Any]:
    """What belongs together of one record."""
    by_text: dict[str, Phrase] = {}
    for phrase in phrases:
        if not (isinstance(phrase, Mapping) and phrase.keys() >= {"text", "start", "end", "expression"}):
            raise InputError(f"{label}: parse holds {phrase!r}, wanted phrases as text/phrases gives them")
        by_text.setdefault(phrase["text"], phrase)  # of two alike the first: a detector cannot tell them apart
    kept = apart([box for box in boxes if float(box.get("score", 1.0)) >= config.least_score], config.overlap)
    placed = list[tuple[Phrase, Box]]()
    for box in kept:
        if (found := by_text.get(str(box.get("text")))) is None:
            raise InputError(
                f"{label}: the detector found {box.get('text')!r}, which is none of the phrases: {', '.join(by_text) or 'none'}"
            )
        placed.append((found, box))
    placed.sort(key=lambda one: (one[0]["start"], one[1]["x0"]))
    outer = _outermost({tuple(phrase["expression"]) for phrase, _ in placed})
    told = [(tuple(phrase["expression"]), box) for phrase, box in placed if tuple(phrase["expression"]) in outer]
    return {
        "noun_chunks": [_row((phrase["start"], phrase["end"]), box, size) for phrase, box in placed],
        "ref_exps": [_row(span, box, size) for span, box in told],
        "boxes": [{**box, "text": caption[span[0] : span[1]]} for span, box in told],
        "width": size[0],
        "height": size[1],
    }


def _outermost(spans: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """The spans that lie within no other."""
    return {span for span in spans if not any(other != span and other[0] <= span[0] and span[1] <= other[1] for other in spans)}


def _row(span: tuple[int, ...], box: Box, size: tuple[int, int]) -> list[float]:
    """A row of the published data."""
    places = [float(box[corner]) / side for corner, side in zip(("x0", "y0", "x1", "y1"), size * 2, strict=True)]
    return [*span, *(min(max(place, 0.0), 1.0) for place in places), float(box.get("score", 1.0))]


def apart(boxes: Sequence[Box], overlap: float) -> list[Box]:
    """The boxes that stay when each is compared with surer ones, whatever they are of: those that overlap one by more are left out."""
    kept = list[Box]()
    for box in sorted(boxes, key=lambda one: -float(one.get("score", 1.0))):
        if all(_overlap(box, other) <= overlap for other in kept):
            kept.append(box)
    return kept


def _overlap(one: Box, other: Box) -> float:
    """The area that two boxes share, as a part of what they cover together."""
    width = min(one["x1"], other["x1"]) - max(one["x0"], other["x0"])
    height = min(one["y1"], other["y1"]) - max(one["y0"], other["y0"])
    shared = max(0.0, width) * max(0.0, height)
    whole = sum((box["x1"] - box["x0"]) * (box["y1"] - box["y0"]) for box in (one, other)) - shared
    return shared / whole if whole > 0 else 0.0
