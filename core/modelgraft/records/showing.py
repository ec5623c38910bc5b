"""Values for readers: in a few words, as JSON, and as something to look at. Told apart by what they are made of."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.words import guard
from modelgraft.records.absence import ABSENT
from modelgraft.records.owning import is_picture
from modelgraft.records.record import Record, Sight

BRIEF = 60  # letters of a value in a repr
FEW = 16  # numbers of a tensor that are shown one by one, and entries of a list in a few words
WIDEST_PX = 512  # of a picture on a page
PNG_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")


def brief(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, str):
        return repr(value if len(value) <= BRIEF else value[: BRIEF - 3] + "...")
    if isinstance(value, Record):
        return value.brief()
    if is_picture(value):
        return f"picture {value.width} x {value.height}"
    if is_numbers(value):
        return kind_of(value)
    if isinstance(value, Mapping):
        return "{" + cut(", ".join(f"{key}: {brief(part)}" for key, part in list(value.items())[:FEW])) + "}"
    if isinstance(value, list | tuple):
        return "[" + cut(", ".join(map(brief, value[:FEW])) + (", ..." if len(value) > FEW else "")) + "]"
    return cut(guard.shown(value))


def cut(text: str) -> str:
    """A text that fits a line or two."""
    return text if len(text) <= 2 * BRIEF else text[: 2 * BRIEF - 3] + "..."


def is_numbers(value: Any) -> bool:
    """A tensor or an array; neither torch nor numpy is imported to find out."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def kind_of(numbers: Any) -> str:
    """The dtype and shape of a tensor or an array, as ports write them."""
    return f"{str(numbers.dtype).removeprefix('torch.')}[{' '.join(map(str, numbers.shape))}]"


def sight(value: Any) -> Sight | None:
    """What is shown of a record or a picture; None for what is told in words."""
    if isinstance(value, Record):
        return value.sight()
    if not is_picture(value):
        return None
    stream, small = io.BytesIO(), value.copy()
    small.thumbnail((WIDEST_PX, WIDEST_PX))
    (small if small.mode in PNG_MODES else small.convert("RGB")).save(stream, "PNG")
    return Sight(f"picture of {value.width} x {value.height}", "image/png", stream.getvalue())


def stands_for_file(value: Any) -> tuple[str, str] | None:
    """For what is no line of text: what it is, and the ending of a file to write it into."""
    if isinstance(value, Record):
        return value.brief(), value.endings[0]
    return (f"a picture of {value.width} x {value.height}", ".png") if is_picture(value) else None


def plain(value: Any) -> Any:
    """A value as JSON has it: tensors as lists, pictures and records as what they measure, NaN, infinity and ABSENT as null."""
    if value is ABSENT:
        return None
    if isinstance(value, Record):
        return plain(value.facts())
    if is_picture(value):
        return {"type": "image", "width": value.width, "height": value.height, "mode": value.mode}
    if is_numbers(value):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else guard.written(value)
