"""Nodes that use the weights of others: both must make the same parameters of them, and no adapter may have made others of the owner's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelgraft.kernel.words.errors import Problem, choices
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.guard import contained, shown


def check_shares(nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Note every node whose config makes another number of parameters than that of the node whose weights it uses."""
    for node in nodes.values():
        owner = nodes.get(node.share or "")
        if owner is not None and (grafts := [one.component.id for one in owner.adapters if one.config.grafts_tensors]):
            found = f"{node.name} shares the weights of {owner.name}, whose tensors are others with {choices(grafts)} in it"
            hint = f"let {node.name} have the weights, and {owner.name} share them: what shares may have adapters of its own"
            yield Problem("share-mismatch", found, node.place, hint, node=node.name)
            continue
        mine, theirs = count_of(node), count_of(owner) if owner is not None else None
        if owner is not None and None not in (mine, theirs) and mine != theirs:
            found = f"{node.name} has {mine:,} parameters under its config, and {owner.name}, whose weights it shares, has {theirs:,}"
            hint = f"leave out of its `with` what changes them, or give it weights of its own: {_differences(node, owner)}"
            yield Problem("share-mismatch", found, node.place, hint, node=node.name)


def _differences(node: Node, owner: Node) -> str:
    pairs = ((name, getattr(node.config, name), getattr(owner.config, name, None)) for name in type(node.config).model_fields)
    return ", ".join(f"{name} is {shown(mine)} here and {shown(theirs)} there" for name, mine, theirs in pairs if mine != theirs)


def count_of(node: Node) -> int | None:
    """The parameters of a node by its formula; None where that gives none."""
    try:
        with contained():
            return node.config.parameters()
    except Exception:  # noqa: BLE001 the plan tells it
        return None
