"""Values as JSON that every reader takes: mappings over several lines, numbers in one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

SURROGATES = re.compile("[\ud800-\udfff]")  # halves of pairs, which no encoding can write
NUMBERS = frozenset({int, float, bool, type(None)})

MakePlain = Callable[[Any], Any]  # makes plain what JSON has no form for


def json_text(value: Any, *, indent: int | None = None, plain: MakePlain = str) -> str:
    """A value as JSON: NaN and infinity are null, half a surrogate pair is written as an escape.

    indent  None: all in one line; else each entry of a mapping and of a list has a line, and numbers stay together, so that
            a tensor of any size is one line
    """
    dump = partial(json.dumps, ensure_ascii=False, allow_nan=False, default=plain)
    try:
        text = _laid_out(value, dump, 0, indent)
    except ValueError:
        text = _laid_out(_finite(value, plain), dump, 0, indent)
    return SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _laid_out(value: Any, dump: Callable[[Any], str], depth: int, indent: int | None) -> str:
    is_mapping = isinstance(value, Mapping)
    if indent is None or not value or not (is_mapping or isinstance(value, list | tuple)) or are_numbers(value):
        return dump(value)
    pad, inner = "\n" + " " * (indent * depth), "\n" + " " * (indent * (depth + 1))
    if is_mapping:
        parts = [f"{dump(str(name))}: {_laid_out(part, dump, depth + 1, indent)}" for name, part in value.items()]
    else:
        parts = [_laid_out(part, dump, depth + 1, indent) for part in value]
    return f"{'{' if is_mapping else '['}{inner}{f',{inner}'.join(parts)}{pad}{'}' if is_mapping else ']'}"


def are_numbers(value: Any) -> bool:
    """Whether a list, or lists within it, hold numbers alone."""
    if not isinstance(value, list | tuple):
        return False
    kinds = set(map(type, value))
    return kinds <= NUMBERS or (kinds <= {list, tuple} and all(map(are_numbers, value)))


def _finite(value: Any, plain: MakePlain) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part, plain) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part, plain) for part in value]
    return value if value is None or isinstance(value, str | int) else _finite(plain(value), plain)
