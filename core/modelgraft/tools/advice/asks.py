"""Branches that records ask several times, where they cannot be: fed by asks of two kinds, or asking within an ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelgraft.engine.asking import branches_of
from modelgraft.kernel.words.errors import Problem
from modelgraft.kernel.words.graph import Node

GATHER = "take what a record has of one of them as a list first: {use: router/gather, in: {x: ...}}"


def check_asks(nodes: Mapping[str, Node]) -> Iterator[Problem]:
    """Note every node whose rows would be asks of two kinds, and every node within a branch that asks again; of a chain the first."""
    within = branches_of(nodes)
    for name, branches in within.items():
        node = nodes[name]
        before = [within.get(feeder, frozenset()) for feeder in node.feeders]
        named = " and ".join(sorted(f"{router}.{what}" for router, what in branches))
        if len(branches) > 1 and not any(len(found) > 1 for found in before):
            sentence = f"{name} is fed by {named}, which a record asks for different numbers of times"
            yield Problem("asks-apart", sentence, node.place, GATHER, node=name)
        elif again := [port for port, given in node.out_ports.items() if given.several]:
            sentence = f"{name}.{again[0]} asks a branch several times, and {name} itself is asked several times by {named}"
            yield Problem("asks-within-asks", sentence, node.place, GATHER, node=name)
