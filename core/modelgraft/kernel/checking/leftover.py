"""What is left over of a graph: nodes that no output needs, inputs that nobody reads, params that nothing names."""

from __future__ import annotations

from modelgraft.kernel.checking.wiring import references
from modelgraft.kernel.words.errors import Problem
from modelgraft.kernel.words.graph import GraphSpec
from modelgraft.kernel.words.order import reach
from modelgraft.kernel.words.wording import option

RELAX = f"remove it, or check with {option('allow', 'unused')} while you draft"


def left_over(graph: GraphSpec) -> list[Problem]:
    """One problem for each thing that nothing uses; none where the user allows it. For a graph whose names are all right."""
    if "unused" in graph.allow:
        return []
    within = tuple(f"{problem.node}/" for problem in graph.left_over if problem.node)
    wanted = {ref.node for ref in graph.outputs.values()} | graph.losses
    used = reach(wanted & graph.nodes.keys(), lambda name: graph.nodes[name].needs & graph.nodes.keys())
    nodes = [
        Problem("unused-node", f"no output needs {name}", spec.place, RELAX, name)
        for name, spec in graph.nodes.items()
        if name not in used and not name.startswith(within)
    ]
    read = {ref.port for _, ref, _ in references(graph) if ref.is_input}
    inputs = [
        Problem("unused-input", f"no node reads the input '{name}'", given.place, RELAX)
        for name, given in graph.inputs.items()
        if name not in read and "" not in read  # `inputs` alone is the only one
    ]
    return [*graph.left_over, *nodes, *inputs]
