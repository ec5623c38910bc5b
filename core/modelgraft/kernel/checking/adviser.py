"""What may be said beyond what is wrong: where numbers come from, ways out, and what works but not as one may expect.

The kernel finds what does not hold, and says what stands at both ends. Whoever calls it hands in `Advice`, which looks further:
at what is installed, at the origin of every number, at what a run will need. Nothing that is found depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelgraft.kernel.checking.drafts import Draft, Part
from modelgraft.kernel.checking.solver import Equation
from modelgraft.kernel.checking.unify import Link, Unified
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import Place, Problem
from modelgraft.kernel.words.graph import GraphSpec, Node
from modelgraft.kernel.words.ports import Port, PortType

Nodes = Mapping[str, Node]


def _not_there(id: Any, registry: Registry) -> tuple[str, str]:  # noqa: ARG001 those who say more look at what there is
    return f"no installed plugin offers '{id}'", ""


@dataclass(frozen=True, slots=True)
class Advice:
    """Who says more, as functions; each left out says nothing.

    missing   of a component that is not there: a sentence, and a way out
    makers    a way out where a port takes another kind of value: what makes one of the other
    feeding   a way out for an input, `node.port`, that nothing feeds: what could
    between   a way out for a wire whose ends have other numbers of axes: what could stand there
    apart     of a wire whose sizes differ: where each comes from, and ways out
    bound     of two configs that must agree, because one uses the weights of the other: where their numbers come from
    derived   of a property of a config that its wires contradict: what it follows from, and where the other number comes from
    fact      of a part, a fact of the value space of one of its ports and what that is: where it comes from, in brackets
    space     a way out where two parts mean other things by their numbers, by the family of the space
    reviews   each looks at the whole of a graph that is solved, and gives the problems that no component can see
    warnings  what works and not as one may expect, each at its node
    forecasts what a run would refuse as things stand here, and its options may change
    """

    missing: Callable[[Any, Registry], tuple[str, str]] = _not_there
    makers: Callable[[Registry, PortType, Port], str] = lambda registry, given, wanted: ""  # noqa: ARG005 says nothing
    feeding: Callable[[GraphSpec, Mapping[str, Draft], str, Port], str] = lambda graph, drafts, end, port: ""  # noqa: ARG005
    between: Callable[[Unified, Link], str] = lambda unified, link: ""  # noqa: ARG005
    apart: Callable[[Unified, Link, Sequence[Equation]], tuple[str, str]] = lambda unified, link, conflicts: ("", "")  # noqa: ARG005
    bound: Callable[[Unified, Equation], str] = lambda unified, conflict: ""  # noqa: ARG005
    derived: Callable[[Unified, Equation], tuple[str, str]] = lambda unified, conflict: ("", "")  # noqa: ARG005
    fact: Callable[[Part, str, Any, Place | None], str] = lambda part, fact, value, near: ""  # noqa: ARG005
    space: Callable[[Part, Part, str], str] = lambda giver, taker, family: ""  # noqa: ARG005
    reviews: Sequence[Callable[[Nodes], Iterable[Problem]]] = ()
    warnings: Callable[[Nodes], Iterable[Problem]] = lambda nodes: ()  # noqa: ARG005
    forecasts: Callable[[GraphSpec, Nodes], Iterable[Problem]] = lambda graph, nodes: ()  # noqa: ARG005
