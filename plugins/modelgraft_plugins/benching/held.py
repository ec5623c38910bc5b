"""The pipelines that a host holds, and what it can be asked: to open one, to run it with a clock in hand, to answer, to look.

Imported in the process of the host alone.
"""

from __future__ import annotations

import base64
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import modelgraft as mg
from modelgraft.commands import for_command, size_bytes
from modelgraft.plugin import hookimpl
from modelgraft_plugins.benching.opened import Giver, Opened, open_graph
from modelgraft_plugins.benching.outcomes import Outcomes, told_error
from modelgraft_plugins.benching.starting import peaks

BYTES = "bytes in base64"  # the key of a value of bytes in a line of records
MEDIA = ("image", "video")  # inputs by which records may belong together


class Records:
    """The records that every cell runs, in a file of one line each, of which only those that are asked for are read."""

    def __init__(self, path: Path) -> None:
        self._path, self._starts = path, [0]
        with path.open("rb") as file:
            self._starts += [file.tell() for _ in iter(file.readline, b"")]

    def at(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """The columns of some records."""
        with self._path.open("rb") as file:
            return [self._read(file, place) for place in places]

    def _read(self, file: Any, place: int) -> dict[str, Any]:
        file.seek(self._starts[place])
        found: dict[str, Any] = json.loads(file.readline(), object_hook=_unpacked)
        return found


def write_records(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write records for `Records`. Raises InputError for a value that JSON has not, and that is no bytes."""
    with path.open("w", encoding="utf-8") as file:
        for number, record in enumerate(records):
            try:
                file.write(json.dumps(dict(record), default=_packed) + "\n")
            except TypeError as error:
                raise mg.InputError(f"record {number} {error}; wanted: texts, numbers, lists of such, or names of files") from error


def _packed(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {BYTES: base64.b64encode(value).decode()}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"holds a {type(value).__name__}, which cannot be sent to the processes that measure")


def _unpacked(found: dict[str, Any]) -> Any:
    return base64.b64decode(found[BYTES]) if found.keys() == {BYTES} else found


class Held:
    """What this process holds, by the id of the cell."""

    def __init__(self, records: Path) -> None:
        self._records = Records(records)
        self._open: dict[str, Opened] = {}
        self._givers: dict[str, Giver] = {}

    def does(self) -> dict[str, Callable[..., Any]]:
        """What it can be asked."""
        return {"open": self.open, "close": self.close, "run": self.run, "look": self.look, "answer": self.answer, "peaks": peaks}

    def open(self, *, cell: str, outputs: Sequence[str] | None, upstream: Mapping[str, Any] | None = None, **facts: Any) -> None:
        """Open a graph, of which `facts` are those that `open_graph` takes; nothing of it is loaded yet.

        upstream  what it shares with others: the `nodes`, the `ports` that they give, and the `facts` of the graph that gives them
        """
        self.close(cell=cell)
        warnings.simplefilter("ignore", mg.ModelgraftWarning)  # they are gathered with the results
        pipeline = open_graph(facts) if upstream is None else open_graph(facts, given=upstream["nodes"], wanted=outputs)
        giver = None if upstream is None else self._giver(upstream)
        self._open[cell] = Opened(pipeline, list(outputs or pipeline.plan.wanted), giver=giver)

    def _giver(self, upstream: Mapping[str, Any]) -> Giver:
        """What gives shared nodes: one for all cells of this process that share them."""
        key = json.dumps(upstream, sort_keys=True)
        if key not in self._givers:
            self._givers[key] = Giver(open_graph(upstream["facts"], wanted=upstream["ports"]), upstream["ports"])
        return self._givers[key]

    def close(self, *, cell: str) -> None:
        """Free a pipeline; one that is not there is none to free."""
        found = self._open.pop(cell, None)
        if found is not None:
            found.pipeline.close()

    def run(self, *, cell: str, records: Sequence[int], writes: str = "") -> Any:
        """Run some records once with nothing from any cache, by the clock.

        writes  the node that writes text, whose pieces are timed as well; "": none is, and nobody watches the run

        Gives `wall` and `cpu` seconds, `spans` of the nodes as [node, start, end] in seconds from the call on, and with `writes`
        when the first piece came and when the node was done.
        """
        held = self._open[cell]
        inputs = held.inputs(records, self._records.at(records))
        with held.pipeline.without_cache():
            return _streamed(held, inputs, writes) if writes else _timed(held, inputs)

    def answer(self, *, cell: str, records: Sequence[int], folder: str) -> Any:
        """Run some records as a batch, untimed, and keep what they answer in a folder. Those that fail are told, and the others go on.

        Gives `failed`, a list of [record, place, text], `wall` seconds, and by record how many `tokens` the node that writes wrote.
        """
        held, outcomes = self._open[cell], Outcomes(Path(folder))
        failed, tokens = list[Any](), dict[str, int]()
        rows = [held.alone(place, record) for place, record in zip(records, self._records.at(records), strict=True)]
        start = time.perf_counter()
        with held.pipeline.without_cache():
            results = list(held.pipeline.map(rows, batch_size=len(rows), outputs=[*held.wanted, *held.counting.values()]))
        wall = time.perf_counter() - start
        for place, result in zip(records, results, strict=True):
            if result.error is not None:
                told = told_error(result.error)
                failed.append([place, told["place"], told["text"]])
                continue
            outcomes.add(place, {name: result[name] for name in held.wanted})
            for output in held.counting.values():
                tokens[str(place)] = int((result[output] >= 0).sum())
        return {"failed": failed, "wall": wall, "tokens": tokens}

    def look(self, *, cell: str, records: Sequence[int]) -> Any:
        """Run some records twice, watched and with the cache that a user has: what moves, who writes, what the cache spares.

        Gives `edges` (bytes of a record by wire), `writes` (the last node that writes text), `cached` (the nodes that the second
        run was spared), `held` (bytes of weights by device), `media` (the inputs that are pictures) and `warnings`.
        """
        held = self._open[cell]
        inputs = held.inputs(records, self._records.at(records))
        edges, writers = _watched(held.pipeline, inputs, held.wanted)
        edges = {wire: size // len(records) for wire, size in edges.items()}
        again = held.pipeline.run(outputs=held.wanted, **inputs)
        with held.pipeline.without_cache():
            pass  # what was kept for the second run takes memory
        writes = next((step.node.name for step in reversed(held.pipeline.plan.steps) if step.node.name in writers), "")
        held.counting = self._countable(held, writes, inputs)
        taken = {device: size for device, size in held.pipeline.memory.taken.items() if size}
        return {
            "edges": edges, "writes": writes, "cached": sorted(again.cached), "held": taken, "warnings": list(again.warnings),
            "media": [name for name, item in held.pipeline.plan.graph.inputs.items() if str(item.port) in MEDIA],
        }  # fmt: skip

    def _countable(self, held: Opened, writes: str, inputs: Mapping[str, Any]) -> dict[str, str]:
        """The port that gives the tokens of the node that writes, where it has one."""
        port = f"{writes}.ids"
        if not writes or port in held.wanted:
            return {}
        try:
            held.pipeline.run(outputs=[port], **inputs)
        except mg.ModelgraftError:
            return {}
        return {writes: port}


# -- by the clock -------------------------------------------------------------------------------------------------------


def _timed(held: Opened, inputs: Mapping[str, Any]) -> dict[str, Any]:
    cpu, start = time.process_time(), time.perf_counter()
    result = held.pipeline.run(outputs=held.wanted, **inputs)
    end = time.perf_counter()
    return _clocked(result, start, end, time.process_time() - cpu)


def _clocked(result: mg.Result, start: float, end: float, cpu: float) -> dict[str, Any]:
    spans = [[span.node, span.start - start, span.end - start] for span in result.timeline.read()]
    return {"wall": end - start, "cpu": cpu, "spans": spans}


def _streamed(held: Opened, inputs: Mapping[str, Any], writes: str) -> dict[str, Any]:
    cpu, start, began = time.process_time(), time.perf_counter(), time.time()
    first = done = None
    pieces = 0
    with held.pipeline.stream(outputs=held.wanted, **inputs) as events:
        for event in events:
            if event.node != writes:
                continue
            if event.kind == "token":
                first, pieces = first or event.time, pieces + 1
            elif event.kind == "node-finished":
                done = event.time
        result = events.result
    end = time.perf_counter()
    found = _clocked(result, start, end, time.process_time() - cpu)
    if first is not None and done is not None:
        found |= {"first": first - began, "done": done - began, "pieces": pieces}
    return found


# -- what moves ---------------------------------------------------------------------------------------------------------


class _Sizes:
    """Hears what each node gives, and keeps how large it is."""

    def __init__(self) -> None:
        self.by_port: dict[str, int] = {}

    @hookimpl
    def after_node(self, node: str, outputs: Mapping[str, Any]) -> None:
        """Measure the outputs of a node."""
        for port in outputs:
            size = size_bytes(outputs[port])
            if size is not None:
                self.by_port[f"{node}.{port}"] = size


def _watched(pipeline: mg.Pipeline, inputs: Mapping[str, Any], wanted: list[str]) -> tuple[dict[str, int], set[str]]:
    """Bytes by wire of a run, and the nodes that wrote text in it."""
    sizes, manager = _Sizes(), pipeline.plan.graph.graph.registry.manager
    given = {name: value for name, value in inputs.items() if "." in name}  # of nodes that are shared
    read = [f"inputs.{name}" for name in sorted({name for step in pipeline.plan.steps for name in step.reads} - given.keys())]
    manager.register(sizes)
    try:
        with pipeline.stream(outputs=[*wanted, *read], **inputs) as events:  # an input as it was read: a picture, not the name of its file
            writers = {event.node for event in events if event.kind == "token"}
            values = {f"inputs.{name}": value for name, value in given.items()} | dict(events.result)
    finally:
        manager.unregister(sizes)
    sizes.by_port |= {name: size for name, value in values.items() if (size := size_bytes(value)) is not None}
    wires = [
        (str(ref), f"{step.node.name}.{port}")
        for step in pipeline.plan.steps
        for port, refs in step.node.wired.items()
        for ref in refs
    ]  # fmt: skip
    return {f"{_shown(giver)} -> {taker}": sizes.by_port[giver] for giver, taker in wires if giver in sizes.by_port}, writers


def _shown(giver: str) -> str:
    """The giving end of a wire: what a shared node gives is called as in the whole graph."""
    name = giver.removeprefix("inputs.")
    return name if "." in name else giver


def told_errors(error: BaseException) -> list[dict[str, str]]:
    """An error as reasons: each problem of a graph is one."""
    problems = getattr(error, "problems", None) or ()
    if not problems:
        return [told_error(error)]
    return [
        {
            "code": one.code,
            "text": for_command(f"{one.found}{f'; {one.hint}' if one.hint else ''}"),
            "place": one.place.short if one.place else "",
        }
        for one in problems
    ]
