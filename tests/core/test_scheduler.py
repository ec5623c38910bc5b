"""Lanes: what runs side by side, what never does, and how a run stops."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelgraft as mg
from modelgraft.running.crew import Crew
from modelgraft.running.engine import Engine
from modelgraft.running.layout import arrange
from modelgraft.running.scheduler import Stopped, lane_width, run_in_lanes
from support.running import Counter, document, function, graph_of, handing_on, joiner, registry_of, sleeping


def fan(width, use, **more):
    """One source, `width` branches, one join."""
    nodes = {f"b{index}": {"use": use, "in": {"x": "inputs.x"}} for index in range(width)}
    nodes["end"] = {"use": f"toy/join{width}", "in": {f"x{index}": f"b{index}" for index in range(width)}}
    return document(nodes, inputs={"x": "object"}, outputs={"out": "end"}, **more)


def fresh(body):
    """A function of its own around a body, which several components may share."""

    def run(x):
        return body(x)

    return run


def branches(tmp_path, *bodies, **more):
    """A graph of parallel nodes n0, n1, ... with these functions, wanted one by one."""
    parts = [function(f"toy/n{index}", {"x": "object"}, {"out": "object"}, fresh(body)) for index, body in enumerate(bodies)]
    nodes = {f"n{index}": {"use": f"toy/n{index}", "in": {"x": "inputs.x"}, **more.get(f"n{index}", {})} for index in range(len(bodies))}
    outputs = {f"o{index}": f"n{index}" for index in range(len(bodies))}
    return graph_of(registry_of(*parts), tmp_path, document(nodes, inputs={"x": "object"}, outputs=outputs))


def seconds_of(action):
    """How long a call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@pytest.mark.parametrize("timings", [True, False])
def test_branches_that_wait_overlap_in_every_run(tmp_path, timings):
    """Four waits of 50 ms outside the GIL take less than 70 ms, the first time and later; the least of four, for a busy machine."""
    graph = graph_of(registry_of(sleeping(0.05), joiner(4)), tmp_path, fan(4, "toy/sleep"))
    seconds = []
    for _ in range(4):
        with mg.open(graph, timings=timings) as pipeline:
            seconds.append([seconds_of(lambda: pipeline.run(x=7)) for _ in range(3)])
            assert pipeline.run(x=7)["out"] == (7, 7, 7, 7)
    assert all(min(runs) < 0.070 for runs in zip(*seconds, strict=True))


def test_more_branches_than_threads_at_once_still_overlap(tmp_path):
    """Twelve waits of 50 ms take less than three of them in a row: threads are added when work waits."""
    graph = graph_of(registry_of(sleeping(0.05), joiner(12)), tmp_path, fan(12, "toy/sleep"))
    with mg.open(graph) as pipeline:
        assert seconds_of(lambda: pipeline.run(x=7)) < 0.150


def test_trivial_branches_become_straight_code(tmp_path):
    """After the first run, nodes that cost nothing run on the calling thread."""
    graph = graph_of(registry_of(handing_on(), joiner(4)), tmp_path, fan(4, "toy/same"))
    with mg.open(graph) as pipeline:
        pipeline.run(x=1)
        result = pipeline.run(x=1)
        assert {span.thread for span in result.timeline.read()} == {"main"}


def test_straight_code_that_turns_slow_goes_back_to_lanes(tmp_path):
    """A graph whose nodes wait only from the third run on overlaps again in the fifth."""
    wait = [0.0]

    def body(x):
        time.sleep(wait[0])
        return x

    part = function("toy/body", {"x": "object"}, {"out": "object"}, body)
    graph = graph_of(registry_of(part, joiner(4)), tmp_path, fan(4, "toy/body"))
    with mg.open(graph) as pipeline:
        pipeline.run(x=1)
        pipeline.run(x=1)
        wait[0] = 0.03
        pipeline.run(x=1)
        pipeline.run(x=1)
        assert min(seconds_of(lambda: pipeline.run(x=1)) for _ in range(3)) < 0.09


