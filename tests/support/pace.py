"""What makes a whole run short without leaving anything out: hooks that `conftest.py` takes over."""

from __future__ import annotations

import copy
import gc
import sys
from collections import Counter
from functools import lru_cache
from typing import Any

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the files with the most slow tests begin, where several processes take one after the other: none is left for the end."""
    if hasattr(config, "workerinput"):  # set by xdist in its processes
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """Do once what would be done for each test: what was imported is no garbage, and the operators of the exporter stay the same."""
    gc.collect()
    gc.freeze()  # a look for garbage takes half a second otherwise, and each export begins one
    if "torch" in sys.modules:
        keep_operators()


def keep_operators() -> None:
    """Let the exporter read its table of operators once in a process: it parses the source of all of them for each export."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read: Any = ONNXRegistry.from_torchlib
    if not hasattr(read, "kept"):
        ONNXRegistry.from_torchlib = _Kept(read)  # type: ignore[method-assign, assignment]


class _Kept:
    """Gives each caller a table of its own, with the same entries."""

    def __init__(self, read: Any) -> None:
        self.read, self.kept = read, lru_cache(maxsize=None)(read)

    def __call__(self, **options: Any) -> Any:
        found = copy.copy(self.kept(**options))
        found.functions = {target: list(entries) for target, entries in found.functions.items()}
        return found
