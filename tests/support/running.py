"""A registry of small components that only run: what the tests of the runtime wire together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

import modelgraft as mg
from modelgraft.engine.layout import Layout, arrange
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.shelf.registry import Registry

TEXT = {"x": "text"}


def registry_of(*components: Any, **hooks: Any) -> Registry:
    """A registry with these components; `hooks` are observing hooks by name."""

    @mg.hookimpl
    def register_components(register):
        for subject in components:
            register(subject)

    plugin = ModuleType("toy")
    vars(plugin).update(register_components=register_components, **hooks)
    found = assemble({"toy": plugin})
    assert not found.quarantined(), found.quarantined()
    return found


def graph_of(registry: Registry, folder: Path, text: str | Mapping[str, Any]) -> Any:
    """Write a document into a folder, read and check it."""
    path = folder / "toy.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(dict(text)), encoding="utf-8")
    return mg.check(mg.load(path, registry=registry))


def document(nodes: Mapping[str, Any], *, inputs: Mapping[str, Any], outputs: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A document as a mapping."""
    return {"modelgraft": 1, "name": "toy", "inputs": dict(inputs), "nodes": dict(nodes), "outputs": dict(outputs), **more}


def function(id: str, inputs: Mapping[str, str], outputs: Mapping[str, str], run: Any, **facts: Any) -> Any:
    """Declare a function whose parameters are the input ports."""
    run.__doc__ = "Do what the test says."
    return mg.component(id, kind="head", inputs=inputs, outputs=outputs, **facts)(run)


def joiner(count: int) -> Any:
    """A component `toy/join<count>` that gives, per record, the tuple of its inputs."""
    names = [f"x{index}" for index in range(count)]
    scope: dict[str, Any] = {}
    exec(f"def join({', '.join(names)}):\n    return list(zip({', '.join(names)}, strict=True))", scope)
    return function(f"toy/join{count}", dict.fromkeys(names, "object"), {"out": "object"}, scope["join"])


def handing_on(id: str = "toy/same", **facts: Any) -> Any:
    """A component that hands its input on."""
    return function(id, {"x": "object"}, {"out": "object"}, lambda x: x, **facts)


def meeting(count: int, id: str = "toy/meet") -> Any:
    """A component that goes on once so many of its calls are under way at the same time, and fails when they never are."""
    together = threading.Barrier(count, timeout=60)

    def wait(x):
        time.sleep(0.02)  # what costs nothing is run one after the other
        together.wait()
        return x

    return function(id, {"x": "object"}, {"out": "object"}, wait)


class Counter:
    """Counts calls, also from several threads."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self._lock = threading.Lock()

    def note(self, what: Any) -> None:
        """Count one call."""
        with self._lock:
            self.calls.append(what)


def shout(x: list[str]) -> list[str]:
    """Write each text in capitals."""
    return [text.upper() for text in x]


def opened(
    tmp_path: Path,
    parts: Sequence[Any],
    nodes: Mapping[str, Any],
    *,
    outputs: Mapping[str, str],
    inputs: Mapping[str, Any] | None = None,
    hooks: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A pipeline of these nodes."""
    graph = graph_of(registry_of(*parts, **(hooks or {})), tmp_path, document(nodes, inputs=inputs or TEXT, outputs=outputs))
    return mg.open(graph, **options)


def shouting(tmp_path: Path, **options: Any) -> Any:
    """Text in capitals, joined with a second input that has a default."""
    parts = [function("toy/shout", TEXT, {"out": "text"}, shout), joiner(2)]
    nodes = {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "end": {"use": "toy/join2", "in": {"x0": "loud", "x1": "inputs.y"}}}
    inputs = {"x": "text", "y": {"type": "text", "default": "-"}}
    return opened(tmp_path, parts, nodes, inputs=inputs, outputs={"both": "end", "loud": "loud"}, **options)


def fan(width: int, use: str, **more: Any) -> dict[str, Any]:
    """One source, `width` branches, one join."""
    nodes = {f"b{index}": {"use": use, "in": {"x": "inputs.x"}} for index in range(width)}
    nodes["end"] = {"use": f"toy/join{width}", "in": {f"x{index}": f"b{index}" for index in range(width)}}
    return document(nodes, inputs={"x": "object"}, outputs={"out": "end"}, **more)


def fresh(body: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of its own around a body, which several components may share."""

    def run(x: Any) -> Any:
        return body(x)

    return run


def branches(tmp_path: Path, *bodies: Callable[[Any], Any], **more: Any) -> Any:
    """A graph of parallel nodes n0, n1, ... with these functions, wanted one by one."""
    parts = [function(f"toy/n{index}", {"x": "object"}, {"out": "object"}, fresh(body)) for index, body in enumerate(bodies)]
    nodes = {f"n{index}": {"use": f"toy/n{index}", "in": {"x": "inputs.x"}, **more.get(f"n{index}", {})} for index in range(len(bodies))}
    outputs = {f"o{index}": f"n{index}" for index in range(len(bodies))}
    return graph_of(registry_of(*parts), tmp_path, document(nodes, inputs={"x": "object"}, outputs=outputs))


def lanes(tmp_path: Path, lane: str, body: Callable[[Any], Any], count: int = 4) -> Layout:
    """Parallel jobs in one lane."""
    graph = branches(tmp_path, *([body] * count))
    plan = mg.plan(graph)
    steps = [replace(step, lane=lane) for step in plan.steps]
    return arrange(steps, wanted=tuple(plan.wanted.values()))
