"""How far compiled nodes were from torch, kept for `modelgraft plan`: a few numbers for each, by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import ModelgraftError, Node, cache_root, contained

if TYPE_CHECKING:
    from pathlib import Path


def read(node: Node, *, precision: str) -> Mapping[str, Any]:
    """`parity` and `weights` of a node, as `Backend.recorded` gives them; empty when nothing is known."""
    file = _file(node, precision)
    try:
        return {} if file is None else {"parity": {**json.loads(file.read_text(encoding="utf-8")), "how": "compiled"}, "weights": ""}
    except (OSError, ValueError):
        return {}


def write(node: Node, parity: Mapping[str, Any], *, precision: str) -> None:
    """Keep it. A cache that cannot be written is as good as an empty one: the node is compared at every load anyway."""
    file = _file(node, precision)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(parity), encoding="utf-8")
        aside.replace(file)
    except OSError:
        return


def _file(node: Node, precision: str) -> Path | None:
    """Where the note of a node lies; None for weights that nobody can tell from others: random, shared or adapted ones."""
    if node.source is None or node.share is not None or node.adapters or not node.source.weight_files:
        return None
    try:
        with contained():
            facts = [node.component.id, node.component.version, dict(node.config.export_facts()), node.source.identity()]
    except (ModelgraftError, OSError):
        return None
    except Exception:  # noqa: BLE001 code of a plugin may raise anything; what it cannot tell is not kept
        return None
    machine = [platform.machine(), platform.processor(), version("torch")]
    text = json.dumps([facts, precision, machine, [str(port) for port in node.in_ports.values()]], sort_keys=True, default=str)
    return cache_root() / "compiled" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
