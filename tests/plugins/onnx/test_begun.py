"""Sessions that are begun before anybody asks for them: who asks gets that one, and what is wrong with it is told then."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import weakref
from types import SimpleNamespace

import numpy
import onnx
import pytest
from onnx import TensorProto, helper

import modelgraft as mg
from modelgraft.plugin import folder_aside, seals
from modelgraft_plugins.onnx import backend, begun, keys, measured, store
from modelgraft_plugins.onnx.backend import OnnxBackend
from modelgraft_plugins.onnx.begun import Begun
from modelgraft_plugins.onnx.traced import open_many

NAME = "model.onnx"


def write(folder, operator="Add"):
    """Write a graph that gives what an operator makes of a number and itself, and the seal of the folder."""
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x", "x"], ["y"])], "double", sides[:1], sides[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / NAME)
    seals.seal(folder)


@pytest.fixture
def folder(tmp_path):
    """A folder with a graph that doubles what it is given."""
    made = tmp_path / "export"
    made.mkdir()
    write(made)
    return made


@pytest.fixture
def starts(monkeypatch):
    """What was started, in order."""
    seen, opening = [], begun._open
    monkeypatch.setattr(begun, "_open", lambda what: seen.append(what) or opening(what))
    return seen


def test_the_backend_is_imported_without_torch():
    """Or no session would start beside its import."""
    code = "import sys, modelgraft_plugins.onnx.backend; print('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=100)
    assert ran.stdout.split() == ["False"]


@pytest.mark.parametrize(("precision", "is_measured"), [("w8", True), ("float32", False)])
def test_what_an_export_asks_of_the_processor_is_measured_by_another_thread(monkeypatch, precision, is_measured):
    """Where none is kept, beside the import of torch, which is needed then."""
    by, measuring = list[str](), threading.Event()
    monkeypatch.setattr(keys, "kept_key", lambda *_, **__: "")
    monkeypatch.setattr(measured, "prepare", lambda: by.append(threading.current_thread().name) or measuring.set())
    assert OnnxBackend().begin(None, precision=precision, threads=None) is False
    assert measuring.wait(60 if is_measured else 0.1) is is_measured
    assert [name for name in by if name == threading.current_thread().name] == []


def test_what_has_no_weights_is_kept_under_one_key_for_all_like_it(tmp_path):
    """Whatever its name; what is drawn at random depends on it, and is not begun."""
    one, other = ({"use": "embedding/normalize", "in": {"x": "drawn"}} for _ in range(2))
    drawn = {"use": "projector/linear", "with": {"over": "vector", "in_features": 3, "out_features": 3}, "in": {"x": "inputs.x"}}
    document = {
        "modelgraft": 1,
        "inputs": {"x": "float[batch 3]"},
        "nodes": {"drawn": drawn, "one": one, "other": other},
        "outputs": {"y": "one", "z": "other"},
    }
    (tmp_path / "graph.yaml").write_text(json.dumps(document))
    nodes = mg.check(mg.load(tmp_path / "graph.yaml")).nodes
    kept = {name: keys.kept_key(nodes[name], precision="float32") for name in nodes}
    assert kept["one"] == kept["other"] != ""
    assert kept["drawn"] == ""


def test_who_opens_it_gets_the_session_that_was_begun_and_the_next_one_of_his_own(folder, starts):
    """However often it was begun; another number of threads is another session."""
    what = begun.begin(folder, NAME, count=1)
    assert begun.begin(folder, NAME, count=1) == what == Begun(folder / NAME, False, 1)
    other = begun.started(Begun(folder / NAME, False, 2))
    first, second = begun.started(what), begun.started(what)
    assert len({id(session) for session in (first, second, other)}) == 3
    assert sorted(starts, key=lambda one: one.count) == [what, what, Begun(folder / NAME, False, 2)]
    assert first.run(None, {"x": numpy.array([1, -3], "float32")})[0].tolist() == [2, -6]


def test_who_waits_for_a_look_that_another_has_dropped_looks_himself(folder, monkeypatch):
    """Two pipelines open one export, and one of them is closed before the look has begun."""
    goes_on, opening = threading.Event(), begun._open
    monkeypatch.setattr(begun, "_open", lambda what: goes_on.wait(60) and opening(what))
    wait = begun.proof(what := begun.begin(folder, NAME, count=1))
    begun.drop(what)
    goes_on.set()
    assert wait() == ""


def test_files_that_were_harmed_before_are_complained_of(folder):
    """By who opens it; a folder without a seal too."""
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert NAME in begun.proof(begun.begin(folder, NAME, count=1))()
    (folder / "seal").unlink()
    with pytest.raises(seals.BrokenSeal, match="no seal"):
        begun.proof(begun.begin(folder, NAME, count=2))()


def test_a_graph_that_was_tuned_is_begun_as_it_lies_there(folder, starts):
    """Where the folder of this machine is."""
    tuned = begun.tuned_folder(folder, NAME)
    tuned.mkdir()
    write(tuned)
    (folder / NAME).unlink()
    assert begun.started(begun.begin(folder, NAME, count=1)).run(None, {"x": numpy.ones(2, "float32")})[0].tolist() == [2, 2]
    assert starts == [Begun(tuned / NAME, True, 1)]


def test_what_cannot_start_is_told_to_who_opens_it(folder):
    """Not before, and in the same words as without it."""
    (folder / NAME).write_bytes(b"no graph")
    seals.seal(folder)
    what = begun.begin(folder, NAME, count=1)
    with pytest.raises(Exception, match="INVALID_PROTOBUF") as early:
        begun.started(what)
    with pytest.raises(type(early.value)) as late:
        begun.started(what)
    assert str(early.value) == str(late.value)


def test_a_session_that_nobody_takes_is_let_go_of(folder, monkeypatch):
    """Its memory as well."""
    seen, opening = [], begun._open

    def noted(what):
        session = opening(what)
        seen.append(weakref.ref(session))
        return session

    monkeypatch.setattr(begun, "_open", noted)
    what = begun.begin(folder, NAME, count=1)
    begun._begun[what].session.result()
    begun.drop(what)
    gc.collect()
    assert [reference() for reference in seen] == [None]
    begun.drop(what)


def test_an_export_that_is_made_again_is_not_run_as_it_was_before(folder):
    """Whoever finds it damaged makes it again, and opens what lies there now: not the session that was begun on the other files."""
    what = begun.begin(folder, NAME, count=1)
    begun._begun[what].session.result()
    shutil.rmtree(folder)
    with folder_aside(folder) as aside:
        write(aside, "Mul")
    assert begun.started(what).run(None, {"x": numpy.array([3, -3], "float32")})[0].tolist() == [9, 9]


def test_nothing_is_begun_on_a_file_that_was_cut(folder, starts):
    """To read beyond its end would end the process."""
    (folder / NAME).write_bytes((folder / NAME).read_bytes()[:-8])
    what = begun.begin(folder, NAME, count=1)
    with pytest.raises(seals.BrokenSeal, match=NAME):
        begun.started(what)
    assert starts == []


@pytest.fixture
def pair(folder, monkeypatch):
    """A kept export that has a graph for many rows beside the other, as a backend finds it; gives that graph."""
    many = measured.beside(folder / NAME)
    shutil.copy(folder / NAME, many)
    (folder / "seal").unlink()
    seals.seal(folder)
    monkeypatch.setattr(keys, "kept_key", lambda *_, **__: "key")
    monkeypatch.setattr(store, "manifest_of", lambda _: {"precision": "w8"})
    monkeypatch.setattr(store, "folder_of", lambda _: folder)
    monkeypatch.setattr(backend, "owner_of", lambda _: SimpleNamespace(loop=None))
    monkeypatch.setattr(measured, "widens", lambda: True)
    return many


def test_a_start_behind_long_prompts_begins_the_graph_for_many_rows_too(pair, starts):
    """Behind that for few, and whoever reads the first long prompt gets it; before, no start has paid for it."""
    few, many = Begun(pair.with_name(NAME), False, 1), Begun(pair, False, 1, as_needed=True)
    first, second = OnnxBackend(), OnnxBackend()
    assert first.begin(None, precision="w8", threads=1)
    assert begun.started(few) is not None
    assert open_many(pair, count=1) is not None
    assert starts == [few, many]
    first.close()
    assert second.begin(None, precision="w8", threads=1)
    assert [begun.started(few), open_many(pair, count=1)].count(None) == 0
    assert starts == [few, many] * 2
    second.close()


def test_a_graph_for_many_rows_that_nobody_needed_is_not_begun_again(pair, starts):
    """Who had short prompts alone ends, and the next start opens one session."""
    begun.note_many(pair.parent, is_needed=True)
    for _ in range(2):
        short = OnnxBackend()
        short.begin(None, precision="w8", threads=1)
        for what in short._begun:
            begun._begun[what].session.result()
        short.close()
    assert [what.path.name for what in starts] == [NAME, pair.name, NAME]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_process_does_not_wait_for_what_another_has_begun(folder):
    """The thread that would end it is not there."""
    what = begun.begin(folder, NAME, count=1)
    begun._begun[what].session.result()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_left).get(timeout=60) == 0
    begun.drop(what)


def _left():
    return len(begun._begun)
