"""Sweep files: a bench written down. Read as graph documents are, with the line of every mistake.

    sweep: 1                                # version of these files
    graphs: [caption.yaml]                  # names, or files beside this one
    set: {max_new_tokens: 8}                # what holds for every cell
    axes:
      eye: [siglip, clip]                   # values of a param, a node, a setting, or of backend, precision, ...
      connector:                            # or variants by name, each of which sets several things
        plain:   {nodes.join.use: projector/linear}
        queries: {nodes.join.use: resampler/perceiver, queries: 16}
    records: pictures.jsonl                  # or input: {image: cat.png}
    metrics: [word_f1]
    method: {rounds: 8, cold: 0}

Graphs by file and records are seen from the folder of the sweep file, and so are texts that begin with `./` or `../`, also
behind `graph:`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from modelgraft.commands import (
    Collector,
    DocumentError,
    Item,
    described,
    entries_of,
    path_from_here,
    read_items,
    seen_from_here,
    written_out,
)
from modelgraft.plugin import choices, home_read, nearest
from modelgraft_plugins.benching.asking import METHOD, OPTIONS, method_of
from modelgraft_plugins.benching.sweeps import Axis, Point, Sweep, simple_axis
from modelgraft_plugins.benching.words import Text, value_named

T = TypeVar("T")

SWEEP_VERSION = 1
ENDINGS = (".yaml", ".yml")
KEYS: Mapping[str, str] = {
    "sweep": "Version of sweep files: 1.",
    "graphs": "Names of shipped graphs, or files beside this one.",
    "set": "What holds for every cell, as --set has it.",
    "axes": "What is varied, by name: a list of values, or variants by name that set several things at once.",
    "records": "The data: a file or a folder.",
    "input": "One record in place of data, by input.",
    "outputs": "What is wanted of a run.",
    "metrics": "How answers are scored.",
    "method": f"How it is measured: {', '.join(METHOD)}.",
    "allow": "What may stand in a graph nevertheless: [unused].",
    **{name: f"As --{name.replace('_', '-')}." for name in OPTIONS},
}


def sweep_in(name: str) -> Sweep | None:
    """The sweep that a file holds; None for a name of something else, such as a graph. Raises DocumentError with every mistake."""
    path = Path(name)
    if path.suffix not in ENDINGS or not path.is_file():
        return None
    try:
        root = read_items(path)
    except DocumentError:
        return None  # read as a graph, it is told what is wrong with it
    if not isinstance(root.value, dict) or "sweep" not in root.value:
        return None
    return _SweepFile(path, root).read()


class _SweepFile:
    """Reads one file; every problem is collected."""

    def __init__(self, path: Path, root: Item) -> None:
        self.folder, self.root, self.collector = path.parent, root, Collector()

    def read(self) -> Sweep:
        """The sweep. Raises DocumentError."""
        entries: dict[str, Item] = self.root.value
        for key, item in entries.items():
            if key not in KEYS:
                self._tell("unknown-key", f"'{key}' is no key of a sweep; there are: {choices(KEYS)}", item, nearest(key, KEYS))
        self._check_version(entries["sweep"])
        graphs = tuple(self._beside(name) if name.endswith(ENDINGS) else name for name in self._texts(entries.get("graphs"), "graphs"))
        named = entries.get("graphs", self.root)
        if named is self.root or named.value == []:
            self._tell("missing-key", "the sweep names no graphs", named, "add `graphs: [describe]`")
        found: dict[str, Any] = {  # Any: of each field of a Sweep
            "graphs": graphs,
            "settings": dict(self._settings(entries.get("set"), "set")),
            "axes": tuple(self._axes(entries.get("axes"))),
            "records": self._beside(records) if (records := self._text(entries.get("records"), "records")) is not None else None,
            "inputs": tuple((name, str(value)) for name, value in self._settings(entries.get("input"), "input")),
            "metrics": self._texts(entries.get("metrics"), "metrics"),
            "outputs": self._texts(entries.get("outputs"), "outputs") or None,
            "allow": self._texts(entries.get("allow"), "allow"),
            "options": {name: self._text(entries[name], name) for name in OPTIONS if name in entries},
        }
        if "records" in entries and "input" in entries:
            self._tell("wrong-value", "records and input are both given", entries["input"], "keep one of the two")
        method = self._method(entries.get("method"))
        if self.collector.problems:
            raise DocumentError(self.collector.problems)
        return Sweep(method=method, **found)

    def _tell(self, code: str, found: str, item: Item, hint: str = "") -> None:
        self.collector.add(code, found, place=item.at, hint=hint)

    def _check_version(self, item: Item) -> None:
        if item.value != SWEEP_VERSION or isinstance(item.value, bool):
            found = f"sweep: states the version of these files, but it is {described(item.value)}; this release reads {SWEEP_VERSION}"
            self._tell("unknown-version", found, item, f"write `sweep: {SWEEP_VERSION}`")

    # -- values ----------------------------------------------------------------------------------------------------------

    def _text(self, item: Item | None, what: str) -> str | None:
        """A text as it is written."""
        if item is None:
            return None
        if not isinstance(item.value, str):
            self._tell("wrong-type", f"{what} is {described(item.value)}; wanted a text", item)
            return None
        return item.value

    def _texts(self, item: Item | None, what: str) -> tuple[str, ...]:
        """Texts: one, or a list of them."""
        if item is None:
            return ()
        items = item.value if isinstance(item.value, list) else [item]
        return tuple(text for one in items if (text := self._text(one, what)) is not None)

    def _beside(self, name: str) -> str:
        """A file as it is seen from where the command runs; with its `./`, so that it is a path to everybody."""
        if home_read(name).is_absolute():
            return name
        return path_from_here(name, self.folder)

    def _value(self, item: Item) -> Any:  # Any: what YAML holds
        """A value as YAML has it; a text is marked as one."""
        return Text(seen_from_here(item.value, self.folder)) if isinstance(item.value, str) else item.plain()

    def _settings(self, item: Item | None, what: str) -> Iterator[tuple[str, Any]]:  # Any: what YAML holds
        return written_out(item, what, self.collector, value=self._value)

    # -- axes and method -------------------------------------------------------------------------------------------------

    def _axes(self, item: Item | None) -> Iterator[Axis]:
        for name, axis in entries_of(item, "axes", self.collector).items():
            if isinstance(axis.value, dict):
                points = tuple(
                    Point(value_named(label), dict(self._settings(one, f"axes.{name}.{label}"))) for label, one in axis.value.items()
                )
                found: Axis | None = Axis(name, points, str(axis.at))
            else:
                found = self._listed(name, axis)
            if found is not None and not found.points:
                self._tell("wrong-value", f"the axis '{name}' has no values", axis, "give at least one")
            elif found is not None:
                yield found

    def _listed(self, name: str, axis: Item) -> Axis | None:
        if not isinstance(axis.value, list):
            found = f"the axis '{name}' is {described(axis.value)}; wanted a list of values, or variants by name"
            self._tell("wrong-type", found, axis, f"write `{name}: [a, b]`")
            return None
        values = [self._value(one) for one in axis.value]
        for number, one in enumerate(axis.value):
            if values.index(values[number]) < number:
                self._tell("wrong-value", f"the axis '{name}' has {described(one.plain())} twice", one, "keep one of the two")
        return self._read(lambda: simple_axis(name, values, str(axis.at)), axis, f"axes.{name}")

    def _method(self, item: Item | None) -> Any:  # Any: a Method, or None where it has problems
        entries = entries_of(item, "method", self.collector)
        for key, one in entries.items():
            if key not in METHOD:
                self._tell("unknown-key", f"'{key}' is no key of method; there are: {choices(METHOD)}", one, nearest(key, METHOD))
            else:
                self._read(lambda key=key, one=one: method_of({key: one.plain()}), one, "method")  # type: ignore[misc]
        if self.collector.problems:
            return None
        return method_of({key: one.plain() for key, one in entries.items()})

    def _read(self, read: Callable[[], T], item: Item, what: str) -> T | None:
        try:
            return read()
        except ValueError as error:
            self._tell("wrong-value", f"{what}: {error}", item)
            return None
