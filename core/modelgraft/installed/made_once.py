"""What is made of all that the installed plugins offer, kept beside the index of these: made again when anything has changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelgraft.installed import indexed
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.records.publishing import file_aside


def made_once(registry: Registry, name: str, make: Callable[[], Any], *, beside: object = None) -> Any:
    """What `make` gives, as JSON holds it, or gave before for the same plugins and the same code. `Any`: JSON.

    name    one for each such thing: the ending of its file
    beside  what else it depends on, as `repr` tells it

    Whatever cannot be read or written is as good as not there. Nothing is kept of a registry that was not made of the index.
    """
    index = indexed.file_of(registry)
    if index is None:
        return make()
    file = index.with_suffix(f".{name}")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["of"] == _digest(index, beside) and indexed.are_as_they_were(kept["files"]):
            return kept["made"]
    found = make()
    with contextlib.suppress(OSError):
        facts = {"of": _digest(index, beside), "files": indexed.imported_files(), "made": found}
        with file_aside(file) as aside:
            aside.write_text(json.dumps(facts), encoding="utf-8")
    return found


def _digest(index: Path, beside: object) -> str:
    return hashlib.sha256(index.read_bytes() + repr(beside).encode()).hexdigest()
