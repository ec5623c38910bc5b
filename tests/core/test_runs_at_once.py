"""Several runs of one pipeline at once: each has its own seed, events, batch and end, and what cannot be shared is taken in turns."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType

import pytest

import modelgraft as mg
from support.running import TEXT, Counter, document, fan, function, graph_of, handing_on, joiner, meeting, opened, registry_of

TORCH = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))}
THREADS, RUNS = 4, 12


def at_once(count: int, work: Callable[[int], object]) -> list[object]:
    """What `work` gives for 0, 1, ..., called in as many threads; raises what any of them raised."""
    found: dict[int, object] = {}
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            found[index] = work(index)
        except BaseException as error:  # noqa: BLE001 raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return [found[index] for index in range(count)]


def loading(monkeypatch: pytest.MonkeyPatch, load: Callable[..., object], **facts: object) -> object:
    """The component `toy/code`, whose code is what `load` gives."""
    module = ModuleType("support.code_at_once")
    module.load = load
    monkeypatch.setitem(sys.modules, module.__name__, module)

    @mg.component("toy/code", kind="head", load="support.code_at_once:load", inputs=TEXT, outputs={"out": "text"}, **facts)
    class CodeConfig(mg.Config):
        """Do what the test says."""

    return CodeConfig


ONE = {"a": {"use": "toy/code", "in": {"x": "inputs.x"}}}


# -- together -----------------------------------------------------------------------------------------------------------


def test_runs_are_under_way_together(tmp_path):
    """Four runs meet inside one node: none waits for another to be over."""
    graph = graph_of(registry_of(meeting(4), joiner(1)), tmp_path, fan(1, "toy/meet"))
    with mg.open(graph) as pipeline:
        assert at_once(4, lambda index: pipeline.run(x=index)["out"]) == [(0,), (1,), (2,), (3,)]


def test_streams_and_maps_run_beside_runs(tmp_path):
    """The three ways to run meet in one node, each with what it was given."""
    graph = graph_of(registry_of(meeting(3), joiner(1)), tmp_path, fan(1, "toy/meet"))
    with mg.open(graph) as pipeline:
        ways = [
            lambda: pipeline.run(x="a")["out"],
            lambda: list(pipeline.stream(x="b"))[-1]["result"]["out"],
            lambda: [result["out"] for result in pipeline.map([{"x": "c"}])],
        ]
        assert at_once(3, lambda index: ways[index]()) == [("a",), ("b",), [("c",)]]


@pytest.mark.parametrize("width", [1, 5])
def test_many_runs_in_threads_give_what_they_give_one_after_another(tmp_path, width):
    """Straight code and lanes, batches of all sizes, with hits in the cache among them."""
    part = function("toy/spell", {"x": "object"}, {"out": "object"}, lambda x: [f"<{one}>" for one in x], cache=True)
    graph = graph_of(registry_of(part, joiner(width)), tmp_path, fan(width, "toy/spell"))

    def asked(thread: int, number: int) -> list[str]:
        return [f"{thread}.{number}.{record}" for record in range(1 + (thread + number) % 3)] if number % 4 else ["the same"]

    with mg.open(graph) as pipeline:
        expected = [[pipeline.run(x=asked(thread, number))["out"] for number in range(RUNS)] for thread in range(THREADS)]
    with mg.open(graph) as pipeline:
        assert at_once(THREADS, lambda thread: [pipeline.run(x=asked(thread, number))["out"] for number in range(RUNS)]) == expected


def test_each_run_has_the_seed_and_the_events_of_its_own(tmp_path, monkeypatch):
    """Code that asks its runtime in the middle of a call hears of the run that it serves, however many are under way."""

    class Asking:
        def bind(self, runtime):
            self.runtime = runtime

        def __call__(self, x):
            first = self.runtime.seed
            together.wait()
            self.runtime.emit("token", text=x[0])
            together.wait()
            return [f"{first} {self.runtime.seed} {self.runtime.node_seed() % 1000}" for _ in x]

    together = threading.Barrier(THREADS, timeout=60)
    part = loading(monkeypatch, lambda *_: Asking(), shared=True)
    with opened(tmp_path, [part], ONE, outputs={"out": "a"}, hooks=TORCH, device="cpu", cache_bytes=0) as pipeline:
        streams = at_once(THREADS, lambda index: list(pipeline.stream(x=f"t{index}", seed=index)))
    texts = [events[-1]["result"]["out"].split() for events in streams]
    assert [words[:2] for words in texts] == [[str(index)] * 2 for index in range(THREADS)]
    assert len({words[2] for words in texts}) == THREADS
    assert [[event["text"] for event in events if event.kind == "token"] for events in streams] == [
        [f"t{index}"] for index in range(THREADS)
    ]
    ids = [{event.run for event in events} for events in streams]
    assert all(len(found) == 1 for found in ids)
    assert len(set.union(*ids)) == THREADS


def test_a_thread_of_a_node_serves_its_run_in_a_copy_of_the_context(tmp_path, monkeypatch):
    """As the runtime says; without one it serves none, and hears of no seed."""

    class Asking:
        def bind(self, runtime):
            self.runtime = runtime

        def __call__(self, x):
            found = []

            def note():
                found.append(self.runtime.seed)

            for target, arguments in ((note, ()), (contextvars.copy_context().run, (note,))):
                thread = threading.Thread(target=target, args=arguments)
                thread.start()
                thread.join()
            return [" ".join(map(str, found)) for _ in x]

    part = loading(monkeypatch, lambda *_: Asking())
    with opened(tmp_path, [part], ONE, outputs={"out": "a"}, hooks=TORCH, device="cpu", seed=1) as pipeline:
        assert pipeline.run(x="p", seed=5)["out"] == "1 5"


# -- in turns -----------------------------------------------------------------------------------------------------------


class Peak:
    """Counts how many calls are under way at most."""

    def __init__(self) -> None:
        self.now, self.most, self._lock = 0, 0, threading.Lock()

    def __call__(self, x):
        """Stay a while."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self._lock:
            self.now -= 1
        return x


