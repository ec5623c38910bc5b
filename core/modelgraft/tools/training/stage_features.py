"""What frozen parts give that can be kept, so that they run once, and why the rest cannot: told before anything loads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from modelgraft.kernel.words.errors import Problem, choices
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.order import topological
from modelgraft.kernel.words.ports import Tensor
from modelgraft.tools.training.stages import Stage


@dataclass(frozen=True, slots=True)
class Keepable:
    """The frozen nodes whose results can be kept, and by node why those of others are made anew in each step."""

    nodes: frozenset[str]
    others: Mapping[str, str]


def keepable(nodes: Mapping[str, Node], learners: Collection[str]) -> Keepable:
    """Look at what nodes that stay as they are give to those that learn.

    nodes  that a stage runs, by name;  learners  those of them whose results depend on what is trained
    """
    read = {ref.node for name in nodes if name in learners for ref in nodes[name].references if not ref.is_input}
    heavy, drawn = _weighted(nodes), _drawn(nodes)
    chosen: set[str] = set()
    others: dict[str, str] = {}
    for name in sorted(read - set(learners)):
        if name not in heavy:
            continue
        if name in drawn:
            others[name] = f"it follows from what {choices(drawn[name])} draws anew for each record, as in an augmentation"
        elif wrong := _unkept(nodes[name]):
            others[name] = wrong
        else:
            chosen.add(name)
    return Keepable(frozenset(chosen), others)


def unkept_features(stage: Stage, nodes: Mapping[str, Node], learners: Collection[str]) -> Iterator[Problem]:
    """Warn of what a stage that keeps features runs in every step all the same."""
    if stage["features"] == "off":
        return
    found, place = keepable(nodes, learners), stage.origin("features").place or stage.place
    for name, why in found.others.items():
        text = f"stage {stage.name}: features keeps nothing of what {name} gives, so it is run in each step: {why}"
        yield Problem("not-kept", text, place, "let nothing be drawn before it, or write features: off", node=name)
    if not found.nodes and not found.others:
        text = f"stage {stage.name}: there is nothing for features to keep: no frozen node with weights gives anything to what learns"
        yield Problem("not-kept", text, place, "write features: off")


def _order(nodes: Mapping[str, Node]) -> list[str]:
    return topological({name: [one for one in node.feeders if one in nodes] for name, node in nodes.items()})


def _weighted(nodes: Mapping[str, Node]) -> set[str]:
    """Nodes with weights, and those behind them."""
    found: set[str] = set()
    for name in _order(nodes):
        node = nodes[name]
        if (node.component.module is not None and node.config.parameters() != 0) or any(ref.node in found for ref in node.references):
            found.add(name)
    return found


def _drawn(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """The nodes whose results follow from what is drawn, with those that draw."""
    found: dict[str, list[str]] = {}
    for name in _order(nodes):
        before = [one for ref in nodes[name].references for one in found.get(ref.node, ())]
        if nodes[name].component.random or before:
            found[name] = sorted({*before, *([name] if nodes[name].component.random else [])})
    return found


def _unkept(node: Node) -> str:
    """Why what a node gives cannot be kept by record; "" where it can."""
    for name, port in node.out_ports.items():
        kind = port.type
        if not isinstance(kind, Tensor) or port.optional or port.several:
            return f"its output {name} is {port}"
        if not kind.axes or kind.axes[0] is None or kind.axes[0].symbol != "batch":
            return f"its output {name} has no batch axis"
    return "it goes by a route" if node.when is not None else ""
