"""Towers that no formula counts: their parameters are remembered by the digest of their config once they were built.

Light: any plugin may import it. A count is written by whoever builds the tower (`remember`), on the meta device as `plan --exact`
does, or with weights; until then a plan takes the headers of the checkpoint, or says that it does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import cache_root

if TYPE_CHECKING:
    from modelgraft.plugin import Source

FOLDER = "counts"


def counted(facts: Mapping[str, Any]) -> int | None:
    """The parameters of what transformers builds from a config, if that is remembered."""
    try:
        found = json.loads(_file(facts).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, int) else None


def remember(facts: Mapping[str, Any], parameters: int) -> None:
    """Remember them. A cache that cannot be written is as good as an empty one."""
    file = _file(facts)
    if file.is_file():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(parameters), encoding="utf-8")
    except OSError:
        return


def no_card(source: Source, kind: str) -> list[tuple[str, str]]:
    """(sentence, way out) about a tower that no family card speaks of."""
    found = f"no card vouches for the {kind} in {source.text}: it is run as transformers runs it, by what its config states alone"
    return [(found, "compare it with the model itself, or write a card: plugins/modelgraft_plugins/families/README.md")]


def _file(facts: Mapping[str, Any]) -> Path:
    text = json.dumps([version("transformers"), facts], sort_keys=True, default=repr)
    return cache_root() / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