@pytest.mark.parametrize(("shared", "together"), [(None, False), (False, False), (True, True)])
def test_code_that_is_loaded_is_taken_in_turns_unless_it_says_otherwise(tmp_path, monkeypatch, shared, together):
    """Runs wait at the node, and nowhere else."""
    peak = Peak()
    part = loading(monkeypatch, lambda *_: peak, shared=shared)
    with opened(tmp_path, [part], ONE, outputs={"out": "a"}, hooks=TORCH, device="cpu", cache_bytes=0) as pipeline:
        assert at_once(THREADS, lambda index: [pipeline.run(x=f"{index}{n}")["out"] for n in range(3)]) == [
            [f"{index}{n}" for n in range(3)] for index in range(THREADS)
        ]
    assert (peak.most > 1) == together


@pytest.mark.parametrize(("lazy", "together"), [(True, False), (False, True)])
def test_a_lazy_node_is_taken_in_turns(tmp_path, lazy, together):
    """It may be let go of between two calls; a function that is not lazy is shared."""
    peak = Peak()

    def stay(x):
        return peak(x)

    part = function("toy/peak", TEXT, {"out": "text"}, stay)
    nodes = {"a": {"use": "toy/peak", "in": {"x": "inputs.x"}, "lazy": lazy}}
    with opened(tmp_path, [part], nodes, outputs={"out": "a"}) as pipeline:
        at_once(THREADS, lambda index: pipeline.run(x=f"{index}"))
    assert (peak.most > 1) == together


def test_runs_wait_node_by_node(tmp_path, monkeypatch):
    """While one run is in a node that is not shared, another goes through the node beside it."""
    inside, passed = threading.Event(), threading.Event()

    def hold(x):
        inside.set()
        assert passed.wait(30)
        return x

    part = loading(monkeypatch, lambda *_: hold)
    nodes = {**ONE, "b": {"use": "toy/same", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part, handing_on()], nodes, outputs={"a": "a", "b": "b"}, hooks=TORCH, device="cpu") as pipeline:
        thread = threading.Thread(target=lambda: pipeline.run(x="p", outputs=["a"]))
        thread.start()
        assert inside.wait(30)
        assert pipeline.run(x="q", outputs=["b"])["b"] == "q"
        passed.set()
        thread.join(30)


