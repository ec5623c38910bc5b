"""Nodes that load the same weights, and do not say so: each holds them, where `share` would hold them once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping

from modelgraft.kernel.words.errors import Problem, reading_order
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.guard import shown
from modelgraft.tools.advice.shares import count_of


def twins(nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """A warning at each node that loads what one before it in the file loads as well.

    They do not share by themselves: two copies may be meant to be trained apart.
    """
    first: dict[Hashable, Node] = {}
    for node in sorted(nodes.values(), key=lambda one: (reading_order(one.place), one.name)):
        key = _weights_of(node)
        owner = first.setdefault(key, node) if key is not None else node
        if owner is not node and node.source is not None:
            found = f"{node.name} loads the same weights as {owner.name} ({node.source.text}), and both are held"
            hint = f"write share: {owner.name}, and they are held once"
            yield Problem("same-weights", found, node.place, hint, node=node.name)


def _weights_of(node: Node) -> Hashable | None:
    """What two nodes have in common that could share their weights; None for one that shares, or has none of a source."""
    if node.source is None or node.share is not None or node.component.module is None:
        return None
    where = (*node.source.named, str(node.source.path()))
    count = count_of(node)
    return (node.component.id, where, shown(node.config) if count is None else count, shown(sorted(node.runtime.items())))
