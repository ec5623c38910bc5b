"""Straight code: what a plan becomes when nothing in it is worth a thread."""

from __future__ import annotations

import gc
import weakref

import pytest

import modelgraft as mg
from modelgraft.engine.compile import compile_straight
from modelgraft.engine.layout import arrange
from modelgraft.kernel.words.graph import Ref
from support.running import document, function, graph_of, handing_on, joiner, registry_of


class Thing:
    """Something that can be watched while it is freed."""


def layout_of(tmp_path, nodes, outputs, *components):
    graph = graph_of(registry_of(*components), tmp_path, document(nodes, inputs={"x": "object"}, outputs=outputs))
    plan = mg.plan(graph)
    return arrange(plan.steps, wanted=tuple(plan.wanted.values()))


CHAIN = {"a": {"use": "toy/same", "in": {"x": "inputs.x"}}, "b": {"use": "toy/same", "in": {"x": "a"}}}


def test_each_value_is_dropped_after_its_last_use(tmp_path):
    """The last job that reads a value puts its own in its place, or None; a wanted one stays."""
    layout = layout_of(tmp_path, CHAIN, {"out": "b"}, handing_on())
    source = compile_straight(layout, [lambda x: x, lambda x: x], stamps=False).source
    assert source.splitlines() == [
        "def run(given):",
        "    (v0,) = given",
        "    given.clear()",
        "    v0 = f0(v0)",
        "    v0 = f1(v0)",
        "    return (v0,)",
    ]
    nodes = {**CHAIN, "c": {"use": "toy/join2", "in": {"x0": "a", "x1": "b"}}, "d": {"use": "toy/same", "in": {"x": "a"}}}
    layout = layout_of(tmp_path, nodes, {"a": "a", "c": "c", "d": "d"}, handing_on(), joiner(2))
    assert compile_straight(layout, [lambda x: x] * 4, stamps=False).source.splitlines()[3:] == [
        "    v0 = f0(v0)",
        "    v2 = f1(v0)",
        "    v2 = f2(v0, v2)",
        "    v4 = f3(v0)",
        "    return (v0, v2, v4)",
    ]


@pytest.mark.slow
def test_values_are_freed_while_later_nodes_run(tmp_path):
    """When the third node runs, what the first one gave is gone; what it gave itself is the result."""
    alive = []

    def make(x):
        thing = Thing()
        alive.append(weakref.ref(thing))
        return [thing]

    def look(x):
        gc.collect()
        return [[reference() is not None for reference in alive]]

    components = [
        function("toy/make", {"x": "object"}, {"out": "object"}, make),
        function("toy/drop", {"x": "object"}, {"out": "object"}, lambda x: [1]),
        function("toy/look", {"x": "object"}, {"out": "object"}, look),
    ]
    nodes = {
        "a": {"use": "toy/make", "in": {"x": "inputs.x"}},
        "b": {"use": "toy/drop", "in": {"x": "a"}},
        "c": {"use": "toy/look", "in": {"x": "b"}},
    }
    graph = graph_of(registry_of(*components), tmp_path, document(nodes, inputs={"x": "object"}, outputs={"out": "c"}))
    with mg.open(graph) as pipeline:
        for _ in range(3):  # measured, straight, straight
            alive.clear()
            assert pipeline.run(x=1)["out"] == [False]


def test_stamps_are_one_more_than_jobs(tmp_path):
    """One stamp before the first job and one after each, rising."""
    layout = layout_of(tmp_path, CHAIN, {"out": "b"}, handing_on())
    values, stamps = compile_straight(layout, [lambda x: x, lambda x: x], stamps=True).run([5])
    assert values == (5,)
    assert len(stamps) == 3
    assert list(stamps) == sorted(stamps)