def test_waiting_for_a_turn_is_no_part_of_the_limit_of_a_node(tmp_path, monkeypatch):
    """Four calls of 0.3 s in turn, each allowed 1 s: none is over its limit, though the last is done after 1.2 s."""

    def slow(x):
        time.sleep(0.3)
        return x

    part = loading(monkeypatch, lambda *_: slow)
    with opened(tmp_path, [part], ONE, outputs={"out": "a"}, hooks=TORCH, device="cpu", timeout_s=1.0, cache_bytes=0) as pipeline:
        pipeline.load()
        start = time.perf_counter()
        assert at_once(THREADS, lambda index: pipeline.run(x=f"{index}")["out"]) == [f"{index}" for index in range(THREADS)]
        assert time.perf_counter() - start >= 0.3 * THREADS


# -- each its own end ---------------------------------------------------------------------------------------------------


def stages(release: threading.Event, ran: Counter) -> tuple[list[object], dict[str, object]]:
    """A node that waits for the slow ones to be released, and one that notes what came through."""

    def wait(x):
        assert x[0].startswith("quick") or release.wait(30)
        return x

    def note(x):
        ran.note(x[0])
        return x

    parts = [function("toy/wait", TEXT, {"out": "text"}, wait), function("toy/note", TEXT, {"out": "text"}, note)]
    return parts, {"a": {"use": "toy/wait", "in": {"x": "inputs.x"}}, "b": {"use": "toy/note", "in": {"x": "a"}}}


def test_closing_one_stream_stops_its_run_and_no_other(tmp_path):
    """The other run, and those that begin later, go on."""
    release, ran = threading.Event(), Counter()
    parts, nodes = stages(release, ran)
    with opened(tmp_path, parts, nodes, outputs={"out": "b"}) as pipeline:
        left, kept = pipeline.stream(x="slow left"), pipeline.stream(x="slow kept")
        for stream in (left, kept):
            assert next(event for event in stream if event.kind == "node-started")
        threading.Timer(0.1, release.set).start()
        left.close()
        assert kept.result["out"] == "slow kept"
        assert pipeline.run(x="quick one")["out"] == "quick one"
        with pytest.raises(mg.InputError, match="the stream was closed before its run was over"):
            _ = left.result
    assert ran.calls == ["slow kept", "quick one"]


def test_a_run_over_its_limit_ends_alone(tmp_path):
    """One run is over its limit, one is cancelled, and the runs beside them give what they give alone."""
    release, ran = threading.Event(), Counter()
    parts, nodes = stages(release, ran)

    def work(index: int) -> object:
        if index == 0:
            with pytest.raises(
                mg.NodeTimeout, match=r"the run took longer than its limit of 0\.05 s, while node 'a' \(toy/wait\) ran"
            ) as late:
                pipeline.run(x="slow late", limit_s=0.05)
            return late.value.node
        if index == 1:
            with pipeline.stream(x="slow left") as events:
                next(event for event in events if event.kind == "node-started")
            return "left"
        return [pipeline.run(x=f"quick {index} {number}", limit_s=60 if number % 2 else None)["out"] for number in range(RUNS)]

    with opened(tmp_path, parts, nodes, outputs={"out": "b"}) as pipeline:
        threading.Timer(0.4, release.set).start()
        found = at_once(THREADS, work)
        assert pipeline.run(x="quick after")["out"] == "quick after"
    assert found == ["a", "left", *([f"quick {index} {number}" for number in range(RUNS)] for index in (2, 3))]
    assert not [text for text in ran.calls if text.startswith("slow")]


