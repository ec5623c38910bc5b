"""Values as a graph has them, for messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

SURROGATES = re.compile("[\ud800-\udfff]")  # halves of pairs, which no encoding can write


def in_yaml(value: Any, *, plain: Callable[[Any], str] = repr) -> str:
    """A value in a line, as a graph has it: null, true, 'text', [2, 3], {a: b}; `plain` spells what YAML has no form for."""
    if isinstance(value, str) or not (value is None or isinstance(value, bool | list | tuple | Mapping)):
        return repr(value) if isinstance(value, str) else plain(value)
    try:
        text = json.dumps(value, ensure_ascii=False, default=plain)
    except (TypeError, ValueError):  # keys that JSON does not have, and what holds itself
        return plain(value)
    return SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
