"""How a run stops: a failure, a call from another thread, Ctrl-C, a limit; with one error, and nothing left running."""

from __future__ import annotations

import signal
import threading
import time

import pytest

import modelgraft as mg
from modelgraft.engine import pipeline as pipelines
from modelgraft.engine import streaming
from modelgraft.engine.run import Run
from modelgraft.engine.scheduler import Crew, Stopped, run_in_lanes
from support.running import Counter, branches, document, function, graph_of, handing_on, lanes, registry_of

IN_AND_OUT = {"inputs": {"x": "object"}, "outputs": {"out": "a"}}


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


def test_a_run_that_does_not_stop_is_waited_for_once(tmp_path, monkeypatch):
    """By who read its events; closing the pipeline waits for it no more. So Ctrl-C is heard in half the time while torch is imported."""
    started, may_end = threading.Event(), threading.Event()

    def stuck(x):
        started.set()
        may_end.wait(60)
        return x

    part = function("toy/stuck", {"x": "object"}, {"out": "object"}, stuck)
    graph = graph_of(registry_of(part), tmp_path, document({"a": {"use": "toy/stuck", "in": {"x": "inputs.x"}}}, **IN_AND_OUT))
    monkeypatch.setattr(streaming, "LEAVE_S", 0.05)
    monkeypatch.setattr(pipelines, "CLOSE_S", 60.0)
    pipeline = mg.open(graph)
    events = pipeline.stream(x=1)
    next(events)
    assert started.wait(60)
    events.close()
    began = time.monotonic()
    pipeline.close()
    may_end.set()
    assert time.monotonic() - began < 30


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
            release.wait()  # for ever, if nobody left
        return x

    graph = branches(tmp_path, foreign)
    with mg.open(graph, timeout_s=0.05) as pipeline:
        with pytest.raises(mg.NodeTimeout, match="still running in foreign code, left behind: n0"):
            pipeline.run(x=1)
        stuck[0] = False
        assert pipeline.run(x=2)["o0"] == 2
        release.set()


def test_a_node_that_was_left_behind_stays_cancelled(tmp_path):
    """A loop that asks `runtime.check()` late still learns that its run is over, and does not write into the next one."""
    crew, run, release = Crew("test"), Run(seed=0), threading.Event()

    def foreign(x):
        release.wait(10)
        return x

    layout = lanes(tmp_path, "free", foreign, count=1)
    with pytest.raises(Stopped) as caught:
        run_in_lanes(layout, [foreign], [[1]], crew=crew, run=run, limits=[0.02])
    assert caught.value.abandoned == (0,)
    assert run.cancelled.is_set()
    release.set()
    crew.close()
