"""What makes a whole run short without leaving anything out: hooks that `conftest.py` takes over."""

from __future__ import annotations

import atexit
import copy
import gc
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from modelgraft.installed import discovery, indexed
from modelgraft.kernel.shelf.registry import Registry
from support import chat_workers
from support.forking import forks
from support.sampling import WHOLE


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the files with the most slow tests begin, where several processes take one after the other: none is left for the end."""
    leave_to_whole_runs(items)
    if not WHOLE:
        sample(config, items)
    if hasattr(config, "workerinput"):  # set by xdist in its processes
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


def leave_to_whole_runs(items: list[pytest.Item]) -> None:
    """Mark cases of tables as slow but for as many as `@pytest.mark.quick(count)` says, spread over the table with the first among them."""
    for (most,), cases in tables(items, "quick"):
        count = min(most, len(cases))
        kept = {number * len(cases) // count for number in range(count)}
        for number, case in enumerate(cases):
            if number not in kept:
                case.add_marker("slow")


def sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases of tables but for those that `@pytest.mark.sampled("one", "other")` names, or for those that are asked for alone."""
    left = set()
    for named, cases in tables(items, "sampled"):
        by_name = {case.nodeid.partition("[")[2].removesuffix("]"): case for case in cases}
        if len(cases) > len(named) and (unknown := [name for name in named if name not in by_name]):
            raise pytest.UsageError(f"{cases[0].nodeid.partition('[')[0]} is sampled by {unknown}; its cases: {', '.join(by_name)}")
        if set(named) & by_name.keys():
            left |= {case for name, case in by_name.items() if name not in named}
    if left:
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]


def tables(items: Iterable[pytest.Item], name: str) -> list[tuple[tuple[Any, ...], list[pytest.Item]]]:
    """The cases of each test that has a mark, and what the mark says."""
    found: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker(name):
            found.setdefault(item.nodeid.partition("[")[0], []).append(item)
    marks = [(cases[0].get_closest_marker(name), cases) for cases in found.values()]
    return [(mark.args, cases) for mark, cases in marks if mark is not None]


def pytest_collection() -> None:
    """Look for no garbage while tests are gathered: what is imported and gathered stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Do once what would be done for each test: what was imported is no garbage, and the operators of the exporter stay the same."""
    gc.freeze()  # a look for garbage takes half a second otherwise, and each export begins one
    gc.enable()
    keep_plugins()
    if "torch" in sys.modules:
        keep_operators()
    if "modelgraft_plugins.onnx.tuning" in sys.modules:
        try_tuned_graphs_in_forks()
    if rendering := sys.modules.get("modelgraft_plugins.chat_rendering"):
        chat_workers.share(rendering)


def keep_plugins() -> None:
    """Let a process find out once what is installed: each graph that is read asks, and looks at the time of some thousand files.

    What is found is the same for all tests that put nothing else in the place of it; what finds it has its own, test_indexed.py.
    """
    if not isinstance(indexed.registry_in, _Found):
        indexed.registry_in = _Found(indexed.registry_in)


class _Found:
    """Stands for `indexed.registry_in`: gives what is installed as it reads it from a folder, for each search path once."""

    def __init__(self, real: Callable[..., Registry]) -> None:
        self.real, self.known = real, dict[tuple[str, ...], Registry]()

    def __call__(self, folder: Path, *, keep: bool = True) -> Registry:
        if not discovery.is_usual():
            return self.real(folder, keep=keep)
        path = tuple(sys.path)
        if path not in self.known:
            own = tempfile.TemporaryDirectory()  # what is made of all plugins is kept beside what is known of them
            atexit.register(own.cleanup)
            self.real(Path(own.name))
            self.known[path] = self.real(Path(own.name))
        return self.known[path]


def try_tuned_graphs_in_forks() -> None:
    """Let what tries a tuned graph be a fork: each export has one, and starting an interpreter takes longer than all else that it does."""
    from modelgraft_plugins.onnx import tuning

    if hasattr(os, "fork"):
        tuning.subprocess = forks("onnxruntime", tuning.__name__)  # type: ignore[assignment]


def keep_operators() -> None:
    """Let the exporter read its table of operators once in a process: it parses the source of all of them for each export."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read: Any = ONNXRegistry.from_torchlib
    if not hasattr(read, "kept"):
        ONNXRegistry.from_torchlib = Kept(read)  # type: ignore[method-assign, assignment]


class Kept:
    """Gives each caller a table of its own, with the same entries."""

    def __init__(self, read: Any) -> None:
        self.read, self.kept = read, lru_cache(maxsize=None)(read)

    def __call__(self, **options: Any) -> Any:
        found = copy.copy(self.kept(**options))
        found.functions = {target: list(entries) for target, entries in found.functions.items()}
        return found
