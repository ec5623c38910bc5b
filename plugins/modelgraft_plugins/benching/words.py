"""Words of the command line and of sweep files: lists, values, times and parts of a hundred."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelgraft_plugins.benching.results import Value

SECONDS = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Text(str):
    """A text of a file, which is itself whatever it looks like: of the command line `5` is a number, of a file "5" is none."""

    __slots__ = ()


def value_named(word: str) -> Value:
    """The value that a word stands for, as `--set` reads it; a list is its text."""
    from modelgraft.commands import value_of_words

    found = value_of_words(word)
    return found if found is None or isinstance(found, str | int | float | bool) else json.dumps(found)


def word_of(value: Any) -> str:  # Any: what a sweep file may hold
    """A value as a word that `--set` reads as this value."""
    if isinstance(value, str):
        from modelgraft.commands import value_of_words

        return value if value_of_words(value) == value else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def duration(word: str) -> float:
    """Read a time: `90s`, `5m`, `1h`, `300ms`, or seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h)?", str(word).strip())
    seconds = float(found[1]) * SECONDS[found[2] or ""] if found else 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"found '{word}'; wanted: a time such as 90s, 5m or 1h")
    return seconds


def part(word: str) -> float:
    """Read a part of the whole: `3%`, or 0.03. Raises ValueError."""
    text = str(word).strip()
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = math.nan
    if not 0 < found < 1:
        raise ValueError(f"found '{word}'; wanted: a part such as 3%, more than 0 and less than 100%")
    return found


def counts(words: Sequence[Any], least: int = 1) -> list[int]:  # Any: words, or numbers of a file
    """Read whole numbers, such as the sizes of batches. Raises ValueError."""
    found = []
    for word in words:
        if not re.fullmatch(r"\d{1,9}", str(word)) or isinstance(word, bool) or int(word) < least:
            raise ValueError(f"found '{word}'; wanted: a whole number, at least {least}")
        found.append(int(word))
    return found


def shell_quoted(word: str) -> str:
    """A word as a POSIX shell reads it."""
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII) else "'" + word.replace("'", "'\"'\"'") + "'"
