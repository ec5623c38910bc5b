"""Nodes that load the same weights, and do not say so: each holds them, where `share` would hold them once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace

from modelgraft.kernel.words.errors import Collector, Problem, reading_order
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.guard import contained, shown


def tell_twins(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The nodes, with a remark at each that loads what one before it in the file loads as well.

    They do not share by themselves: two copies may be meant to be trained apart.
    """
    first: dict[Hashable, Node] = {}
    told: dict[str, Problem] = {}
    for node in sorted(nodes.values(), key=lambda one: (reading_order(one.place), one.name)):
        key = _weights_of(node)
        owner = first.setdefault(key, node) if key is not None else node
        if owner is not node and node.source is not None:
            found = f"{node.name} loads the same weights as {owner.name} ({node.source.text}), and both are held"
            hint = f"write share: {owner.name}, and they are held once"
            told[node.name] = Problem("same-weights", found, node.place, hint, node=node.name)
    return {name: replace(node, remarks=(*node.remarks, told[name])) if name in told else node for name, node in nodes.items()}


def check_shares(nodes: Mapping[str, Node], problems: Collector) -> None:
    """Note every node whose config makes another number of parameters than that of the node whose weights it uses."""
    for node in nodes.values():
        owner = nodes.get(node.share or "")
        mine, theirs = _count(node), _count(owner) if owner is not None else None
        if owner is not None and None not in (mine, theirs) and mine != theirs:
            found = f"{node.name} has {mine:,} parameters under its config, and {owner.name}, whose weights it shares, has {theirs:,}"
            hint = f"leave out of its `with` what changes them, or give it weights of its own: {_differences(node, owner)}"
            problems.add("share-mismatch", found, place=node.place, node=node.name, hint=hint)


def _differences(node: Node, owner: Node) -> str:
    pairs = ((name, getattr(node.config, name), getattr(owner.config, name, None)) for name in type(node.config).model_fields)
    return ", ".join(f"{name} is {shown(mine)} here and {shown(theirs)} there" for name, mine, theirs in pairs if mine != theirs)


def _weights_of(node: Node) -> Hashable | None:
    """What two nodes have in common that could share their weights; None for one that shares, or has none of a source."""
    if node.source is None or node.share is not None or node.component.module is None:
        return None
    where = (*node.source.named, str(node.source.path()))
    count = _count(node)
    return (node.component.id, where, shown(node.config) if count is None else count, shown(sorted(node.runtime.items())))


def _count(node: Node) -> int | None:
    try:
        with contained():
            return node.config.parameters()
    except Exception:  # noqa: BLE001 the plan tells it
        return None
