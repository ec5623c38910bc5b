"""A checked graph whose first part is computed elsewhere: the results of some nodes are given to it, as inputs of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from modelgraft.kernel.planning.planner import find_output
from modelgraft.kernel.words.graph import INPUTS, GraphInput, Node, Ref, SolvedGraph
from modelgraft.kernel.words.order import reach


def with_given(solved: SolvedGraph, nodes: Collection[str], *, wanted: Sequence[str] | None = None) -> SolvedGraph:
    """The graph with the results of some nodes given instead of computed.

    nodes   what feeds them need not be among them: nothing of it runs, unless another node reads it
    wanted  outputs of the graph, or any port as "node.port"; None: every output of the graph

    What is read of those nodes becomes an input, called "node.port", of exactly the type that was solved; configs and all other
    nodes stay as they are, so that the rest computes what it computes in the whole graph. Its outputs are the wanted ones.

    Raises InputError for an output that is not there.
    """
    ends = dict(solved.outputs) if wanted is None else {name: find_output(solved, name) for name in wanted}
    running = reach(
        (ref.node for ref in ends.values()),
        lambda name: solved.nodes[name].feeders if name in solved.nodes and name not in nodes else set(),
    )
    refs = [*ends.values(), *(ref for name in sorted(running - {*nodes, INPUTS}) for ref in solved.nodes[name].references)]
    read = {ref: f"{ref.node}.{ref.port}" for ref in refs if ref.node in nodes}
    inputs = {
        name: GraphInput(name, solved.nodes[ref.node].out_ports[ref.port], doc=f"what {ref.node} gives") for ref, name in read.items()
    }
    moved = {name: node if name in nodes else _fed(node, read) for name, node in solved.nodes.items()}
    return replace(solved, nodes=moved, inputs={**solved.inputs, **inputs}, outputs={name: _moved(ref, read) for name, ref in ends.items()})


def _fed(node: Node, read: Mapping[Ref, str]) -> Node:
    wired = {port: tuple(_moved(ref, read) for ref in refs) for port, refs in node.wired.items()}
    return replace(node, wired=wired, when=None if node.when is None else _moved(node.when, read))


def _moved(ref: Ref, read: Mapping[Ref, str]) -> Ref:
    return Ref(INPUTS, read[ref], ref.place) if ref in read else ref
