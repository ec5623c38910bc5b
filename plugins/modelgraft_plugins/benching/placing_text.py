"""A placement written into the text of a graph: what is said of `runtime` changes, and every other byte stays.

No library writes YAML back as it was: ruamel.yaml keeps comments, and sets spaces, indents and folds anew. Here the parser says
where things stand, and the text is cut there. What an edit did is proven by reading both texts again (`placing_file`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import yaml

from modelgraft_plugins.benching.placing import Keys

MARK = "# placed by modelgraft bench --choose"  # begins the comment above a placement; its further lines begin as CONTINUED
CONTINUED = "#   "

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Any: the C parser has no type information
_PLAIN = re.compile(r"(?!(?:true|false|null)$)[A-Za-z_][A-Za-z0-9_./-]*", re.IGNORECASE)  # what needs no quotes, wherever it stands
_INDENT, _BREAK = re.compile(r"[ \t]*"), re.compile(r"\r\n|\n|\r")
_OF_RUNTIME = re.compile(r"runtime(\.|$)|nodes\.[^.]+\.runtime(\.|$)")  # keys of the outermost level
EMPTY = ("", "~", "null", "Null", "NULL")  # words that mean nothing
QUOTES = ("'", '"')


class Unwritable(Exception):
    """A text that no small edit can change so; says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A value of a document, with the letters that it takes.

    value    of a scalar, and None of anything else;  is_flow  it is written in brackets
    entries  of a mapping: keys and values;  items  of a list
    is_alias, anchor  it stands for a value that is written elsewhere, under that name
    """

    start: int
    end: int
    value: str | None = None
    is_flow: bool = False
    is_alias: bool = False
    anchor: str | None = None
    entries: tuple[tuple[Part, Part], ...] | None = None
    items: tuple[Part, ...] | None = None

    def get(self, key: str) -> Part | None:
        """The value under a key of a mapping."""
        return next((value for name, value in self.entries or () if name.value == key), None)

    def key(self, key: str) -> Part | None:
        """A key of a mapping, as it stands there."""
        return next((name for name, _ in self.entries or () if name.value == key), None)

    @property
    def is_list(self) -> bool:
        """Whether it is a list."""
        return self.items is not None

    @property
    def last(self) -> int:
        """Where its last letter ends: what the parser says of a block reaches to the next one, over comments."""
        parts = [value for _, value in self.entries or ()] or list(self.items or ())
        return parts[-1].last if parts and not self.is_flow and not self.is_alias else self.end


def with_runtime(text: str, placement: Mapping[str, Keys], comment: Sequence[str] = (), *, dotted: Iterable[tuple[str, str]] = ()) -> str:
    """The text of a graph with keys of `runtime` set by node.

    placement  by node: keys of its `runtime`
    comment    lines that say why, which are put above; those of an earlier placement go
    dotted     (node, key) that must be written as `nodes.NODE.runtime.KEY`, because something else goes over `runtime`

    Raises Unwritable.
    """
    bom = "\ufeff" if text.startswith("\ufeff") else ""
    return bom + _Edit.of(text.removeprefix("\ufeff")).placed(placement, comment, set(dotted))


def block_of(placement: Mapping[str, Keys]) -> list[str]:
    """A placement as the lines of a `runtime` section."""
    keys = list(dict.fromkeys(key for each in placement.values() for key in each))
    return ["runtime:", *(f"  {key}: {_flow({node: each[key] for node, each in placement.items() if key in each})}" for key in keys)]


def beside_runtime(text: str) -> Any:  # Any: plain values
    """All that a document says of anything but placement, to be compared. Raises Unwritable."""
    plain = _plain(read_parts(text.removeprefix("\ufeff")))
    if not isinstance(plain, dict):
        return plain
    nodes = plain.get("nodes")
    if isinstance(nodes, dict):
        plain["nodes"] = {name: _without(node, "runtime") for name, node in nodes.items()}
    return {name: value for name, value in plain.items() if not _OF_RUNTIME.match(name)}


def _without(node: Any, key: str) -> Any:  # Any: plain values
    return {name: value for name, value in node.items() if name != key} if isinstance(node, dict) else node


def _plain(part: Part) -> Any:  # Any: plain values
    if part.is_alias:
        return ("*", part.anchor)
    if part.entries is not None:
        return {name.value: _plain(value) for name, value in part.entries}
    return part.value if part.items is None else [_plain(item) for item in part.items]


def read_parts(text: str) -> Part:
    """The document as parts. Raises Unwritable for what is none."""
    try:
        events = iter([event for event in yaml.parse(text, Loader=_LOADER) if not isinstance(event, _FRAMES)])
        return _part(next(events), events)
    except (yaml.YAMLError, StopIteration) as error:
        raise Unwritable("it is no document") from error


_ENDS = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
_FRAMES = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)


def _part(event: Any, events: Iterator[Any]) -> Part:  # Any: event classes of PyYAML have no types
    start, end = event.start_mark.index, event.end_mark.index
    if isinstance(event, yaml.AliasEvent):
        return Part(start, end, is_alias=True, anchor=event.anchor)
    if isinstance(event, yaml.ScalarEvent):
        return Part(start, end, value=event.value)
    parts, inner, is_flow = list[Part](), next(events), bool(event.flow_style)
    while not isinstance(inner, _ENDS):
        parts.append(_part(inner, events))
        inner = next(events)
    closing: Any = inner
    end = closing.end_mark.index
    if isinstance(event, yaml.SequenceStartEvent):
        return Part(start, end, is_flow=is_flow, items=tuple(parts))
    return Part(start, end, is_flow=is_flow, entries=tuple(zip(parts[::2], parts[1::2], strict=True)))


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _flow(values: Mapping[str, str]) -> str:
    return _joined({_word(name): _word(value) for name, value in values.items()})


@dataclass(slots=True)
class _Edit:
    """An edit under way: what is cut out of the text, and what comes there.

    fresh  where whole lines of the outermost level were put in first; None: nowhere
    """

    text: str
    root: Part
    cuts: list[tuple[int, int, str]] = field(default_factory=list)
    fresh: int | None = None

    @classmethod
    def of(cls, text: str) -> _Edit:
        root = read_parts(text)
        if root.entries is None:
            raise Unwritable("it is no mapping of keys")
        return cls(text, root)

    @property
    def newline(self) -> str:
        """How its lines end."""
        return "\r\n" if "\r\n" in self.text else "\n"

    # -- all of it ------------------------------------------------------------------------------------------------------

    def placed(self, placement: Mapping[str, Keys], comment: Sequence[str], dotted: Set[tuple[str, str]]) -> str:
        """The text with all of it set."""
        of_section, of_root = dict[str, dict[str, str]](), dict[str, str]()
        for node, key, value in ((node, key, value) for node, keys in placement.items() for key, value in keys.items()):
            scalar = self._own(node, key)
            if scalar is not None:
                self._replace(scalar, value)
            elif (node, key) in dotted:
                of_root[f"nodes.{node}.runtime.{key}"] = _word(value)
            else:
                of_section.setdefault(key, {})[node] = value
        if of_section:
            self._set_section(of_section)
        if of_root:
            self._add(self.root, of_root)
        if comment and self.cuts:
            self._say(_as_comment(comment))
        pieces, at = list[str](), 0
        for start, end, new in sorted(self.cuts, key=lambda cut: cut[:2]):
            pieces += [self.text[at:start], new]
            at = end
        return "".join([*pieces, self.text[at:]])

    def _own(self, node: str, key: str) -> Part | None:
        """Where the document already sets a key for one node, what goes over the others first."""
        nodes = self.root.get("nodes")
        spec = None if nodes is None else _inside(nodes, node)
        places = (
            self.root.get(f"nodes.{node}.runtime.{key}"),
            _inside(self.root.get(f"nodes.{node}.runtime"), key),
            _inside(_inside(spec, "runtime"), key),
            self.root.get(f"runtime.{key}.{node}"),
        )
        return next((part for part in places if part is not None and part.value is not None), None)

    # -- the section ----------------------------------------------------------------------------------------------------

    def _set_section(self, wanted: Mapping[str, Mapping[str, str]]) -> None:
        """Set `runtime: {key: {node: value}}`, key by key."""
        section = self.root.get("runtime")
        new = dict[str, str]()
        for key, values in wanted.items():
            entry = self.root.get(f"runtime.{key}") or _inside(section, key)
            if entry is None:
                new[key] = _flow(values)
            else:
                self._set_entry(entry, values)
        if not new:
            return
        if section is None:
            self._add_section(new)
        elif section.value in EMPTY:
            self._put(section, _joined(new))
        elif section.entries is None:
            raise Unwritable("its runtime is no mapping that is written there")
        else:
            self._add(section, new)

    def _set_entry(self, entry: Part, values: Mapping[str, str]) -> None:
        """Set a key of the section by node: a plain value becomes the default of all others."""
        if entry.is_alias or entry.is_list:
            raise Unwritable("a key of its runtime is written elsewhere")
        if entry.entries is None:
            rest = {} if entry.value in EMPTY else {"default": self._raw(entry)}
            self._put(entry, _joined({**rest, **{_word(node): _word(value) for node, value in values.items()}}))
            return
        new = dict[str, str]()
        for node, value in values.items():
            known = entry.get(node)
            if known is None:
                new[_word(node)] = _word(value)
            elif known.value is None:
                raise Unwritable(f"what its runtime says of {node} is written elsewhere")
            else:
                self._replace(known, value)
        if new:
            self._add(entry, new)

    def _raw(self, scalar: Part) -> str:
        """A scalar as it can stand within braces."""
        written = self.text[scalar.start : scalar.end]
        is_safe = "\n" not in written and (written[:1] in QUOTES or _PLAIN.fullmatch(written) or written.isalnum())
        return written if is_safe else json.dumps(scalar.value, ensure_ascii=False)

    def _add_section(self, new: Mapping[str, str]) -> None:
        if self.root.is_flow:
            self._add(self.root, {"runtime": _joined(new)})
            return
        self.fresh = self._insert_lines(self.root.last, ["runtime:", *(f"  {key}: {value}" for key, value in new.items())])

    # -- cuts -----------------------------------------------------------------------------------------------------------

    def _replace(self, scalar: Part, value: str) -> None:
        """Put another value in place of one, in its quotes."""
        quote = self.text[scalar.start : scalar.start + 1]
        self._put(scalar, f"{quote}{value}{quote}" if quote in QUOTES and scalar.end > scalar.start else _word(value))

    def _put(self, part: Part, new: str) -> None:
        gap = " " if part.start == part.end and self.text[part.start - 1 : part.start] == ":" else ""
        self.cuts.append((part.start, part.end, gap + new))

    def _add(self, mapping: Part, new: Mapping[str, str]) -> None:
        """Put entries at the end of a mapping, written as the others are."""
        if mapping.is_flow:
            inner = ", ".join(f"{key}: {value}" for key, value in new.items())
            place = mapping.entries[-1][1].last if mapping.entries else mapping.end - 1
            self.cuts.append((place, place, f", {inner}" if mapping.entries else inner))
            return
        assert mapping.entries, "a mapping without brackets has an entry"
        first = mapping.entries[0][0].start
        indent = self.text[self._line_start(first) : first]
        place = self._insert_lines(mapping.last, [f"{indent}{key}: {value}" for key, value in new.items()])
        if mapping is self.root and self.fresh is None:
            self.fresh = place

    def _insert_lines(self, after: int, lines: Sequence[str]) -> int:
        """Put lines behind the line of a place; gives where."""
        place = after if self.text[after - 1 : after] in ("\r", "\n") else self._line_end(after)
        is_open = place == len(self.text) and self.text[place - 1 : place] not in ("\r", "\n")  # the last line has no end
        new = self.newline.join(lines)
        self.cuts.append((place, place, self.newline + new if is_open else new + self.newline))
        return place

    def _line_start(self, place: int) -> int:
        return max(self.text.rfind("\n", 0, place), self.text.rfind("\r", 0, place)) + 1

    def _line_end(self, place: int) -> int:
        """Where the line behind that of a place begins; the end of the text when there is none."""
        match = _BREAK.search(self.text, place)
        return len(self.text) if match is None else match.end()

    # -- the reason -----------------------------------------------------------------------------------------------------

    def _say(self, comment: Sequence[str]) -> None:
        """Put a comment above what changed: the section, new lines, or the line that changed first. That of an earlier placement goes."""
        section = self.root.key("runtime")
        if self.fresh is not None:
            self._say_fresh(self.fresh, comment)
            return
        touched = min(start for start, _, _ in self.cuts)
        is_within = section is not None and not self.root.is_flow and any(start > section.start for start, _, _ in self.cuts)
        place = self._line_start(section.start if section is not None and is_within else touched)
        if place <= self.root.start:  # what stands above the document says what it is for
            place = len(self.text)
        indent = "" if place == len(self.text) else self.text[place : place + len(_INDENT.match(self.text, place)[0])]  # type: ignore[index]
        lines = "".join(f"{indent}{line}{self.newline}" for line in comment)
        is_open = place == len(self.text) and self.text[-1:] not in ("\r", "\n")
        self.cuts.append((self._old_comment(place), place, (self.newline if is_open else "") + lines))

    def _say_fresh(self, place: int, comment: Sequence[str]) -> None:
        """Put a comment above the first of the new lines."""
        index = next(index for index, (start, _, _) in enumerate(self.cuts) if start == place)
        new = self.cuts[index][2]
        head = self.newline if new.startswith(self.newline) else ""
        lines = "".join(f"{line}{self.newline}" for line in comment)
        self.cuts[index] = (self._old_comment(place), place, head + lines + new.removeprefix(head))

    def _old_comment(self, place: int) -> int:
        """Where the comment of an earlier placement begins that ends at a place; that place when there is none."""
        start = place
        while start:
            above = self._line_start(start - (2 if self.text[:start].endswith("\r\n") else 1))
            line = self.text[above:start].lstrip()
            if line.startswith(MARK):
                return above
            if not line.startswith(CONTINUED):
                return place
            start = above
        return place


def _inside(mapping: Part | None, key: str) -> Part | None:
    return None if mapping is None or mapping.is_alias else mapping.get(key)


def _joined(entries: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in entries.items()) + "}"


def _as_comment(lines: Sequence[str]) -> list[str]:
    first, *others = lines
    return [f"{MARK} {first}".rstrip(), *(f"{CONTINUED}{line}" for line in others)]
