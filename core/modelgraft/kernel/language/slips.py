"""Slips of the pen that YAML takes for something else, or tells in words of its own: what was meant, as a way out."""

from __future__ import annotations

import re

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\'\'|[^\'])*\'')
_PARAM = re.compile(r"[^\s,\[\]{}]*\$\{[^{}]*\}[^\s,\[\]{}]*")
_NO_SPACE = re.compile(r"([A-Za-z_][\w.-]*):(?!//)([^\s:,\]}][^,\]}]*)")


def quote_hint(text: str) -> str:
    """For lines in which a bare `${n}` stands inside braces or brackets, where its own brace begins a mapping; "" for others."""
    bare = _QUOTED.sub(lambda quoted: " " * len(quoted[0]), text)
    found = next((match for match in _PARAM.finditer(bare) if re.search(r"[{\[]", bare[: match.start()])), None)
    if found is None:
        return ""
    meant = found[0].rpartition(":")[2] if ":${" in found[0] else found[0]  # `n:${n}` lacks a space as well
    return f'quote it: inside braces and brackets write "{meant}" with its quotes, because the brace of a bare ${{ begins a mapping'


def space_hint(text: str) -> str:
    """For `x:value`, which YAML takes for one word, the way to write it as a key and a value; "" for anything else."""
    found = _NO_SPACE.match(text.strip())
    if found is None:
        return ""
    value = "{...}" if found[2].startswith("{") else found[2].strip()
    return f"a space is missing after the colon: write {found[1]}: {value}"


def space_hint_of_line(line: str) -> str:
    """The same for a whole line: the first word outside quotes in it that lacks the space."""
    bare = _QUOTED.sub(lambda quoted: quoted[0][0] + "_" * (len(quoted[0]) - 2) + quoted[0][-1], line).partition(" #")[0]
    found = re.search(rf"(?:^\s*|[{{,]\s*)({_NO_SPACE.pattern})", bare)
    return space_hint(line[found.start(1) : found.end(1)]) if found else ""
