"""Hooks, and the events of a stream."""

from __future__ import annotations

import threading
import time

import pytest

import modelgraft as mg
from modelgraft.engine.events import EVENT_KINDS
from support.running import TEXT, Counter, function, opened, shout, shouting


def test_hooks_see_nodes_run_fail_and_load(tmp_path):
    """Each observing hook of a plugin is called with node and component, in the order in which things happen."""
    seen = []

    @mg.hookimpl
    def before_node(node, component):
        seen.append(("before", node, component))

    @mg.hookimpl
    def after_node(node, seconds, outputs):
        seen.append(("after", node, seconds >= 0, dict(outputs)))

    @mg.hookimpl
    def on_node_error(node, error):
        seen.append(("error", node, str(error)))

    @mg.hookimpl
    def on_node_load(node):
        seen.append(("load", node))

    def fail(x):
        raise ValueError("no")

    parts = [function("toy/shout", TEXT, {"out": "text"}, shout), function("toy/fail", TEXT, {"out": "text"}, fail)]
    nodes = {"a": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "b": {"use": "toy/fail", "in": {"x": "a"}}}
    hooks = {"before_node": before_node, "after_node": after_node, "on_node_error": on_node_error, "on_node_load": on_node_load}
    with opened(tmp_path, parts, nodes, outputs={"out": "b"}, hooks=hooks) as pipeline, pytest.raises(mg.NodeError):
        pipeline.run(x="p")
    assert seen == [
        ("load", "a"),
        ("load", "b"),
        ("before", "a", "toy/shout"),
        ("after", "a", True, {"out": ["P"]}),
        ("before", "b", "toy/fail"),
        ("error", "b", "no"),
    ]


class Talker:
    """Code that tells of its progress and of what it writes, with the seed of its run."""

    def __init__(self):
        self.runtime = None

    def bind(self, runtime):
        """Take what a run offers."""
        self.runtime = runtime

    def __call__(self, x):
        """Write the seed, letter by letter."""
        for step, letter in enumerate("ab"):
            self.runtime.check()
            self.runtime.emit("token", text=letter, record=0)
            self.runtime.emit("progress", done=step + 1, total=2)
        self.runtime.emit("warning", text="it was resampled")
        return [f"ab {self.runtime.seed} {self.runtime.node_seed()}" for _ in x]


def talker():
    @mg.component("toy/talker", kind="llm", load="support.talkers:load", inputs=TEXT, outputs={"out": "text"})
    class TalkerConfig(mg.Config):
        """Talk."""

    return TalkerConfig


@pytest.fixture
def talking(tmp_path, monkeypatch):
    """A pipeline with a node that talks, loaded as any other code."""
    import sys
    from types import ModuleType

    module = ModuleType("support.talkers")
    module.load = lambda config, context: Talker()
    monkeypatch.setitem(sys.modules, "support.talkers", module)
    hooks = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))}
    nodes = {"talk": {"use": "toy/talker", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [talker()], nodes, outputs={"text": "talk"}, hooks=hooks, seed=5, cache_bytes=0, device="cpu") as pipeline:
        yield pipeline


def test_a_stream_tells_what_happens_and_ends_with_the_result(talking):
    """Loads, starts, tokens, progress, warnings and outputs as they come; every kind is described."""
    for wanted_start in (["node-loading", "node-loaded"], []):
        events = list(talking.stream(x="p"))
        kinds = [event.kind for event in events]
        assert kinds == [
            "run-started",
            *wanted_start,
            "node-started",
            "token",
            "progress",
            "token",
            "progress",
            "warning",
            "node-finished",
            "output",
            "result",
        ]
        assert set(kinds) <= set(EVENT_KINDS)
        assert "".join(event["text"] for event in events if event.kind == "token") == "ab"
        assert events[-1]["result"]["text"] == events[-2]["value"]
        assert events[-1]["result"].warnings == ("talk: it was resampled",)


def test_the_seed_of_a_run_reaches_the_code(talking):
    """That of the pipeline unless the run gives its own; each node has a seed of its own."""
    assert talking.run(x="p")["text"].split()[1] == "5"
    assert talking.run(x="p", seed=9)["text"].split()[1] == "9"
    assert talking.run(x="p")["text"] == talking.run(x="p")["text"]
    assert talking.run(x="p", seed=9)["text"].split()[2] != talking.run(x="p", seed=8)["text"].split()[2]


def test_leaving_a_stream_early_stops_its_run(tmp_path):
    """The next node does not start, and the pipeline is free for the next run."""
    ran, going = Counter(), threading.Event()

    def slow(x):
        going.wait(1)
        time.sleep(0.05)
        return x

    parts = [function("toy/slow", TEXT, {"out": "text"}, slow), function("toy/next", TEXT, {"out": "text"}, lambda x: ran.note(x) or x)]
    nodes = {"a": {"use": "toy/slow", "in": {"x": "inputs.x"}}, "b": {"use": "toy/next", "in": {"x": "a"}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "b"}) as pipeline:
        for event in pipeline.stream(x="p"):
            if event.kind == "node-started":
                going.set()
                break
        time.sleep(0.1)
        assert ran.calls == []
        assert pipeline.run(x="q")["out"] == "q"


def test_a_stream_raises_what_the_run_raises(tmp_path):
    """After the events that came before it."""
    with shouting(tmp_path) as pipeline, pytest.raises(mg.InputError, match="input 'x' is missing"):
        list(pipeline.stream())


@pytest.mark.parametrize("reads", ["to the end", "to the result"])
def test_the_thread_of_a_stream_is_over_when_its_result_was_read(tmp_path, monkeypatch, reads):
    """It lets go of tensors as it ends; a process that ends meanwhile would be aborted by torch."""
    with shouting(tmp_path) as pipeline:
        run = pipeline._run

        def ends_late(*words):
            try:
                return run(*words)
            finally:
                time.sleep(0.3)

        monkeypatch.setattr(pipeline, "_run", ends_late)
        events = pipeline.stream(x="a")
        if reads == "to the end":
            assert list(events)[-1].kind == "result"
        else:
            assert next(event for event in events if event.kind == "result")
            del events
        assert not [thread for thread in threading.enumerate() if thread.name == "modelgraft-stream"]