def lanes(tmp_path, lane, body, count=4):
    """Parallel jobs in one lane, and the threads to run them."""
    graph = branches(tmp_path, *([body] * count))
    plan = mg.plan(graph)
    steps = [replace(step, lane=lane) for step in plan.steps]
    return arrange(steps, wanted=tuple(plan.wanted.values()))


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
    ran = run_in_lanes(layout, [body] * 4, [[1]], crew=crew, cancelled=threading.Event(), limits=[None] * 4)
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
    threads = [{span.thread for span in engine.run([[1]], crew, threading.Event())[1].read()} for _ in range(6)]
    crew.close()
    assert ("main" in threads[-1]) == (ends == "main")
    assert all("main" not in found for found in threads[:2])


def test_a_failing_branch_stops_the_others_and_is_the_one_error(tmp_path):
    """The error names node, component and plugin, is raised from its cause and carries what was ready; nothing new starts."""
    ran = Counter()

    def quick(x):
        return ["ready"]

    def fail(x):
        time.sleep(0.02)
        raise ValueError("the lamp is off")

    def slow(x):
        time.sleep(0.06)
        ran.note("slow")
        return x

    parts = [function(f"toy/{body.__name__}", {"x": "object"}, {"out": "object"}, body) for body in (quick, fail, slow)]
    after = function("toy/after", {"x": "object"}, {"out": "object"}, lambda x: ran.note("after"))
    nodes = {name: {"use": f"toy/{name}", "in": {"x": "inputs.x"}} for name in ("quick", "fail", "slow")}
    nodes["after"] = {"use": "toy/after", "in": {"x": "slow"}}
    outputs = {"a": "quick", "b": "fail", "c": "after"}
    graph = graph_of(registry_of(*parts, after), tmp_path, document(nodes, inputs={"x": "object"}, outputs=outputs))
    with mg.open(graph) as pipeline:
        with pytest.raises(mg.NodeError) as caught:
            pipeline.run(x=1)
        assert str(caught.value) == "node 'fail' (toy/fail, plugin 'toy') failed: ValueError: the lamp is off"
        assert (caught.value.node, caught.value.component) == ("fail", "toy/fail")
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.outputs["quick.out"] == ["ready"]
        assert ran.calls == ["slow"]


def test_a_run_that_is_cancelled_from_another_thread_stops(tmp_path):
    """`cancel` lets the running nodes finish, starts no other, and the run raises Cancelled."""
    started, ran = threading.Event(), Counter()

    def wait(x):
        started.set()
        time.sleep(0.05)
        return x

    parts = [
        function("toy/wait", {"x": "object"}, {"out": "object"}, wait),
        function("toy/next", {"x": "object"}, {"out": "object"}, lambda x: ran.note("next") or x),
    ]
    nodes = {"a": {"use": "toy/wait", "in": {"x": "inputs.x"}}, "b": {"use": "toy/next", "in": {"x": "a"}}}
    graph = graph_of(registry_of(*parts), tmp_path, document(nodes, inputs={"x": "object"}, outputs={"out": "b"}))
    with mg.open(graph) as pipeline:
        threading.Thread(target=lambda: started.wait() and pipeline.cancel(), daemon=True).start()
        with pytest.raises(mg.Cancelled, match="stopped before node 'b' ran") as caught:
            pipeline.run(x=3)
        assert caught.value.outputs == {"a.out": [3]}
        assert ran.calls == []
        assert pipeline.run(x=4)["out"] == 4, "the next run is a run like any other"


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_is_one_error_with_what_was_ready(tmp_path, count):
    """Straight and in lanes: Cancelled, from KeyboardInterrupt, naming the node that ran."""

    runs_beside = threading.Event()

    def interrupted(x):
        runs_beside.wait(1 if count == 2 else 0)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.3)  # longer than a busy machine takes to wake the main thread
        return x

    def other(x):
        runs_beside.set()
        time.sleep(0.01)
        return ["other"]

    graph = branches(tmp_path, interrupted, *([other] * (count - 1)))
    with mg.open(graph) as pipeline:
        with pytest.raises(mg.Cancelled, match="stopped by the user while node 'n0' ran") as caught:
            pipeline.run(x=1)
        assert isinstance(caught.value.__cause__, KeyboardInterrupt)
        assert caught.value.node == "n0"
        if count == 2:
            assert caught.value.outputs["n1.out"] == ["other"]


