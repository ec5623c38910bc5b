"""What loads leave for later: when it is done, who does it, what is told of it, and how a node takes its own place."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

import modelgraft as mg
from modelgraft.engine import states
from modelgraft.engine.backend import Backend, Loaded, Unfinished, open_backend
from modelgraft.engine.choosing import chosen_backend, when_exported
from modelgraft.engine.meanwhile import Errand, Meanwhile, folder_of_states, packed, unpacked
from modelgraft.engine.opening import Opening, Placing
from modelgraft.engine.standing import WAITS, StandIn
from modelgraft.installed.discovery import assemble
from modelgraft.plugin import PluginError, Problem
from modelgraft.sources.installed_plugins import installed_plugins
from modelgraft.sources.storage import locked
from modelgraft_plugins import projectors
from modelgraft_plugins.torch import register_backends

GRAPH = """
modelgraft: 1
inputs: {x: "float[batch n 5]"}
nodes: {a: {use: projector/linear, with: {in_features: 5, out_features: 3}, in: {x: inputs.x}}}
outputs: {y: a}
"""
KEY = "k" * 32


class Slow(Backend):
    """Torch with the other sign, once the file `made` is in the cache; making it takes long."""

    name = "slow"
    lacking = ""
    differs = False

    def load(self, context, shared):
        loaded = open_backend(context.registry, "torch").load(context, shared)
        made = folder_of_states().parent / "made"
        if context.export == "now":
            made.parent.mkdir(parents=True, exist_ok=True)
            made.touch()
        if not made.exists():
            return replace(loaded, unfinished=Unfinished("export", KEY, meanwhile="torch", differs=self.differs))
        return replace(loaded, call=lambda *values: -loaded.call(*values))

    def why_not(self):
        return self.lacking


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and processes in the background."""
    monkeypatch.delenv("MODELGRAFT_BACKGROUND", raising=False)
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("modelgraft.engine.standing.LOOK_S", 0.0)


@pytest.fixture
def begun(monkeypatch):
    """The keys for which a process would have been started."""
    found = []
    monkeypatch.setattr("modelgraft.engine.meanwhile.Meanwhile.begin", lambda self: found.extend(job.unfinished.key for job in self.take()))
    return found


def registry_of(*, exports=True):
    """A registry with torch, projectors and the slow backend."""
    slow, usual = ModuleType("slow_plugin"), ModuleType("torch_plugin")
    slow.register_backends = mg.hookimpl(
        lambda register: register("slow", f"{__name__}:Slow", exports=exports, precisions=("float32",), devices=("cpu",)),
        specname="register_backends",
    )
    usual.register_backends = register_backends
    return assemble({"slow": slow, "torch": usual, "projectors": projectors})


def graph_of(tmp_path, text=GRAPH, **registry):
    (tmp_path / "g.yaml").write_text(text)
    return mg.load(tmp_path / "g.yaml", registry=registry_of(**registry))


def sign(pipeline):
    """Whether it answers as torch does (1) or as the slow backend (-1)."""
    with mg.open(pipeline.plan.graph, backend="torch", init="random") as other:
        mine, theirs = run(pipeline)["y"], run(other)["y"]
    return 1 if torch.equal(mine, theirs) else -1 if torch.equal(mine, -theirs) else 0


def tell(**facts):
    states.write(folder_of_states(), KEY, states.State(**{"since": time.time(), "process": os.getpid(), **facts}))


@contextmanager
def loaded(tmp_path, **how):
    """A pipeline whose node is loaded, and what was told of that."""
    with mg.open(graph_of(tmp_path), init="random", **{"backend": "auto", **how}) as pipeline:
        yield pipeline, tuple(text for text in pipeline.load() if "random numbers" not in text)


def made():
    """As another process leaves it."""
    folder_of_states().mkdir(parents=True, exist_ok=True)
    (folder_of_states().parent / "made").touch()
    tell(made=True)


def run(pipeline):
    return pipeline.run(x=torch.ones(1, 2, 5))


def test_a_named_backend_makes_it_before_it_answers(tmp_path, begun):
    with loaded(tmp_path, backend="slow") as (pipeline, told):
        assert (sign(pipeline), told, begun) == (-1, (), [])


@pytest.mark.parametrize("how", [{"backend": "slow", "export": "later"}, {"backend": "auto"}])
def test_later_torch_answers_and_says_so_and_the_work_is_begun_behind_the_first_answer(tmp_path, begun, how):
    with loaded(tmp_path, **how) as (pipeline, told):
        assert told == ("a: answers on torch until its export is there, which is made in the background from the first answer on",)
        assert begun == []
        assert (sign(pipeline), begun) == (1, [KEY])
        assert (sign(pipeline), begun) == (1, [KEY])


