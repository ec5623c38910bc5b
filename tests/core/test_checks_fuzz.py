"""Graphs made at random: the checker either solves them or says what is wrong, and what it solves can be planned."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelgraft import GraphError
from modelgraft.kernel.planning.planner import plan
from modelgraft.kernel.words.errors import Place
from modelgraft.kernel.words.graph import AdapterSpec, GraphInput, GraphSpec, NodeSpec, Origin, Ref, Value, Wire
from modelgraft.kernel.words.ports import port
from modelgraft.tools.checked import checked
from support.checkable import REGISTRY

NODES = ("a", "b", "c", "d")
INPUTS = ("x", "y")
TYPES = (
    "image", "text", "list[text]", "float[batch n 5]", "float[batch ... 7]", "float[... w]", "float[2 3]", "float[batch 4*w w]",
    "int64[batch 3]", "bool[batch]", "text | float[batch n 6]", "object",
)  # fmt: skip
VALUES = (-2, 0, 1, 3, 5, 896, None, "{image}", "{x:7}", "{image}{text}", "oops", "{", "{}", [1, 2], True)
USES = (
    *sorted(set(REGISTRY.components) - {"toy/gate"}) * 4,
    "toy/gate",
    "toy/none",
    "alien/thing",
    "toy/join@7",
    "",
    "toy/eye | toy/mean",
    3,
)
SOURCES = (*[None] * 40, "preset:none", "./folder", "org/model", "", "#", 3)

HERE = Place("graph.yaml", 1)
ORIGIN = Origin("file", HERE)


class Maker:
    """Draws graphs in which most names are right and some are not."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.inputs = {name: self.random.choice(TYPES) for name in INPUTS}

    def value(self, options):
        return Value(self.random.choice(options), ORIGIN)

    def ref(self):
        node = self.random.choice([*NODES, "inputs", "inputs", "nobody"])
        names = sorted(self.inputs) if node == "inputs" else ("", "", "", "y", "text", "tokens", "pixels", "ids", "yes", "nonsense")
        return Ref(node, self.random.choice(names), HERE)

    def ports(self, use):
        """The input ports of a component as it comes, by name and type."""
        try:
            return {name: str(declared.type) for name, declared in REGISTRY.find(use).config().ports().inputs.items()}
        except (AttributeError, ValueError):  # no such component, or one that must be configured
            return {"text": "text"}

    def wires(self, use):
        names = {**self.ports(use), **({"nonsense": "text"} if self.random.random() < 0.05 else {})}
        return {name: self.fitting(type_) if self.random.random() < 0.8 else self.wire() for name, type_ in names.items()}

    def fitting(self, type_):
        """A wire from a new input of just this type."""
        name = f"i{len(self.inputs)}"
        self.inputs[name] = type_
        return Wire((Ref("inputs", name, HERE),), is_list=False, place=HERE)

    def wire(self):
        is_list = self.random.random() < 0.15
        return Wire(tuple(self.ref() for _ in range(self.random.choice([1, 2]) if is_list else 1)), is_list, HERE)

    def config(self, use):
        component = REGISTRY.find(use) if isinstance(use, str) else None
        keys = [*(component.config.model_fields if component else []), "nonsense"]
        return {key: self.value(VALUES) for key in keys if self.random.random() < 0.06}

    def source(self):
        value = self.value(SOURCES)
        return value if value.value is not None else None

    def adapter(self):
        use = self.random.choice(["toy/gate", "toy/gate", "toy/join"])
        return AdapterSpec(Value(use, ORIGIN), self.source(), self.config(use), self.wires(use), HERE)

    def node(self, name):
        use = self.random.choice(USES)
        is_routed, is_shared, is_adapted = (self.random.random() < 0.1 for _ in range(3))
        return NodeSpec(
            name=name,
            use=Value(use, ORIGIN),
            source=self.source(),
            config=self.config(use),
            wires=self.wires(use),
            frozen=self.random.random() < 0.5,
            when=self.ref() if is_routed else None,
            lazy=False,
            share=self.value([*NODES, "nobody"]) if is_shared else None,
            adapters=(self.adapter(),) if is_adapted else (),
            runtime={},
            place=HERE,
            folder=Path("/nowhere"),
        )

    def graph(self):
        nodes = {name: self.node(name) for name in NODES[: self.random.choice([1, 1, 2, 2, 3, 4])]}
        inputs = {name: GraphInput(name, port(type_), place=HERE) for name, type_ in self.inputs.items()}
        outputs = {"o": Ref("inputs", "x", HERE), **({"p": self.ref()} if self.random.random() < 0.2 else {})}
        return GraphSpec("fuzz", "", None, {}, inputs, nodes, outputs, {}, REGISTRY, frozenset(["unused"]))

    def chain(self):
        """Nodes in a row, each taking what the one before gives: these mostly hold together."""
        takes = {"toy/linear": "x", "toy/norm": "x", "toy/longer": "x", "toy/shuffle": "x", "toy/mean": "x", "toy/bridge": "media"}
        nodes, before = {}, Ref("inputs", "x", HERE)
        for index in range(self.random.choice(range(1, 7))):
            use, name = self.random.choice(sorted(takes)), f"n{index}"
            widths = {
                key: self.value((4, 5, 8)) for key in ("in_features", "out_features") if use == "toy/linear" and self.random.random() < 0.6
            }
            wires = {takes[use]: Wire((before,), is_list=False, place=HERE)}
            nodes[name] = NodeSpec(name, Value(use, ORIGIN), None, widths, wires, False, None, False, None, (), {}, HERE)
            before = Ref(name, "tokens" if use == "toy/bridge" else "y", HERE)
        first = self.random.choice([type_ for type_ in TYPES if type_.startswith("float")])
        return GraphSpec("chain", "", None, {}, {"x": GraphInput("x", port(first), place=HERE)}, nodes, {"o": before}, {}, REGISTRY)


def check(graph):
    """Solve and plan: True when it holds together. Anything but a GraphError fails the test."""
    try:
        solved = checked(graph)
    except GraphError as error:
        problems = error.problems
    else:
        planned = plan(solved)
        assert {step.node.name for step in planned.steps} | set(planned.pruned) == set(graph.nodes)
        return True
    assert problems
    assert all(problem.code and problem.found for problem in problems)
    assert "None" not in "".join(problem.found for problem in problems if problem.code.endswith("-mismatch"))
    return False


@pytest.mark.slow
@settings(max_examples=2000)
@given(st.integers(0, 2**40))
def test_any_graph_is_solved_or_told(seed):
    """Nothing but problems, each with its code and sentence."""
    check(Maker(seed).graph())


@settings(max_examples=1000)
@given(st.integers(0, 2**40))
def test_any_chain_is_solved_or_told(seed):
    """Chains of components that hand on, join and lengthen axes."""
    check(Maker(seed).chain())


def test_enough_of_the_graphs_hold_together():
    """Otherwise the two tests above would look at the first phase alone."""
    assert sum(check(Maker(seed).graph()) for seed in range(500)) > 25
    assert sum(check(Maker(seed).chain()) for seed in range(500)) > 100
