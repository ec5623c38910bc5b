"""Values as notebooks and prompts show them: pictures, players, texts, and tensors in a line. Everything is bounded in size.

Values are told apart by what they can do, so that neither torch nor Pillow is imported for a look.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Mapping
from html import escape
from typing import Any

from modelgraft.kernel.words import guard, markup
from modelgraft.kernel.words.amounts import in_seconds
from modelgraft.records.absence import ABSENT

BRIEF = 60  # letters of a value in a repr
MOST_RECORDS = 16  # of a batch that a page shows
WIDEST_PX = 512  # of a picture on a page
LONGEST_S = 60.0  # of a sound on a page
PAGE_BYTES = 8 * 2**20  # of pictures and sounds on one page: notebooks are kept with their outputs
FEW = 16  # numbers of a tensor that are shown one by one


def brief(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, str):
        return repr(value if len(value) <= BRIEF else value[: BRIEF - 3] + "...")
    if is_picture(value):
        return f"picture {value.width} x {value.height}"
    if is_sound(value):
        return f"sound of {in_seconds(value.seconds)}"
    if is_numbers(value):
        return _kind_of(value)
    if isinstance(value, Mapping):
        return "{" + _cut(", ".join(f"{key}: {brief(part)}" for key, part in list(value.items())[:FEW])) + "}"
    if isinstance(value, list | tuple):
        return "[" + _cut(", ".join(map(brief, value[:FEW])) + (", ..." if len(value) > FEW else "")) + "]"
    return _cut(guard.shown(value))


def _cut(text: str) -> str:
    return text if len(text) <= 2 * BRIEF else text[: 2 * BRIEF - 3] + "..."


def is_picture(value: Any) -> bool:
    """A picture of Pillow."""
    return hasattr(value, "getbands") and hasattr(value, "thumbnail")


def is_sound(value: Any) -> bool:
    """Samples with a rate."""
    return hasattr(value, "sample_rate_hz") and hasattr(value, "samples")


def is_numbers(value: Any) -> bool:
    """A tensor or an array."""
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _kind_of(numbers: Any) -> str:
    return f"{str(numbers.dtype).removeprefix('torch.')}[{' '.join(map(str, numbers.shape))}]"


class Page:
    """The HTML of some values; pictures and sounds are in it as data, as far as there is room."""

    def __init__(self) -> None:
        self._room = PAGE_BYTES

    def value(self, value: Any) -> str:
        """Show one value, whatever it is."""
        if value is ABSENT:
            return markup.faint("absent: a route of the graph left it out")
        if isinstance(value, str):
            return markup.words(value)
        if is_picture(value):
            return self._picture(value)
        if is_sound(value):
            return self._sound(value)
        if is_numbers(value):
            return f"<code>{escape(_numbers(value))}</code>"
        if isinstance(value, Mapping):
            return "".join(f"{markup.faint(str(key))}{self.value(part)}" for key, part in list(value.items())[:MOST_RECORDS])
        if isinstance(value, list | tuple) and not _is_flat(value):
            shown = "".join(f"<div>{self.value(part)}</div>" for part in value[:MOST_RECORDS])
            rest = len(value) - MOST_RECORDS
            return shown + (markup.faint(f"… and {rest:,} more") if rest > 0 else "")
        return markup.words(_cut(guard.written(value)))

    def _picture(self, picture: Any) -> str:
        said = f"picture of {picture.width} x {picture.height}"
        stream, small = io.BytesIO(), picture.copy()
        small.thumbnail((WIDEST_PX, WIDEST_PX))
        (small if small.mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16") else small.convert("RGB")).save(stream, "PNG")
        uri = self._uri("image/png", stream.getvalue())
        if uri is None:
            return markup.faint(f"{said}, not shown: the page would be too large")
        return f'<img alt="{said}" title="{said}" style="max-width:100%" src="{uri}">'

    def _sound(self, sound: Any) -> str:
        stream, frames = io.BytesIO(), int(LONGEST_S * sound.sample_rate_hz)
        pcm = (sound.samples[:, :frames].clip(-1.0, 1.0) * 32767.0).round().astype("<i2")
        with wave.open(stream, "wb") as written:
            written.setnchannels(pcm.shape[0])
            written.setsampwidth(2)
            written.setframerate(sound.sample_rate_hz)
            written.writeframes(pcm.T.tobytes())
        said = f"sound of {in_seconds(sound.seconds)} at {sound.sample_rate_hz:,} Hz"
        uri = self._uri("audio/wav", stream.getvalue())
        if uri is None:
            return markup.faint(f"{said}, not shown: the page would be too large")
        cut = f", the first {LONGEST_S:g} s of it" if sound.seconds > LONGEST_S else ""
        return f'<audio controls src="{uri}"></audio>{markup.faint(said + cut)}'

    def _uri(self, kind: str, content: bytes) -> str | None:
        text = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
        if len(text) > self._room:
            return None
        self._room -= len(text)
        return text


def _is_flat(values: list[Any] | tuple[Any, ...]) -> bool:
    """Nothing but numbers: they stand in a line."""
    return all(isinstance(part, int | float) for part in values)


def _numbers(numbers: Any) -> str:
    """A tensor in a line: its kind, and its numbers or what they lie between."""
    kind, count = _kind_of(numbers), 1
    for size in numbers.shape:
        count *= int(size)
    if count <= FEW:
        return f"{kind} {numbers.tolist()}"
    if "bool" in kind:
        return f"{kind}, {int(numbers.sum()):,} true"
    try:
        low, high = float(numbers.min()), float(numbers.max())
    except (TypeError, ValueError, RuntimeError, NotImplementedError):  # kinds of numbers that have no order, such as complex ones
        return kind
    return f"{kind} from {low:.4g} to {high:.4g}"
