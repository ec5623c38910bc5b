"""A registry of small components that only run: what the tests of the runtime wire together."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

import modelgraft as mg
from modelgraft.registry import Registry, assemble


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


def sleeping(seconds: float, id: str = "toy/sleep") -> Any:
    """A component that waits outside the GIL and hands its input on."""

    def sleep(x):
        time.sleep(seconds)
        return x

    return function(id, {"x": "object"}, {"out": "object"}, sleep)


class Counter:
    """Counts calls, also from several threads."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self._lock = threading.Lock()

    def note(self, what: Any) -> None:
        """Count one call."""
        with self._lock:
            self.calls.append(what)
