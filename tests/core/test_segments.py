"""Dividing a plan into segments."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgraft import component
from modelgraft.engine.segments import segment
from modelgraft.kernel.words.graph import Ref
from modelgraft.kernel.words.plan import Parameters, Plan, Step, Totals
from modelgraft.testing import node_of

PORTS = {"x0": "float[batch n]", "x1": "float[batch n]", "x2": "float[batch n]", "maybe": "optional[float[batch n]]"}


@component("toy/step", kind="projector", inputs=PORTS, outputs={"y": "float[batch n]"})
def toy(x0, x1, x2, maybe) -> object:
    """Do nothing."""


def step(name, *sources, reads=("image",), when=None, maybe=None, **placement):
    wired = {f"x{index}": (Ref(source, "y"),) for index, source in enumerate(sources)} or {"x0": (Ref("inputs", "image"),)}
    if maybe is not None:
        wired["maybe"] = (Ref(maybe, "y"),)
    node = replace(node_of(toy), name=name, wired=wired, when=when)
    placed = {"backend": "onnx", "device": "cpu", "dtype": "float32", "lane": "cpu"} | placement
    return Step(node, Parameters(0, 0, "none"), 0, shapes={}, key="k", reads=reads, **placed)


def plan_of(*steps, wanted=None):
    last = wanted or [steps[-1].node.name]
    graph = SimpleNamespace(inputs={}, nodes={one.node.name: one.node for one in steps}, graph=SimpleNamespace(runtime={}))
    return Plan(graph, {name: Ref(name, "y") for name in last}, steps, (), Totals(0, 0, 0))


def names(segments):
    return [part.name for part in segments]


def test_a_chain_is_one_segment():
    """Only what enters and what leaves is bound."""
    segments, cuts = segment(plan_of(step("a"), step("b", "a"), step("c", "b")), lambda step: "")
    assert names(segments) == ["a+b+c"]
    assert segments[0].inputs == (Ref("inputs", "image"),)
    assert segments[0].outputs == (Ref("c", "y"),)
    assert cuts == ()


def test_a_route_before_a_segment_is_no_input_of_it():
    """It decides which records run; the call itself does not read it."""
    plan = plan_of(step("a", when=ROUTE), step("b", "a"))
    segments, _ = segment(plan, lambda step: "")
    assert names(segments) == ["a+b"]
    assert segments[0].inputs == (Ref("inputs", "image"),)


def test_a_diamond_is_one_segment():
    """Branches that meet again without leaving stay together."""
    plan = plan_of(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
    assert names(segment(plan, lambda step: "")[0]) == ["a+b+c+d"]


def test_a_path_through_other_code_cuts_the_segment():
    """a -> code -> c and a -> c: c must wait for the code, so it cannot be in the call that a is in."""
    plan = plan_of(step("a"), step("code", "a"), step("c", "a", "code"))
    segments, cuts = segment(plan, lambda step: "plain code" if step.node.name == "code" else "")
    assert names(segments) == ["a", "code", "c"]
    assert [(cut.giver, cut.taker, cut.reason) for cut in cuts] == [("a", "c", "another path between them leaves the segment")]


@pytest.mark.parametrize(
    ("second", "wanted", "reason"),
    [
        (step("b", "a", when=Ref("inputs", "route")), None, "a route starts here"),
        (step("b", "a"), ["a", "b"], "a was asked for"),
        (step("b", "a", device="cuda:0"), None, "onnx on cpu in float32, then onnx on cuda:0 in float32"),
        (step("b", "a", precision="int8"), None, "onnx on cpu in float32, then onnx on cpu in int8"),
        (step("b", "a", threads=2), None, "onnx on cpu in float32, then onnx on cpu in float32 with 2 threads"),
        (step("b", "a", reads=("image", "text")), None, "the first can stay in the cache while other inputs change"),
    ],
)
def test_a_cut_has_a_reason(second, wanted, reason):
    """Each rule cuts, and says so."""
    segments, cuts = segment(plan_of(step("a"), second, wanted=wanted), lambda step: "")
    assert names(segments) == ["a", "b"]
    assert [cut.reason for cut in cuts] == [reason]


ROUTE = Ref("inputs", "route")


def test_what_follows_a_route_stays_with_it_and_with_nothing_else():
    """b and c run for the same records and are one call; d runs for all, so joining e to it would leave records out of d."""
    plan = plan_of(step("a"), step("b", "a", when=ROUTE), step("c", "b"), step("d", "a"), step("e", "d", "c"))
    segments, cuts = segment(plan, lambda step: "")
    assert names(segments) == ["a+d", "b+c+e"]
    assert [(cut.giver, cut.taker, cut.reason) for cut in cuts] == [
        ("a", "b", "a route starts here"),
        ("d", "e", "they run for different records"),
    ]


def test_a_node_that_runs_with_and_without_an_input_stays_alone():
    """For records without it the others would not run either."""
    plan = plan_of(step("a"), step("b", "a", when=ROUTE), step("c", "a", maybe="b"), step("d", "c"))
    segments, cuts = segment(plan, lambda step: "")
    assert names(segments) == ["a", "b", "c", "d"]
    assert {cut.reason for cut in cuts} == {"a route starts here", "its input maybe is absent for some records"}


@given(st.data())
def test_segments_can_run_in_their_order(data):
    """On any graph: every step is in exactly one segment, and each value is made before the segment that takes it."""
    count = data.draw(st.integers(1, 12))
    steps = []
    for index in range(count):
        earlier = data.draw(st.lists(st.integers(0, index - 1), max_size=3, unique=True)) if index else []
        steps.append(step(f"n{index}", *(f"n{other}" for other in earlier)))
    blocked = data.draw(st.sets(st.integers(0, count - 1)))
    segments, _ = segment(plan_of(*steps), lambda step: "code" if int(step.node.name[1:]) in blocked else "")
    assert sorted(one.node.name for part in segments for one in part.steps) == sorted(one.node.name for one in steps)
    made = set()
    for part in segments:
        assert all(ref.is_input or ref in made for ref in part.inputs)
        made |= set(part.outputs)
