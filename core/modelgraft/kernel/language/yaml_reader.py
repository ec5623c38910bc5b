"""Read YAML into items that know where they stand; nothing is ever constructed from a tag.

The language is a plain subset of YAML 1.2: mappings with text keys, lists, and scalars. Of the unquoted words only
`true` and `false` are booleans and `null` and `~` are null: `yes`, `on`, `no` and dates are text. `1e-3` is a number.
Anchors and aliases are read, within a bound; tags, merge keys and several documents in one file are not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from modelgraft.kernel.language.slips import quote_hint, space_hint, space_hint_of_line
from modelgraft.kernel.words.errors import DocumentError, Place, Problem
from modelgraft.kernel.words.graph import Value

MOST_DOCUMENT_BYTES = 4 * 2**20  # a graph of 10,000 nodes takes about 1 MiB
MOST_DEPTH = 100  # the language itself nests six levels; the rest is for values in `with`
MOST_REPEATED = 10_000  # values that aliases may add: anchors of anchors grow exponentially

YamlLoader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Any: the C parser has no type information


class Item(NamedTuple):
    """One value of a document.

    value     None, bool, int, float, str, a list of items, or a dict of items by key
    place     where the value stands;  key  where its key stands, None for what is no entry of a mapping
    layer     file | base | set | flag: what the value's origin will say
    replaced  what it went over, nearest first
    """

    value: Any
    place: Place
    key: Place | None = None
    layer: str = "file"
    replaced: tuple[Value, ...] = ()

    @property
    def at(self) -> Place:
        """The place to report: that of the key, where there is one."""
        return self.key or self.place

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value


_INTEGER = re.compile(r"[-+]?[0-9]{1,100}|0x[0-9a-fA-F]{1,100}|0o[0-7]{1,100}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_NUMBER_STARTS = frozenset("+-.0123456789")


def scalar(text: str) -> Any:
    """Give the value of an unquoted word: null, a boolean, a number, or else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    number = float(text) if _FLOAT.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text  # 1e999 is no number that a float can hold


def read_yaml(text: str, *, file: str, layer: str = "file") -> Item:
    """Read one YAML document of any shape.

    Raises DocumentError: `yaml-syntax`, `empty-file`, `several-documents`, `duplicate-key`, `key-not-text`,
    `unsupported-tag`, `unknown-alias`, `too-many-aliases`, `too-deep`.
    """
    _refuse_odd_breaks(text, file)
    builder = _Builder(file, layer)
    try:
        builder.read(_events(text))
    except yaml.YAMLError as error:
        raise DocumentError([*builder.problems, _syntax_problem(error, text, file)]) from error
    if builder.problems:
        raise DocumentError(builder.problems)
    if builder.root is None:
        raise DocumentError(
            Problem("empty-file", "there is nothing in this file but comments", Place(file), "write a graph: start with `modelgraft: 1`")
        )
    return builder.root


_ODD_BREAK = re.compile("[\x85\u2028\u2029]")


def _refuse_odd_breaks(text: str, file: str) -> None:
    """Refuse characters that YAML 1.1 takes for line breaks, and YAML 1.2 and editors do not: line numbers would be wrong."""
    found = _ODD_BREAK.search(text)
    if found is not None:
        letter = f"U+{ord(found.group()):04X}"
        place = Place(file, text.count("\n", 0, found.start()) + 1)
        hint = f"remove it; inside double quotes it can be written as \\u{ord(found.group()):04x}"
        raise DocumentError(
            Problem("yaml-syntax", f"the character {letter} may or may not be a line break, depending on the reader", place, hint)
        )