@pytest.mark.parametrize("limit_s", [0, -1, "2 s"])
def test_a_limit_that_means_nothing_is_refused(tmp_path, limit_s):
    """With what it was and what is wanted."""
    nodes = {"a": {"use": "toy/same", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [handing_on()], nodes, outputs={"out": "a"}) as pipeline:
        with pytest.raises(mg.InputError, match=f"limit_s is {limit_s!r}; wanted: seconds, more than 0, or None"):
            pipeline.run(x="p", limit_s=limit_s)
        with pytest.raises(mg.InputError, match="limit_s is"):
            pipeline.stream(x="p", limit_s=limit_s)


def test_cancel_stops_every_run_of_the_pipeline(tmp_path):
    """From another thread; runs that begin after it are runs like any other."""
    release, ran = threading.Event(), Counter()
    parts, nodes = stages(release, ran)
    errors = []

    def work(index: int) -> None:
        with pytest.raises(mg.Cancelled) as caught:
            pipeline.run(x=f"slow {index}")
        errors.append(caught.value.node)

    with opened(tmp_path, parts, nodes, outputs={"out": "b"}) as pipeline:

        def stop() -> None:
            pipeline.cancel()
            release.set()

        threading.Timer(0.2, stop).start()
        at_once(3, work)
        assert errors == ["b"] * 3
        assert pipeline.run(x="quick")["out"] == "quick"


def test_a_run_that_waits_for_its_turn_can_be_stopped(tmp_path, monkeypatch):
    """It does not wait for the call before it to end."""
    inside, release = threading.Event(), threading.Event()

    def hold(x):
        inside.set()
        assert release.wait(30)
        return x

    part = loading(monkeypatch, lambda *_: hold)
    with opened(tmp_path, [part], ONE, outputs={"out": "a"}, hooks=TORCH, device="cpu", cache_bytes=0) as pipeline:
        first = pipeline.stream(x="first")
        next(event for event in first if event.kind == "node-started")
        assert inside.wait(30)
        with pytest.raises(mg.NodeTimeout, match=r"the run took longer than its limit of 0\.1 s$"):
            pipeline.run(x="second", limit_s=0.1)
        assert not release.is_set()
        release.set()
        assert first.result["out"] == "first"


def test_a_node_that_is_stuck_holds_up_nobody(tmp_path, monkeypatch):
    """Who waits for it is told so at once, and the next run has a node of its own."""
    release, calls = threading.Event(), Counter()

    def load(*_):
        calls.note("load")
        is_first = len(calls.calls) == 1

        def run(x):
            if is_first:
                release.wait(30)
            return x

        return run

    part = loading(monkeypatch, load)

    def work(index: int) -> str:
        time.sleep(0.1 * index)
        with pytest.raises(mg.NodeError) as caught:
            pipeline.run(x=f"{index}", limit_s=0.3 if index == 0 else None)
        return str(caught.value)

    with opened(tmp_path, [part], ONE, outputs={"out": "a"}, hooks=TORCH, device="cpu", cache_bytes=0) as pipeline:
        first, second = at_once(2, work)
        assert "still running in foreign code, left behind: a" in first
        assert "node 'a' (toy/code) is held by a run that was left behind in foreign code" in second
        assert pipeline.run(x="third")["out"] == "third"
        release.set()
    assert calls.calls == ["load", "load"]


def test_closing_waits_for_all_runs(tmp_path):
    """Each ends with Cancelled, and a closed pipeline says so."""
    release, ran = threading.Event(), Counter()
    parts, nodes = stages(release, ran)
    pipeline = opened(tmp_path, parts, nodes, outputs={"out": "b"})
    streams = [pipeline.stream(x=f"slow {index}") for index in range(3)]
    for stream in streams:
        next(event for event in stream if event.kind == "node-started")
    threading.Timer(0.1, release.set).start()
    pipeline.close()
    for stream in streams:
        with pytest.raises(mg.Cancelled):
            _ = stream.result
    with pytest.raises(mg.InputError, match="the pipeline is closed"):
        pipeline.run(x="quick")


def test_a_document_says_nothing_of_it(tmp_path):
    """Sharing is a matter of the component: a graph cannot change what is computed by it."""
    with pytest.raises(mg.GraphError, match="unknown-key"):
        graph_of(
            registry_of(handing_on()),
            tmp_path,
            document({"a": {"use": "toy/same", "in": {"x": "inputs.x"}, "shared": True}}, inputs={"x": "object"}, outputs={"o": "a"}),
        )
