"""Plans whose segments are single steps."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import torch

import modelgraft as mg
from modelgraft import Config, component, hookimpl
from modelgraft.cli.tables import releases
from modelgraft.engine.backend import Loaded
from modelgraft.engine.fusing import fuse, segments_of
from modelgraft.kernel.words.graph import GraphInput, Ref, SolvedGraph
from modelgraft.kernel.words.plan import Parameters, Plan, Step, Totals
from modelgraft.kernel.words.ports import port
from modelgraft.testing import node_of
from support.running import function, registry_of


def declare(id, *, exportable=True, text=False):
    @component(
        id,
        kind="projector",
        module="nowhere:Module",
        exportable=exportable,
        inputs={"x": "float[batch tokens 6]"},
        outputs={"y": "text" if text else "float[batch tokens 6]"},
    )
    class Toy(Config):
        """Map."""

    return Toy


def step(name, source, declared, *, backend="onnx"):
    node = replace(node_of(declared), name=name, wired={"x": (source,)})
    placed = Step(node, Parameters(3, 0, "formula"), 12, backend, "cpu", "float32", "cpu", {}, f"key-{name}", ("image",))
    return replace(placed, fuses=backend == "onnx")


def plan_of(*steps, wanted):
    nodes = {one.node.name: one.node for one in steps}
    graph = SolvedGraph(SimpleNamespace(runtime={}), nodes, {"image": GraphInput("image", port("float[batch tokens 6]"))}, {})
    return Plan(graph, {"out": Ref(wanted, "y")}, steps, (), Totals(9, 0, 36))


def test_a_chain_becomes_one_step_named_after_its_parts():
    """Ports are named after the values that enter and leave; counts add up; values are released where they were last used."""
    linear, talker = declare("toy/linear"), declare("toy/talker", text=True)
    image = Ref("inputs", "image")
    plan = plan_of(step("a", image, linear), step("b", Ref("a", "y"), linear), step("talk", Ref("b", "y"), talker), wanted="talk")
    fused = fuse(plan)
    first, second = fused.steps
    assert first.node.name == "a+b"
    assert list(first.node.in_ports) == ["inputs.image"]
    assert {name: str(kind) for name, kind in first.node.out_ports.items()} == {"b.y": "float[batch b_tokens 6]"}
    assert (first.parameters.total, first.bytes) == (6, 24)
    assert second.node.wired == {"x": (Ref("a+b", "b.y"),)}
    assert releases(fused) == {"a+b": ["inputs.image"], "talk": ["a+b.b.y"]}
    assert fused.wanted == plan.wanted


def test_the_key_of_a_segment_changes_with_any_part():
    """Otherwise a result of another model would come from the cache."""
    linear = declare("toy/linear")
    steps = [step("a", Ref("inputs", "image"), linear), step("b", Ref("a", "y"), linear)]
    one = fuse(plan_of(*steps, wanted="b")).steps[0].key
    other = fuse(plan_of(replace(steps[0], key="another"), steps[1], wanted="b")).steps[0].key
    assert one
    assert one != other
    assert fuse(plan_of(replace(steps[0], key=""), steps[1], wanted="b")).steps[0].key == ""


class Spoken:
    """A backend of a plugin: what a node gives is the number of its outputs, so that it shows which was loaded."""

    def load(self, context, shared):
        ports = list(context.node.out_ports)
        rows = {port: torch.full((2, 3, 6), float(len(ports))) for port in ports}
        return Loaded(lambda *values: rows if len(ports) > 1 else rows[ports[0]])

    def close(self):
        """Hold nothing."""


def test_a_segment_that_is_asked_for_less_is_another_call(tmp_path, monkeypatch):
    """a+b gives a.y and b.y for all outputs, and b.y alone for one: the second must not run what was loaded for the first."""
    home = ModuleType("spoken")
    home.Spoken = Spoken
    monkeypatch.setitem(sys.modules, "spoken", home)
    linear = declare("toy/linear")
    beside = function("toy/beside", {"x": "float[batch tokens 6]"}, {"z": "float[batch tokens 6]"}, lambda x: x + 10)
    hooks = {"register_backends": hookimpl(lambda register: register("spoken", "spoken:Spoken", fuses=True))}
    path = tmp_path / "segments.yaml"
    path.write_text(
        "modelgraft: 1\ninputs: {image: 'float[batch tokens 6]'}\nnodes:\n"
        "  a: {use: toy/linear, in: {x: inputs.image}}\n  b: {use: toy/linear, in: {x: a}}\n  c: {use: toy/beside, in: {x: a}}\n"
        "outputs: {out: b.y, other: c.z}\n"
    )
    with mg.open(mg.load(path, registry=registry_of(linear, beside, **hooks)), backend="spoken", device="cpu", cache_bytes=0) as pipeline:
        both = pipeline.run(image=torch.zeros(2, 3, 6))
        one = pipeline.run(image=torch.zeros(2, 3, 6), outputs=["out"])
        again = pipeline.run(image=torch.zeros(2, 3, 6))
    assert (both["out"][0, 0, 0], both["other"][0, 0, 0], one["out"][0, 0, 0], again["out"][0, 0, 0]) == (2, 12, 1, 2)


def test_other_backends_are_left_alone():
    """A plan for torch is the same object, and a mixed one is cut where the backend changes."""
    linear = declare("toy/linear")
    steps = [step("a", Ref("inputs", "image"), linear), step("b", Ref("a", "y"), linear), step("c", Ref("b", "y"), linear)]
    plain = plan_of(*(replace(one, backend="torch", fuses=False) for one in steps), wanted="c")
    assert fuse(plain) is plain
    mixed = plan_of(steps[0], steps[1], replace(steps[2], backend="torch", fuses=False), wanted="c")
    assert [one.node.name for one in fuse(mixed).steps] == ["a+b", "c"]


def test_a_component_that_is_not_exportable_stays_alone():
    """Its neighbours are not joined across it."""
    linear, odd = declare("toy/linear"), declare("toy/odd", exportable=False)
    plan = plan_of(step("a", Ref("inputs", "image"), linear), step("b", Ref("a", "y"), odd), step("c", Ref("b", "y"), linear), wanted="c")
    assert segments_of(plan) == ((), ())
    assert fuse(plan) is plan


def test_what_lends_its_weights_stays_alone():
    """It is loaded for those who take them: joined with others it would be held twice."""
    linear = declare("toy/linear")
    a, b, c = (step(name, source, linear) for name, source in (("a", Ref("inputs", "image")), ("b", Ref("a", "y")), ("c", Ref("b", "y"))))
    plan = plan_of(a, b, c, replace(c, node=replace(c.node, name="d", share="a", wired={"x": (Ref("c", "y"),)})), wanted="d")
    assert [one.node.name for one in fuse(plan).steps] == ["a", "b+c", "d"]
