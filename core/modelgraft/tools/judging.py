"""Graphs that judge texts: what must be set of one, so that its language model says how likely given texts are behind its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.words.errors import InputError, choices
from modelgraft.kernel.words.graph import GRAPH_PREFIX, SolvedGraph

GIVEN, LIKELY, GREEDY = "continuations", "likelihoods", "greedy"


def judging(solved: SolvedGraph) -> Mapping[str, Any]:
    """The settings (see `load`: params) with which a graph takes `continuations` as well, and gives `likelihoods` and `greedy`.

    It then writes no answers. Where several language models stand in it, the one counts that an output is taken from.

    Raises InputError where there is none, or it cannot be told which, and for a graph that has an input or output of such a name.
    """
    node = _writer(solved)
    settings = {
        f"inputs.{GIVEN}": "list[text]",
        f"nodes.{node}.in.{GIVEN}": f"inputs.{GIVEN}",
        f"nodes.{node}.with.max_new_tokens": 0,
        **{f"outputs.{name}": f"{node}.{name}" for name in (LIKELY, GREEDY)},
    }
    taken = sorted({GIVEN} & set(solved.graph.inputs)) + sorted({LIKELY, GREEDY} & set(solved.graph.outputs))
    if taken:
        way = "to judge texts with it, its own must be called otherwise"
        raise InputError(f"{solved.name} has inputs or outputs of these names already: {choices(taken)}; {way}")
    return settings


def _writer(solved: SolvedGraph) -> str:
    """The node whose texts are judged."""
    able = {name for name, node in solved.nodes.items() if GIVEN in node.in_ports and LIKELY in node.component.taps}
    if not able:
        way = f"wanted: a component with the input '{GIVEN}' and the output '{LIKELY}', such as llm/causal"
        raise InputError(f"nothing in {solved.name} can judge texts: {way}")
    named = {ref.node for ref in solved.graph.outputs.values()} & able
    found = sorted(named if len(able) > 1 else able)
    if len(found) != 1:
        raise InputError(f"{solved.name} has several nodes that can judge texts: {choices(sorted(able))}; wanted: an output of one of them")
    if "/" in found[0]:
        raise InputError(f"{found[0]} stands in a graph of its own ({GRAPH_PREFIX}...), and nothing else can be wired into it from outside")
    return found[0]
