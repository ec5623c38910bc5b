"""Write a graph document as the shipped ones are written: a node on a line where it fits, quotes only where they are needed.

What is written here reads as the same values with `yaml_reader`; `text_of` proves it before it gives the text.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelgraft.kernel.language.document import NODE_KEYS, TOP_KEYS, headline, parse
from modelgraft.kernel.language.yaml_reader import scalar
from modelgraft.kernel.words.errors import InputError

WIDTH = 132  # letters of a line before a mapping goes over several
BLOCK_LETTERS = 60  # a text of several lines that is shorter stands on one line, with \\n in it
ALIGNED = 12  # the longest name that others of its section are aligned with
SECTION_ORDER = ("modelgraft", "name", "extends", "params", "inputs", "nodes", "outputs", "runtime")
NODE_ORDER = ("use", "from", "with", "in", "frozen", "when", "lazy", "share", "adapters", "runtime")
_PLAIN = re.compile(r"[A-Za-z_./](?:[A-Za-z0-9_./@|<>()+*=~^$-]|:(?=[A-Za-z0-9_./])| (?=[^ #]))*")
_BLOCK_ONLY = re.compile(r"[A-Za-z]+\[[A-Za-z0-9_+*() .-]*\]\??")  # a type of a port: brackets mean something within braces
_OLD_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})  # booleans of YAML 1.1: other programs may still take them so


def text_of(document: Mapping[str, Any], *, doc: str = "") -> str:
    """Write a document of plain values, with its heading as a comment.

    Raises InputError for a value that the language cannot hold.
    """
    head = textwrap.wrap(headline(f"# {doc}"), WIDTH, break_long_words=False, break_on_hyphens=False) if doc else []
    lines = [f"# {line}" for line in head]
    keys = sorted(document, key=[*SECTION_ORDER, *TOP_KEYS, *document].index)
    for key in keys:
        value = document[key]
        if isinstance(value, Mapping) and value:
            lines += [f"{key}:", *_section(key, value)]
        else:
            lines.append(f"{key}: {_flow(value, is_inside=False)}")
    text = "\n".join(lines) + "\n"
    _prove(text, document)
    return text


def _prove(text: str, document: Mapping[str, Any]) -> None:
    read = parse(text, path=Path("written.yaml")).root.plain()
    if not _is_same(read, document):
        odd = next((key for key in document if key not in read or not _is_same(read[key], document[key])), "")
        raise InputError(f"the graph holds a value in '{odd}' that its language cannot write, such as a number of more than 100 digits")


def _is_same(read: Any, given: Any) -> bool:
    """Equal, with the types of Python kept apart, and NaN the same as NaN."""
    if isinstance(given, Mapping):
        return isinstance(read, Mapping) and set(read) == set(given) and all(_is_same(read[key], given[key]) for key in given)
    if isinstance(given, list | tuple):
        return isinstance(read, list) and len(read) == len(given) and all(map(_is_same, read, given))
    if isinstance(given, float) and math.isnan(given):
        return isinstance(read, float) and math.isnan(read)
    return type(read) is type(given) and read == given


# -- sections -------------------------------------------------------------------------------------------------------------


def _section(section: str, entries: Mapping[str, Any]) -> Iterator[str]:
    if section == "nodes":
        entries = {name: _in_order(value) for name, value in entries.items()}
    flows = {name: _flow(value, is_inside=False) for name, value in entries.items()}
    names = {name: _key(name) for name in entries}
    on_lines = [names[name] for name, value in entries.items() if _fits(f"  {names[name]}: {flows[name]}", value)]
    aligned = max((len(key) for key in on_lines if len(key) <= ALIGNED), default=0)
    for name, value in entries.items():
        line = f"  {names[name] + ':':<{aligned + 1}} {flows[name]}"
        if _fits(line, value):
            yield line
        else:
            yield from _spread(names[name], value, indent=2)


def _in_order(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {key: node[key] for key in sorted(node, key=[*NODE_ORDER, *NODE_KEYS, *node].index)}


def _fits(line: str, value: Any) -> bool:
    return not _has_lines(value) and (len(line) <= WIDTH or not isinstance(value, Mapping | list | tuple) or not value)


def _has_lines(value: Any) -> bool:
    """Whether a text of several lines stands in it, which reads best as a block."""
    if isinstance(value, Mapping):
        return any(map(_has_lines, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_lines, value))
    return isinstance(value, str) and _is_block(value)


def _spread(key: str, value: Any, *, indent: int) -> Iterator[str]:
    """An entry over several lines."""
    space = " " * indent
    line = f"{space}{key}: {_flow(value, is_inside=False)}"
    if _fits(line, value):
        yield line
    elif isinstance(value, Mapping):
        yield f"{space}{key}:"
        for name, part in value.items():
            yield from _spread(_key(name), part, indent=indent + 2)
    elif isinstance(value, list | tuple):
        yield f"{space}{key}:"
        for part in value:
            yield from _listed(part, indent=indent + 2)
    else:
        yield from _block(f"{space}{key}:", str(value), indent=indent + 2)


def _listed(part: Any, *, indent: int) -> Iterator[str]:
    space = " " * indent
    if _fits(f"{space}- {_flow(part, is_inside=False)}", part):
        yield f"{space}- {_flow(part, is_inside=False)}"
    elif isinstance(part, Mapping):
        lines = [line for name, value in part.items() for line in _spread(_key(name), value, indent=indent + 2)]
        yield f"{space}- {lines[0].strip()}"
        yield from lines[1:]
    elif isinstance(part, str):
        yield from _block(f"{space}-", part, indent=indent + 2)
    else:
        yield f"{space}- {_flow(part, is_inside=False)}"


def _is_block(text: str) -> bool:
    """Several lines that can stand as they are, with `|` or `|-` before them."""
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 2 or len(text) < BLOCK_LETTERS or not lines[0] or not lines[-1]:
        return False
    return not lines[0].startswith(" ") and all(line.isprintable() and line == line.rstrip() for line in lines)


def _block(head: str, text: str, *, indent: int) -> Iterator[str]:
    yield f"{head} {'|' if text.endswith(chr(10)) else '|-'}"
    for line in text.removesuffix("\n").split("\n"):
        yield " " * indent + line if line else ""


# -- values ---------------------------------------------------------------------------------------------------------------


def _flow(value: Any, *, is_inside: bool = True) -> str:
    """A value on one line; inside braces or brackets more needs quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(key))}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return _text(value, is_inside=is_inside)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"


def _text(text: str, *, is_inside: bool) -> str:
    """A text as it is where every reader takes it for one, else in double quotes."""
    is_plain = _PLAIN.fullmatch(text) is not None or (not is_inside and _BLOCK_ONLY.fullmatch(text) is not None)
    if is_plain and text.lower() not in _OLD_WORDS and scalar(text) == text:
        return text
    return _quoted(text)


def _key(name: str) -> str:
    """A key: a word, or quoted."""
    is_word = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name) is not None
    return name if is_word and name.lower() not in _OLD_WORDS and scalar(name) == name else _quoted(name)


def _quoted(text: str) -> str:
    """In double quotes; what is no plain letter is written by its number."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in quoted)


def _escaped(letter: str) -> str:
    number = ord(letter)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
