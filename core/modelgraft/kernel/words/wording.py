"""Options in messages, worded for whoever reads them: `--set n=5` on the command line, `params={"n": 5}` in Python.

A message holds an option between two marks, so that it outlives being put into other messages. Errors word themselves for
Python; the command line asks them for what was noted, and words it in its own way when it prints. What a run tells (events,
warnings, results) is worded where it leaves the pipeline, for whoever opened that.
"""

from __future__ import annotations

import re

_OPEN, _CLOSE = "⟦", "⟧"
MARKED = re.compile(f"{_OPEN}([a-z_]+)(?: ([^{_OPEN}{_CLOSE}]*))?{_CLOSE}")
_LISTS = frozenset({"allow"})  # options of which Python takes several


def option(name: str, value: str = "") -> str:
    """An option of the caller for a message: `option("init", "random")`; without a value a switch; `set` takes `name` or `name=value`."""
    return f"{_OPEN}{name} {value}{_CLOSE}" if value else f"{_OPEN}{name}{_CLOSE}"


def is_marked(text: str) -> bool:
    """Whether the text names an option."""
    return _OPEN in text


def for_python(text: str) -> str:
    """The text with its options as the arguments of `load` and `open`."""
    return MARKED.sub(_argument, text) if _OPEN in text else text


def _argument(match: re.Match[str]) -> str:
    name, value = match[1], match[2] or ""
    if name == "set":
        key, equals, rest = value.partition("=")
        return f'params={{"{key}": {rest}}}' if equals else f'params["{key}"]'
    if not value:
        return f"{name}=True"
    return f'{name}=["{value}"]' if name in _LISTS else f'{name}="{value}"'