def test_auto_by_the_graph_is_auto(tmp_path, begun):
    graph = graph_of(tmp_path, GRAPH + "runtime: {backend: auto}\n")
    with mg.open(graph, init="random") as pipeline:
        assert pipeline.load()
        assert (sign(pipeline), begun) == (1, [KEY])
    assert mg.plan(graph).nodes["a"].backend == "slow"
    assert mg.plan(graph_of(tmp_path)).nodes["a"].backend == "torch"  # silence means what it always has


def test_never_makes_nothing_and_says_so(tmp_path, begun):
    with loaded(tmp_path, export="never") as (pipeline, told):
        assert told == ('a: answers on torch: its export is not there yet, and with export="never" none is made',)
        assert (sign(pipeline), run(pipeline).warnings[-1:], begun) == (1, told, [])
    assert not folder_of_states().exists()


def test_without_a_background_nothing_is_begun_and_that_is_said(tmp_path, begun, monkeypatch):
    monkeypatch.setenv("MODELGRAFT_BACKGROUND", "off")
    with loaded(tmp_path) as (pipeline, told):
        assert told == ("a: answers on torch: its export is not there yet, and with MODELGRAFT_BACKGROUND=off none is made",)
        assert (sign(pipeline), begun) == (1, [])
    assert when_exported(mg.check(graph_of(tmp_path)), Placing(backend="auto")) == "never"


def test_a_background_that_is_neither_on_nor_off_is_refused(tmp_path, begun, monkeypatch):
    monkeypatch.setenv("MODELGRAFT_BACKGROUND", "of")
    with (
        pytest.raises(mg.InputError, match="MODELGRAFT_BACKGROUND is 'of', wanted: off, or not set"),
        loaded(tmp_path),
    ):
        pass
    assert begun == []


def test_a_cache_that_cannot_be_written_is_said_and_no_process_is_started(tmp_path, begun, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "file" / "cache"))
    with loaded(tmp_path) as (pipeline, told):
        assert told[0].startswith("a: answers on torch until its export is there, which cannot be kept: the cache ")
        assert told[0].endswith("cannot be used (Not a directory); set MODELGRAFT_CACHE to another folder")
        assert (sign(pipeline), begun) == (1, [])


@pytest.mark.parametrize(("how", "is_said"), [({"export": "later"}, True), ({}, False), ({"export": "later", "backend": "slow"}, False)])
def test_an_export_that_no_backend_makes_is_said(tmp_path, begun, how, is_said):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        mg.plan(graph_of(tmp_path), **how)
    said = 'export="later" changes nothing: no node runs on a backend that exports, as with backend="auto"'
    assert [str(warning.message) for warning in heard] == [said] * is_said


def test_the_next_call_uses_it_once_it_is_there(tmp_path, begun):
    """Events tell how far it is until then, and that it is there. Results of torch are not kept as if they were its own."""
    with loaded(tmp_path) as (pipeline, _):
        assert sign(pipeline) == 1
        with locked(states.lock_of(folder_of_states(), KEY)):
            tell(done=2, total=4, label="tracing, step")
            with pipeline.stream(x=torch.ones(1, 2, 5)) as events:
                told = [(event.label, event.done, event.total) for event in events if event.kind == "progress"]
        assert told == [("meanwhile, tracing, step", 2, 4)]
        made()
        assert "a: answers on slow from here on: its export is there" in run(pipeline).warnings
        assert sign(pipeline) == -1
        assert run(pipeline).cached == frozenset({"a"})
        assert not any("answers on torch" in text for text in run(pipeline).warnings)


@pytest.mark.parametrize(("differs", "signs"), [(False, [1, -1]), (True, [1, 1])])
def test_a_map_keeps_to_what_gives_the_same(tmp_path, begun, monkeypatch, differs, signs):
    """Where the two differ by more than rounding, as an int8 export and float32 do, the results of a map belong together."""
    monkeypatch.setattr(Slow, "differs", differs)
    with loaded(tmp_path) as (pipeline, _), mg.open(graph_of(tmp_path), backend="torch", init="random") as usual:
        expected, found = run(usual)["y"], []
        for result in pipeline.map(({"x": torch.ones(1, 2, 5)} for _ in range(2)), batch_size=1):
            found.append(1 if torch.equal(result["y"], expected) else -1 if torch.equal(result["y"], -expected) else 0)
            made()
        assert found == signs
        assert sign(pipeline) == -1


