"""How far decoders on llama.cpp were from torch, and what their modules say of themselves: kept under all that it depends on. Light."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import ModelgraftError, Node, cache_root, contained
from modelgraft_plugins.processor import machine_key

if TYPE_CHECKING:
    from pathlib import Path

FACTS = "facts"  # in place of a variant: what holds for all of them


def recorded(node: Node) -> Mapping[str, Any]:
    """`parity` and `weights` of a node, as `Backend.recorded` gives them; empty when nothing is known."""
    found = read(node)
    return {"parity": {**found["parity"], "how": "run by llama.cpp"}, "weights": found["weights"]} if found else {}


def read(node: Node, *, variant: str = "") -> Mapping[str, Any]:
    """The note of a node: `parity`, and `weights` in words; empty where it was never compared."""
    found = _read(_file(node, variant))
    return found if isinstance(found, dict) and {"parity", "weights"} <= found.keys() else {}


def facts(node: Node) -> Mapping[str, Any] | None:
    """What the module of a node says of itself, so that it need not be built; None where it was never compared."""
    found = _read(_file(node, FACTS))
    return found if isinstance(found, dict) and found else None


def write(node: Node, parity: Mapping[str, Any], weights: str, *, told: Mapping[str, Any], variant: str = "") -> str:
    """Keep it, and what its module says of itself (`told`); gives what a user must know when that cannot be."""
    try:
        _write(_file(node, variant), {"parity": dict(parity), "weights": weights})
        _write(_file(node, FACTS), dict(told))
    except OSError as error:
        return f"what was compared with torch cannot be kept ({error.strerror}): every start compares again"
    return ""


def _read(file: Path | None) -> Any:
    try:
        return None if file is None else json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(file: Path | None, what: Mapping[str, Any]) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".new")
    aside.write_text(json.dumps(what), encoding="utf-8")
    aside.replace(file)


def _file(node: Node, variant: str) -> Path | None:
    """Where the note of a node lies; None for weights that nobody can tell from others."""
    if node.source is None or node.share is not None or node.adapters or not node.source.weight_files:
        return None
    try:
        with contained():
            facts = [node.component.id, node.component.version, dict(node.config.export_facts()), node.source.identity()]
        machine = [machine_key(), version("llama-cpp-python")]
    except (ModelgraftError, OSError, PackageNotFoundError):
        return None
    except Exception:  # noqa: BLE001 code of a plugin may raise anything; what it cannot tell is not kept
        return None
    text = json.dumps([facts, variant, machine], sort_keys=True, default=str)
    return cache_root() / "llamacpp" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
