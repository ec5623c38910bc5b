"""Files that a training has left: the tensors of one node under its module's own names; the header says its component and config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from modelgraft.sources.headers import read_about

KEY = "modelgraft"  # the one entry of the header


def config_in(file: Path, component: str) -> Mapping[str, Any] | None:
    """The config of a component whose trained tensors a file holds; None for any other file.

    component  its id, `namespace/name`
    """
    found = about(file)
    is_it = str(found.get("component", "")).partition("@")[0] == component
    config = found.get("config")
    return config if is_it and isinstance(config, dict) else None


def graft_in(file: Path, component: str) -> Mapping[str, Any] | None:
    """The config of an adapter whose trained tensors a file holds; None for any other file, and for one of several such adapters."""
    grafts = about(file).get("adapters")
    there = [one for one in grafts if isinstance(one, dict)] if isinstance(grafts, list) else []
    found = [one.get("config") for one in there if str(one.get("component", "")).partition("@")[0] == component]
    return found[0] if len(found) == 1 and isinstance(found[0], dict) else None


def about(file: Path) -> Mapping[str, Any]:
    """What the header says of the training; empty for a file that no training of ours has left."""
    if file.suffix != ".safetensors":
        return {}
    try:
        stat = file.stat()
    except OSError:
        return {}
    return _about(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _about(file: Path, _size: int, _changed: int) -> Mapping[str, Any]:
    try:
        found = json.loads(read_about(file).get(KEY, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