@pytest.mark.parametrize(("facts", "why"), [({"failed": "No space left on device"}, "No space left on device"), (None, "ended early")])
def test_what_was_not_made_is_told_and_torch_goes_on(tmp_path, begun, facts, why, monkeypatch):
    monkeypatch.setattr("modelgraft.engine.meanwhile.START_S", 0.0)
    with loaded(tmp_path) as (pipeline, _):
        assert sign(pipeline) == 1
        if facts:
            tell(**facts)
        for _ in range(2):  # what was said before does not hold any more
            (told,) = (text for text in run(pipeline).warnings if "random" not in text)
            assert told.startswith("a: goes on answering on torch: its export was not made")
            assert why in told
        assert sign(pipeline) == 1


def test_two_loaded_models_need_room_for_both(tmp_path, begun):
    """Under a limit the next start takes it, not this one."""
    with loaded(tmp_path, max_memory="1GB") as (pipeline, _):
        made()
        said = "a: goes on answering on torch: its export is there for the next start, which need not hold both"
        assert said in run(pipeline).warnings
        assert sign(pipeline) == 1


@pytest.mark.parametrize(
    "error",
    [
        PluginError("slowrt does not read it\nand more"),
        mg.SourceError(Problem("cache-failed", "slowrt does not read it", hint="make room")),
    ],
)
def test_what_was_made_and_cannot_be_used_is_told(tmp_path, begun, monkeypatch, error):
    """In one line, without the code of a problem and the way out, which is for whoever asked for the export itself."""

    def broken(*_):
        raise error

    with loaded(tmp_path) as (pipeline, _):
        made()
        with monkeypatch.context() as patch:
            patch.setattr(Slow, "load", broken)
            assert "a: goes on answering on torch: its export cannot be used (slowrt does not read it)" in run(pipeline).warnings
        assert sign(pipeline) == 1


def test_one_process_makes_it_and_the_others_say_how_far_it_is(tmp_path, begun):
    tell(done=1, total=4, label="tracing for onnx, step")
    with locked(states.lock_of(folder_of_states(), KEY)), loaded(tmp_path) as (pipeline, told):
        how = "is being made by another process (tracing for onnx, step 1 of 4, since 0 s)"
        assert told == (f"a: answers on torch until its export is there, which {how}",)
        assert (sign(pipeline), begun) == (1, [])


def test_what_failed_before_is_told_and_tried_again(tmp_path, begun):
    tell(failed="No space left on device")
    with loaded(tmp_path) as (pipeline, told):
        assert told[0].endswith("in the background from the first answer on; that has failed before (No space left on device)")
        assert (sign(pipeline), begun) == (1, [KEY])


def test_what_a_killed_process_has_left_undone_is_told_and_tried_again(tmp_path, begun):
    """Who was killed says nothing itself: it had begun, has not ended, and nobody holds its lock."""
    tell(done=2, total=4, label="tracing for onnx, step", process=4711, since=1.0)
    with loaded(tmp_path) as (pipeline, told):
        found = "the process that began it before ended early (tracing for onnx, step 2), as one that is killed does"
        assert told[0].endswith(f"from the first answer on; {found}")
        assert (sign(pipeline), begun) == (1, [KEY])


def test_a_process_that_is_killed_is_told_of_at_once(tmp_path, begun):
    """By the pipeline that started it, without waiting as for one that is slow to begin."""
    with loaded(tmp_path) as (pipeline, _):
        assert sign(pipeline) == 1
        pipeline._loader.left._meanwhile._began[KEY] = time.time() - 1
        tell(done=2, total=4, label="tracing for onnx, step", process=4711)
        (told,) = (text for text in run(pipeline).warnings if "random" not in text)
        assert told == "a: goes on answering on torch: its export was not made (the process that made it ended early)"


def test_what_only_this_program_has_is_told(tmp_path, begun, monkeypatch):
    monkeypatch.setattr("modelgraft.engine.meanwhile.packed", lambda value: packed(lambda: value))
    with loaded(tmp_path) as (pipeline, told):
        assert re.fullmatch(
            r'a: answers on torch until .*, which cannot be made by another process \(.*\): export="now" makes it here', told[0]
        )
        assert (sign(pipeline), begun) == (1, [])


@pytest.mark.parametrize(
    ("text", "placing", "why"),
    [
        (GRAPH, {"dtype": "bfloat16"}, "a runs in bfloat16, which the slow backend does not have"),
        (GRAPH.replace("in: {x", "runtime: {dtype: float16}, in: {x"), {}, "a runs in float16, which the slow backend does not have"),
        (GRAPH, {"device": "cuda:0"}, "a runs on cuda:0, and what is exported later is for the CPU"),
    ],
)
def test_auto_is_torch_where_the_other_does_not_suit_and_says_why(tmp_path, text, placing, why):
    solved = mg.check(graph_of(tmp_path, text))
    assert chosen_backend(solved, Placing(backend="auto", **placing), device="cpu") == ("torch", why)
    assert chosen_backend(solved, Placing(**placing), device="cpu") == ("torch", "")