def test_the_line_of_a_failure_gives_its_job_and_what_was_ready(tmp_path):
    """Nothing is caught inside the code: the traceback says which node it was, and the frame holds the values."""
    layout = layout_of(tmp_path, CHAIN, {"out": "b"}, handing_on())

    def fail(x):
        raise ValueError("no")

    straight = compile_straight(layout, [lambda x: x + 1, fail], stamps=True)
    with pytest.raises(ValueError, match="no") as caught:
        straight.run([1])
    job, ready = straight.failure(caught.value)
    assert layout.jobs[job].name == "b"
    assert {str(layout.slots[slot]): value for slot, value in ready.items()} == {"a.out": 2}


@pytest.mark.parametrize("failing", range(4))
def test_a_failure_anywhere_gives_every_value_that_was_there(tmp_path, failing):
    """In a chain whose values take each other's places, and beside it values that stay: those read later, and wanted ones."""
    nodes = {
        "a": {"use": "toy/same", "in": {"x": "inputs.x"}},
        "b": {"use": "toy/same", "in": {"x": "a"}},
        "c": {"use": "toy/join2", "in": {"x0": "a", "x1": "b"}},
        "d": {"use": "toy/same", "in": {"x": "c"}},
    }
    layout = layout_of(tmp_path, nodes, {"b": "b", "out": "d"}, handing_on(), joiner(2))
    names = [job.name for job in layout.jobs]

    def call(index):
        def run(*_):
            if index == failing:
                raise ValueError("no")
            return f"of {names[index]}"

        return run

    straight = compile_straight(layout, [call(index) for index in range(4)], stamps=True)
    with pytest.raises(ValueError, match="no") as caught:
        straight.run(["of inputs"])
    job, ready = straight.failure(caught.value)
    there = {"inputs.x": "of inputs", **{f"{name}.out": f"of {name}" for name in names[:failing]}}
    gone = {1: {"inputs.x"}, 2: {"inputs.x"}, 3: {"inputs.x", "a.out"}}.get(failing, set())
    assert job == failing
    assert {str(layout.slots[slot]): value for slot, value in ready.items()} == {ref: it for ref, it in there.items() if ref not in gone}


def test_only_the_ports_that_are_read_are_picked(tmp_path):
    """Of a node with several outputs, those that nobody reads get no local."""
    two = function("toy/two", {"x": "object"}, {"left": "object", "right": "object"}, lambda x: {"left": x, "right": x})
    layout = layout_of(tmp_path, {"a": {"use": "toy/two", "in": {"x": "inputs.x"}}}, {"out": "a.right"}, two)
    straight = compile_straight(layout, [lambda x: {"left": 1, "right": 2}], stamps=False)
    assert straight.run([0]) == (2,)
    assert "left" not in straight.source


def test_what_is_ready_is_not_run_and_neither_is_what_only_it_needs(tmp_path):
    """A result from the cache takes the place of its node and of the nodes before it."""
    nodes = {**CHAIN, "c": {"use": "toy/join2", "in": {"x0": "b", "x1": "inputs.x"}}}
    graph = graph_of(registry_of(handing_on(), joiner(2)), tmp_path, document(nodes, inputs={"x": "object"}, outputs={"out": "c"}))
    plan = mg.plan(graph)
    layout = arrange(plan.steps, wanted=tuple(plan.wanted.values()), ready={"b"})
    assert [job.name for job in layout.jobs] == ["c"]
    assert set(layout.given) == {Ref("b", "out"), Ref("inputs", "x")}


def test_gain_is_what_overlapping_saves(tmp_path):
    """Serial time less the longest path: 2 + 3 side by side after 1 save 2."""
    nodes = {
        "a": {"use": "toy/same", "in": {"x": "inputs.x"}},
        "b": {"use": "toy/same", "in": {"x": "a"}},
        "c": {"use": "toy/same", "in": {"x": "a"}},
        "d": {"use": "toy/join2", "in": {"x0": "b", "x1": "c"}},
    }
    layout = layout_of(tmp_path, nodes, {"out": "d"}, handing_on(), joiner(2))
    seconds = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 1.0}
    assert not layout.is_chain()
    assert layout.gain([seconds[job.name] for job in layout.jobs]) == pytest.approx(2.0)
    assert layout_of(tmp_path, CHAIN, {"out": "b"}, handing_on()).is_chain()
