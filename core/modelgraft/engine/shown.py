"""Values as notebooks show them: pictures, players, texts, and tensors in a line. Everything is bounded in size."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.words import guard
from modelgraft.records import markup
from modelgraft.records.absence import ABSENT
from modelgraft.records.record import Sight
from modelgraft.records.showing import FEW, brief, cut, is_numbers, kind_of, sight

__all__ = ["PAGE_BYTES", "Page", "brief"]

MOST_RECORDS = 16  # of a batch that a page shows
PAGE_BYTES = 8 * 2**20  # of pictures and sounds on one page: notebooks are kept with their outputs


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
        if (seen := sight(value)) is not None:
            return self._sight(seen)
        if is_numbers(value):
            return f"<code>{markup.escaped(_numbers(value))}</code>"
        if isinstance(value, Mapping):
            return "".join(f"{markup.faint(str(key))}{self.value(part)}" for key, part in list(value.items())[:MOST_RECORDS])
        if isinstance(value, list | tuple) and not _is_flat(value):
            shown = "".join(f"<div>{self.value(part)}</div>" for part in value[:MOST_RECORDS])
            rest = len(value) - MOST_RECORDS
            return shown + (markup.faint(f"… and {rest:,} more") if rest > 0 else "")
        return markup.words(cut(guard.written(value)))

    def _sight(self, seen: Sight) -> str:
        """A picture, a player, or the words alone where there is nothing else or no room."""
        if not seen.kind:
            return markup.words(seen.said)
        uri = self._uri(seen.kind, seen.content)
        if uri is None:
            return markup.faint(f"{seen.said}, not shown: the page would be too large")
        said = markup.escaped(seen.said)
        if seen.kind.startswith("image/"):
            return f'<img alt="{said}" title="{said}" style="max-width:100%" src="{uri}">'
        player = seen.kind.partition("/")[0]
        return f'<{player} controls src="{uri}"></{player}>{markup.faint(seen.said)}'

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
    kind, count = kind_of(numbers), 1
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