def test_ctrl_c_while_events_are_read_stops_the_run(tmp_path):
    """The same error as that of `run`, and the next node does not start."""
    ran = Counter()

    def interrupted(x):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.3)  # longer than a busy machine takes to wake the main thread
        return x

    parts = [
        function("toy/first", {"x": "object"}, {"out": "object"}, interrupted),
        function("toy/next", {"x": "object"}, {"out": "object"}, lambda x: ran.note("next") or x),
    ]
    nodes = {"a": {"use": "toy/first", "in": {"x": "inputs.x"}}, "b": {"use": "toy/next", "in": {"x": "a"}}}
    graph = graph_of(registry_of(*parts), tmp_path, document(nodes, inputs={"x": "object"}, outputs={"out": "b"}))
    with mg.open(graph) as pipeline:
        with pytest.raises(mg.Cancelled, match="stopped before node 'b' ran") as caught:
            list(pipeline.stream(x=1))
        assert isinstance(caught.value.__cause__, KeyboardInterrupt)
        assert caught.value.outputs == {"a.out": [1]}
    assert ran.calls == []


def test_closing_stops_a_run_in_another_thread(tmp_path):
    """The run ends with Cancelled; closing waits for it."""
    started, errors = threading.Event(), []

    def slow(x):
        started.set()
        time.sleep(0.05)
        return x

    parts = [function("toy/slow", {"x": "object"}, {"out": "object"}, slow), handing_on()]
    nodes = {"a": {"use": "toy/slow", "in": {"x": "inputs.x"}}, "b": {"use": "toy/same", "in": {"x": "a"}}}
    pipeline = mg.open(graph_of(registry_of(*parts), tmp_path, document(nodes, inputs={"x": "object"}, outputs={"out": "b"})))

    def run():
        try:
            pipeline.run(x=1)
        except mg.Cancelled as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    pipeline.close()
    thread.join()
    assert [error.node for error in errors] == ["b"]


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


def test_a_node_over_its_limit_is_named_with_it(tmp_path):
    """The limit of `runtime` counts for one node; the message says the limit."""

    def slow(x):
        time.sleep(0.2)
        return x

    graph = branches(tmp_path, slow, lambda x: x, n0={"runtime": {"timeout_s": 0.05}})
    with (
        mg.open(graph) as pipeline,
        pytest.raises(mg.NodeTimeout, match=r"node 'n0' \(toy/n0\) took longer than its limit of 0\.05 s$") as caught,
    ):
        pipeline.run(x=1)
    assert caught.value.node == "n0"


def test_a_node_that_is_stuck_does_not_hang_the_run(tmp_path):
    """It is left behind, which the message says, and the pipeline goes on to work."""
    release, stuck = threading.Event(), [True]

    def foreign(x):
        if stuck[0]:
            release.wait(10)
        return x

    graph = branches(tmp_path, foreign)
    with mg.open(graph, timeout_s=0.05) as pipeline:
        start = time.perf_counter()
        with pytest.raises(mg.NodeTimeout, match="still running in foreign code, left behind: n0"):
            pipeline.run(x=1)
        assert time.perf_counter() - start < 2
        stuck[0] = False
        assert pipeline.run(x=2)["o0"] == 2
        release.set()


def test_a_node_that_was_left_behind_stays_cancelled(tmp_path):
    """A loop that asks `runtime.check()` late still learns that its run is over, and does not write into the next one."""
    crew, cancelled, release = Crew("test"), threading.Event(), threading.Event()

    def foreign(x):
        release.wait(10)
        return x

    layout = lanes(tmp_path, "free", foreign, count=1)
    with pytest.raises(Stopped) as caught:
        run_in_lanes(layout, [foreign], [[1]], crew=crew, cancelled=cancelled, limits=[0.02])
    assert caught.value.abandoned == (0,)
    assert cancelled.is_set()
    release.set()
    crew.close()


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


@settings(max_examples=40, deadline=None)
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
