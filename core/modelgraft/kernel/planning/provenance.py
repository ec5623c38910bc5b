"""What a result depends on, as a key: equal keys and equal inputs mean equal results.

The seed and the values of the graph's inputs are not in it: whoever keeps results adds those (`Step.reads` lists the inputs).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import GraphError
from modelgraft.kernel.words.graph import Node, Ref, SolvedGraph
from modelgraft.kernel.words.guard import contained
from modelgraft.kernel.words.kinds import Component, Config
from modelgraft.kernel.words.source import Source


def key_of(node: Node, graph: SolvedGraph, upstream: Mapping[str, str], *, backend: str, dtype: str) -> str:
    """The key of a node's results; "" when a source cannot tell what it holds, here or upstream.

    upstream  the keys of the nodes before it, by name
    """
    owner = graph.nodes[node.share] if node.share else node
    registry = graph.graph.registry
    parts = [_part_key(node.component, node.config, registry), _identity(owner.source)]
    for adapter in node.adapters:
        parts += [_part_key(adapter.component, adapter.config, registry), _identity(adapter.source)]
    if owner.source is None and node.component.module is not None:
        parts.append(f"weights made for {owner.name}")  # random ones differ from node to node
    wires = {port: [_wire_key(ref, upstream) for ref in refs] for port, refs in node.wired.items()}
    route = _wire_key(node.when, upstream) if node.when is not None else "always"
    if "" in parts or route == "" or any("" in keys for keys in wires.values()):
        return ""
    taps = [port for port in node.component.taps if port in node.out_ports]  # of a node of a plan: those that are read
    whole = [*parts, backend, dtype, sorted(node.lists), sorted(wires.items()), route, *taps]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def _part_key(component: Component, config: Config, registry: Registry) -> str:
    plugin = registry.plugins.get(component.plugin)
    values = {name: getattr(config, name) for name in type(config).model_fields}
    try:
        with contained():
            return json.dumps([component.id, component.version, plugin.version if plugin else "", values], sort_keys=True, default=_plain)
    except Exception:  # noqa: BLE001 how a value of a config is written is code of a plugin; what cannot be told apart is not kept
        return ""


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else repr(value)


def _identity(source: Source | None) -> str:
    if source is None:
        return "no source"
    try:
        return source.identity()
    except (GraphError, OSError):
        return ""


def _wire_key(ref: Ref, upstream: Mapping[str, str]) -> str:
    if ref.is_input:
        return f"input {ref.port}"
    key = upstream.get(ref.node, "")
    return key and f"{key}.{ref.port}"
