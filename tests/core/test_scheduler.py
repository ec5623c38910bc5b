"""Lanes: what runs side by side, what never does, and what is freed when."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelgraft as mg
from modelgraft.engine.engine import Engine
from modelgraft.engine.run import Run
from modelgraft.engine.scheduler import Crew, lane_width, run_in_lanes
from support.running import branches, document, fan, function, graph_of, handing_on, joiner, lanes, meeting, registry_of


@pytest.mark.parametrize("timings", [True, False])
def test_branches_that_wait_overlap_in_every_run(tmp_path, timings):
    """Four that wait outside the GIL are under way together, the first time and later."""
    graph = graph_of(registry_of(meeting(4), joiner(4)), tmp_path, fan(4, "toy/meet"))
    with mg.open(graph, timings=timings) as pipeline:
        for _ in range(4):
            assert pipeline.run(x=7)["out"] == (7, 7, 7, 7)


def test_more_branches_than_threads_at_once_still_overlap(tmp_path):
    """Threads are added when work waits."""
    graph = graph_of(registry_of(meeting(12), joiner(12)), tmp_path, fan(12, "toy/meet"))
    with mg.open(graph) as pipeline:
        assert pipeline.run(x=7)["out"] == (7,) * 12


def test_trivial_branches_become_straight_code(tmp_path):
    """After the first run, nodes that cost nothing run on the calling thread."""
    graph = graph_of(registry_of(handing_on(), joiner(4)), tmp_path, fan(4, "toy/same"))
    with mg.open(graph) as pipeline:
        pipeline.run(x=1)
        result = pipeline.run(x=1)
        assert {span.thread for span in result.timeline.read()} == {"main"}


def test_straight_code_that_turns_slow_goes_back_to_lanes(tmp_path):
    """A graph whose nodes wait only from the third run on overlaps again in the fifth."""
    wait, under_way, most = [0.0], [0], [0]

    def body(x):
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        time.sleep(wait[0])
        under_way[0] -= 1
        return x

    part = function("toy/body", {"x": "object"}, {"out": "object"}, body)
    graph = graph_of(registry_of(part, joiner(4)), tmp_path, fan(4, "toy/body"))
    with mg.open(graph) as pipeline:
        pipeline.run(x=1)
        pipeline.run(x=1)
        wait[0] = 0.03
        pipeline.run(x=1)
        pipeline.run(x=1)
        most[0] = 0
        for _ in range(3):
            pipeline.run(x=1)
        assert most[0] > 1


@pytest.mark.parametrize(("lane", "most"), [("cuda:0", 1), ("cpu", 2), ("free", 4)])
def test_a_lane_takes_only_so_many_jobs_at_a_time(tmp_path, monkeypatch, lane, most):
    """One job per CUDA device, one per core on the CPU, any number of light ones."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    lock, running, peak = threading.Lock(), [0], [0]

    def body(x):
        with lock:
            running[0] += 1
            peak[0] = max(peak[0], running[0])
        time.sleep(0.03)
        with lock:
            running[0] -= 1
        return x

    layout, crew = lanes(tmp_path, lane, body), Crew("test")
    ran = run_in_lanes(layout, [body] * 4, [[1]], crew=crew, run=Run(seed=0), limits=[None] * 4)
    crew.close()
    assert ran.values == ([1],) * 4
    assert peak[0] == most
    assert lane_width(lane) == (None if most == 4 else most)