def test_auto_is_torch_where_nothing_exports_or_what_does_is_not_whole(tmp_path, monkeypatch):
    auto = Placing(backend="auto")
    assert chosen_backend(mg.check(graph_of(tmp_path, exports=False)), auto, device="cpu") == ("torch", "no installed backend exports")
    monkeypatch.setattr(Slow, "lacking", "not installed: slowrt")
    with pytest.warns(UserWarning, match="backend auto is torch: not installed: slowrt"):
        assert mg.plan(graph_of(tmp_path), backend="auto").nodes["a"].backend == "torch"


def test_a_graph_goes_to_another_process_without_what_is_installed(tmp_path):
    solved = mg.check(graph_of(tmp_path))
    found = unpacked(packed(solved), solved.graph.registry)
    assert found.nodes["a"].config == solved.nodes["a"].config
    assert found.graph.registry is solved.graph.registry
    assert b"slow_plugin" not in packed(solved)


def test_settings_of_functions_go_to_another_process():
    """They are found by their names there: those of every function that is installed, and a whole graph of many."""
    functions = [one for one in installed_plugins().components.values() if one.function is not None]
    assert functions
    assert [one.id for one in functions if pickle.loads(pickle.dumps(one.config)) is not one.config] == []
    solved = mg.check(mg.load("companion/draw"))
    assert unpacked(packed(solved), solved.graph.registry).nodes.keys() == solved.nodes.keys()


def test_states_that_cannot_be_read_say_nothing_and_old_ones_go(tmp_path):
    tell(done=1, label="x")
    file = folder_of_states() / f"{KEY}.json"
    assert states.read(folder_of_states(), KEY).done == 1
    os.utime(file, (0, 0))
    states.forget_old(folder_of_states())
    assert not file.exists()
    for text in ("", "[]", json.dumps({"lost": 1})):
        file.write_text(text)
        assert states.read(folder_of_states(), KEY) == states.State()


def test_a_stand_in_closes_the_first_when_the_second_takes_its_place():
    """What a component with taps gives is asked of each anew."""
    closed, found = [], [WAITS]

    def one(name):
        return Loaded(lambda x: (name, x), giving=lambda wanted: lambda x: (name, *sorted(wanted), x), close=lambda: closed.append(name))

    stands = StandIn(one("first"), lambda: found[0]).loaded()
    tapped = stands.giving(frozenset({"tap"}))
    assert (stands.call(1), tapped(2)) == (("first", 1), ("first", "tap", 2))
    found[0] = one("second")
    assert (stands.call(1), tapped(2), closed) == (("second", 1), ("second", "tap", 2), ["first"])
    found[0] = one("third")
    assert stands.call(1) == ("second", 1)
    stands.close()
    assert closed == ["first", "second"]


def test_a_machine_that_starts_no_process_leaves_it_to_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(Path(tmp_path) / "none"))
    meanwhile = Meanwhile(mg.check(graph_of(tmp_path)), opening=Opening())
    step = mg.plan(graph_of(tmp_path), backend="slow").steps[0]
    meanwhile.add(step, Unfinished("export", KEY, meanwhile="torch"))
    meanwhile.begin()
    assert meanwhile.look(KEY) is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a pipe cannot be made to hold more")
def test_an_answer_waits_neither_for_the_python_of_another_process_nor_for_what_it_reads(tmp_path, monkeypatch):
    """It is handed all that it works with before it has started."""
    stand_in, go, heard = tmp_path / "python", tmp_path / "go", tmp_path / "heard"
    wait, take = f"while [ ! -e '{go}' ]; do sleep 0.05; done", f"cat > '{heard}.part'; mv '{heard}.part' '{heard}'"
    stand_in.write_text(f"#!/bin/sh\n{wait}\n{take}\n", encoding="utf-8")
    stand_in.chmod(0o755)
    monkeypatch.setattr("modelgraft.engine.meanwhile.sys.executable", str(stand_in))
    content, waiting = os.urandom(1 << 18), Meanwhile(mg.check(graph_of(tmp_path)), opening=Opening())  # more than a pipe holds by itself
    waiting._waiting.append(Errand("a", Unfinished("export", KEY), content))
    waiting.begin()
    assert not heard.exists()
    go.touch()
    assert any(heard.exists() or time.sleep(0.05) for _ in range(1000))
    _, work = pickle.loads(heard.read_bytes())
    assert pickle.loads(work)[1] == [(KEY, "a", "export", content)]