def _events(text: str) -> Iterator[Any]:  # Any: event classes of PyYAML have no types
    loader = YamlLoader(text)
    try:
        yield from iter(loader.get_event, None)
    finally:
        loader.dispose()


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read."""

    value: Any
    place: Place
    key: Place | None  # where the key of the container itself stands
    anchor: str | None
    size: int = 1
    waiting: str | None = None  # the key whose value comes next
    waiting_at: Place | None = None
    waiting_is_bare: bool = False  # that key is an unquoted word
    skips: bool = False  # the value that comes next belongs to a key that was refused


class _Builder:
    """Builds items from events, with a stack of its own instead of recursion."""

    def __init__(self, file: str, layer: str) -> None:
        self.file, self.layer = file, layer
        self.root: Item | None = None
        self.problems: list[Problem] = []
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.repeated = 0

    def read(self, events: Iterator[Any]) -> None:
        for event in events:
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._open(event, {} if isinstance(event, yaml.MappingStartEvent) else [])
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
                hint = "keep one graph per file: remove the `---` line and what follows"
                raise self._stop("several-documents", "a second document starts here", event, hint)

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1)

    def _stop(self, code: str, found: str, event: Any, hint: str) -> DocumentError:
        """The error for what must not be read any further, after the problems so far."""
        return DocumentError([*self.problems, Problem(code, found, self._place(event), hint)])

    def _no_key(self, event: Any) -> DocumentError:
        hint = "keys are text; put values with braces or brackets in quotes"
        return self._stop("key-not-text", "a list or mapping stands where a key is wanted", event, hint)

    def _refuse_tag(self, event: Any) -> None:
        if event.tag is not None:
            hint = "write the plain value; put text in quotes to keep it text"
            self.problems.append(
                Problem("unsupported-tag", f"the tag {event.tag} is not part of the graph language", self._place(event), hint)
            )

    def _scalar(self, event: Any) -> None:
        self._refuse_tag(event)
        value = event.value if event.style else scalar(event.value)
        place = self._place(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)
        key_of = self._waits_for_key()
        if key_of is None:
            self._refuse_joined(event)
            self._put(value, place, 1)
        else:
            self._key(key_of, value, place)
            key_of.waiting_is_bare = not event.style

    def _refuse_joined(self, event: Any) -> None:
        """Tell of an unquoted key that holds a colon, and a bracket or no value behind it: `{x:eye}` is one word."""
        top = self.stack[-1] if self.stack else None
        if top is None or top.waiting is None or not top.waiting_is_bare:
            return
        has_value = bool(event.style or event.value)
        hint = space_hint(top.waiting)
        if hint and (not has_value or ":{" in top.waiting or ":[" in top.waiting):
            found = f"'{top.waiting}' is one word to YAML, a key{'' if has_value else ' without a value'}"
            self.problems.append(Problem("yaml-syntax", found, top.waiting_at, hint))

    def _waits_for_key(self) -> _Open | None:
        """The mapping whose next key comes now, if what comes now is a key."""
        top = self.stack[-1] if self.stack else None
        return top if top is not None and isinstance(top.value, dict) and top.waiting is None and not top.skips else None

    def _key(self, top: _Open, value: Any, place: Place) -> None:
        if not isinstance(value, str):
            shown = "null" if value is None else str(value).lower()
            self.problems.append(Problem("key-not-text", f"the key {shown} is not text", place, f'put it in quotes: "{shown}"'))
            top.skips = True
        elif value in top.value:
            first = top.value[value].at.line
            found = f"'{value}' is written twice in the same mapping: in line {first} and in line {place.line}"
            self.problems.append(Problem("duplicate-key", found, place, "keep one of the two, or rename one"))
            top.skips = True
        else:
            top.waiting, top.waiting_at = value, place

    def _open(self, event: Any, value: Any) -> None:
        self._refuse_tag(event)
        if len(self.stack) >= MOST_DEPTH:
            hint = "a graph nests about six levels: look for an unclosed bracket"
            raise self._stop("too-deep", f"values are nested more than {MOST_DEPTH} levels deep", event, hint)
        if self._waits_for_key() is not None:
            raise self._no_key(event)
        top = self.stack[-1] if self.stack else None
        place = self._place(event)
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)
        self.stack.append(_Open(value, place, top.waiting_at if top is not None else None, event.anchor))

    def _close(self) -> None:
        done = self.stack.pop()
        if done.anchor is not None:
            self.anchors[done.anchor] = (done.value, done.size)
        self._put(done.value, done.place, done.size)

    def _alias(self, event: Any) -> None:
        known = self.anchors.get(event.anchor)
        if known is None:
            inside = any(level.anchor == event.anchor for level in self.stack)
            before = f"there is no anchor &{event.anchor} before *{event.anchor}"
            found = f"*{event.anchor} stands inside the value that it names" if inside else before
            hint = "write the value out, or put the text in quotes if the asterisk is meant literally"
            raise self._stop("unknown-alias", found, event, hint)
        value, size = known
        self.repeated += size
        if self.repeated > MOST_REPEATED:
            found = f"aliases repeat more than {MOST_REPEATED} values"
            raise self._stop("too-many-aliases", found, event, "write the values out, or use `extends` and subgraphs to say things once")
        key_of = self._waits_for_key()
        if key_of is None:
            self._put(value, self._place(event), size)
        elif isinstance(value, (dict, list)):
            raise self._no_key(event)
        else:
            self._key(key_of, value, self._place(event))

    def _put(self, value: Any, place: Place, size: int) -> None:
        if not self.stack:
            self.root = Item(value, place, None, self.layer)
            return
        top = self.stack[-1]
        top.size += size
        if isinstance(top.value, list):
            top.value.append(Item(value, place, None, self.layer))
        elif top.waiting is not None:
            top.value[top.waiting] = Item(value, place, top.waiting_at, self.layer)
        top.waiting, top.waiting_at, top.skips, top.waiting_is_bare = None, None, False, False


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return _character_problem(error, text, file)
    place = Place(file, mark.line + 1, mark.column + 1)
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent or line[mark.column : mark.column + 1] == "\t":
        return Problem("yaml-syntax", "a tab stands where YAML wants spaces", place, "indent with spaces")
    what = getattr(error, "problem", None) or "the text cannot be read"
    context = getattr(error, "context", None)
    sentence = f"this is not YAML: {f'{context}, ' if context else ''}{what}"
    began = getattr(getattr(error, "context_mark", None), "line", mark.line)
    return Problem("yaml-syntax", sentence, place, _syntax_hint(what, lines[began : mark.line + 1] or [line]))


def _syntax_hint(what: str, lines: list[str]) -> str:
    """What a person may have meant by the lines from the bracket, key or quote that was open to the place of the error."""
    line = lines[-1]
    if hint := quote_hint("\n".join(lines)) or next(filter(None, map(space_hint_of_line, reversed(lines))), ""):
        return hint
    if line.lstrip().startswith(("@", "`")) or ": @" in line or ": `" in line:
        return "put text that starts with @ or ` in quotes"
    if "mapping values" in what:
        return "put text that holds a colon and a space in quotes, and check the indentation"
    return "check the indentation, brackets and quotes here and in the line above"


def _character_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    position = getattr(error, "position", None)
    line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
    letter = getattr(error, "character", None)
    shown = f"the character U+{letter:04X}" if isinstance(letter, int) else "a control character"
    hint = "remove it; inside double quotes it can be written as an escape such as \\x07"
    return Problem("yaml-syntax", f"{shown} is not allowed in YAML", Place(file, line), hint)
