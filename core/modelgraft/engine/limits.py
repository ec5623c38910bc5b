"""How long a node may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.words.graph import Node, Value


def limit_of(node: Node, runtime: Mapping[str, Value], *, opened: float | None) -> float | None:
    """The most seconds a node may take: what the pipeline was opened with, else its own, else that of the graph; None: as long as it likes.

    runtime  of the whole graph

    One that stands for several may take what they may together.
    """
    limits = [limit_of(part, runtime, opened=opened) for part in node.parts]
    if limits:
        return None if None in limits else sum(limit for limit in limits if limit is not None)
    written = runtime.get("timeout_s")
    whole = written.value if written is not None else None
    by_node: Mapping[str, Any] = whole if isinstance(whole, Mapping) else {"default": whole}
    asked = (opened, node.runtime.get("timeout_s"), by_node.get(node.name), by_node.get("default"))
    return next((float(limit) for limit in asked if limit is not None), None)