@pytest.mark.parametrize(("lane", "is_shared", "ends"), [("cpu", True, "main"), ("cpu", False, "lanes"), ("free", True, "lanes")])
def test_jobs_that_fill_the_cpu_go_where_they_are_faster(tmp_path, monkeypatch, lane, is_shared, ends):
    """When lanes of the CPU save nothing, a trial finds it and straight code stays; light code that waits is never tried."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    core = threading.Lock()

    def body(x):
        if not is_shared:
            time.sleep(0.01)
            return x
        with core:
            time.sleep(0.01)
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.03)  # far more than the noise of a busy machine
        return x

    engine = Engine(lanes(tmp_path, lane, body, count=2), bind=lambda job, checked: body, limits=[None] * 2, timings=True)
    crew = Crew("test")
    threads = [{span.thread for span in engine.run([[1]], crew, Run(seed=0))[1].read()} for _ in range(6)]
    crew.close()
    assert ("main" in threads[-1]) == (ends == "main")
    assert all("main" not in found for found in threads[:2])


class Thing:
    """Something that can be watched while it is freed."""


def test_lanes_keep_nothing_alive_after_a_run(tmp_path):
    """What the branches made is gone once the result is, without the garbage collector."""
    alive = []

    def make(x):
        thing = Thing()
        alive.append(weakref.ref(thing))
        time.sleep(0.005)
        return [thing]

    graph = branches(tmp_path, make, make)
    gc.disable()
    try:
        with mg.open(graph) as pipeline:
            result = pipeline.run(x=1)
            assert all(reference() is not None for reference in alive)
            del result
            time.sleep(0.02)  # the threads let go of their last job
            assert [reference() for reference in alive] == [None, None]
    finally:
        gc.enable()


def test_lanes_free_values_at_their_last_use(tmp_path):
    """While the third node of a branch runs in its thread, what the first one gave is gone."""
    alive = []

    def make(x):
        thing = Thing()
        alive.append(weakref.ref(thing))
        return [thing]

    def look(x):
        gc.collect()
        return [[reference() is not None for reference in alive]]

    bodies = {"make": make, "drop": lambda x: [1], "look": look}
    parts = [function(f"toy/{name}", {"x": "object"}, {"out": "object"}, body) for name, body in bodies.items()]
    nodes = {
        "a": {"use": "toy/make", "in": {"x": "inputs.x"}},
        "b": {"use": "toy/drop", "in": {"x": "a"}},
        "c": {"use": "toy/look", "in": {"x": "b"}},
        "beside": {"use": "toy/drop", "in": {"x": "inputs.x"}},
    }
    outputs = {"out": "c", "other": "beside"}
    graph = graph_of(registry_of(*parts), tmp_path, document(nodes, inputs={"x": "object"}, outputs=outputs))
    with mg.open(graph) as pipeline:
        result = pipeline.run(x=1)
    assert "main" not in {span.thread for span in result.timeline.read()}
    assert result["out"] == [False]


# -- results do not depend on order or timing ---------------------------------------------------------------------------


@st.composite
def wirings(draw):
    """A graph of up to nine nodes: for each, which earlier values it joins."""
    count = draw(st.integers(1, 9))
    return [draw(st.lists(st.integers(-1, index - 1), min_size=1, max_size=3)) for index in range(count)]


def written(wiring, order):
    nodes = {}
    for index in order:
        feeds = [f"n{source}" if source >= 0 else "inputs.x" for source in wiring[index]]
        nodes[f"n{index}"] = {"use": f"toy/join{len(feeds)}", "in": {f"x{port}": feed for port, feed in enumerate(feeds)}}
    outputs = {f"o{index}": f"n{index}" for index in order}
    return document(nodes, inputs={"x": "object"}, outputs=outputs)


def expected(wiring, x):
    """The oracle: evaluate by recursion."""
    made = []
    for feeds in wiring:
        made.append(tuple(made[source] if source >= 0 else x for source in feeds))
    return {f"o{index}": value for index, value in enumerate(made)}


REGISTRY = registry_of(joiner(1), joiner(2), joiner(3))


@settings(max_examples=40)
@given(wiring=wirings(), data=st.data())
def test_results_and_plans_do_not_depend_on_the_order_in_the_file(tmp_path_factory, wiring, data):
    """The same nodes in another order give the same plan and, in lanes and as straight code, the same results."""
    folder = tmp_path_factory.mktemp("order")
    plain = list(range(len(wiring)))
    shuffled = data.draw(st.permutations(plain))
    first = graph_of(REGISTRY, folder, written(wiring, plain))
    second = graph_of(REGISTRY, folder, written(wiring, shuffled))
    assert [step.node.name for step in mg.plan(first).steps] == [step.node.name for step in mg.plan(second).steps]
    for graph in (first, second):
        with mg.open(graph) as pipeline:
            for _ in range(2):
                assert dict(pipeline.run(x="x")) == expected(wiring, "x")
