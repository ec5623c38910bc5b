"""onnxruntime as it is installed and as it behaves beside torch: distributions that clash, and threads that wait without work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy
import onnx
import pytest

import modelgraft_plugins
from modelgraft.kernel.words.errors import InputError, PluginError
from modelgraft_plugins.onnx import runtime as module
from modelgraft_plugins.onnx.backend import OnnxBackend
from support.toy_decoder import write_graph


@pytest.fixture
def installed(monkeypatch):
    """A function that says which distributions are installed, and what `import onnxruntime` gives."""

    def say(*names, providers=("CPUExecutionProvider",), found=...):
        monkeypatch.setattr(module, "_installed", lambda name: name in names)
        real = SimpleNamespace(get_available_providers=lambda: list(providers), InferenceSession=object)
        monkeypatch.setitem(sys.modules, "onnxruntime", real if found is ... else found)
        return module.runtime.__wrapped__

    return say


def test_onnxruntime_that_is_not_there_is_named(installed):
    """With what to install."""
    with pytest.raises(PluginError, match=r"needs onnxruntime, which is not installed: pip install onnxruntime-gpu \(or onnxruntime\)$"):
        installed(found=None)()


@pytest.mark.parametrize("found", [None, ModuleType("onnxruntime")], ids=["gone", "an empty folder"])
def test_files_that_another_distribution_has_taken_along_are_named(installed, found):
    """Removing one of two that share a folder: pip believes that the other is still there."""
    with pytest.raises(
        PluginError, match=r"onnxruntime-gpu is installed, and cannot be imported .* --force-reinstall --no-deps onnxruntime-gpu$"
    ):
        installed("onnxruntime-gpu", found=found)()


def test_one_distribution_over_the_other_is_named(installed):
    """The CPU build over the one for GPUs, and who has asked for it; the other way round nothing is lost."""
    both = ("onnxruntime", "onnxruntime-gpu")
    way_out = "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
    with pytest.raises(PluginError, match=rf"are both installed and the first has overwritten the second: {way_out}$"):
        installed(*both)()
    with pytest.raises(PluginError, match=rf"{way_out}\. onnxruntime-genai has asked for the first: install it with --no-deps$"):
        installed(*both, "onnxruntime-genai")()
    installed(*both, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))()
    installed("onnxruntime")()


@pytest.mark.parametrize("setting", ["0", "two", "-1", "1.5", "²", "٣"])
def test_a_number_of_threads_that_means_nothing_is_refused(monkeypatch, setting):
    """With the variable and what was found."""
    monkeypatch.setenv("MODELGRAFT_THREADS", setting)
    with pytest.raises(InputError, match=f"MODELGRAFT_THREADS is '{setting}', wanted a number of threads such as 2"):
        module.threads()


@pytest.mark.parametrize(
    ("quota", "wanted"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 6), ("1600000 100000", 6), ("", 6)]
)
def test_the_cores_of_a_container_are_those_that_it_is_given(monkeypatch, tmp_path, quota, wanted):
    """Rounded up, and never more than the process is bound to."""
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr("modelgraft_plugins.cores.QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.delenv("MODELGRAFT_THREADS", raising=False)
    assert module.cores() == module.threads() == wanted


@pytest.mark.parametrize(("count", "looks"), [(4, "1"), (5, "0")])
def test_threads_look_for_work_where_each_has_a_core(monkeypatch, count, looks):
    """Those of a session that has more of them sleep at once; what is asked for by name goes over it."""
    monkeypatch.setattr(module, "cores", lambda: 4)
    entry = "session.intra_op.allow_spinning"
    assert module.options_of(count=count).get_session_config_entry(entry) == looks
    assert module.options_of(count=count, settings={entry: "0"}).get_session_config_entry(entry) == "0"


SESSIONS = """
import json, os, sys, time
from pathlib import Path
import torch
from modelgraft.plugin import table_of
from modelgraft_plugins.llm.grouped import GroupedDecoder
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.runtime import runtime
from modelgraft_plugins.onnx.sessions import open_session
from support.toy_decoder import LAYOUT, weights

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(1)
torch.ones(200, 200) @ torch.ones(200, 200)
runtime()  # has a thread of its own, which belongs to no session
before = threads()
sessions = [open_session(Path(sys.argv[1]), device="cpu", count=int(sys.argv[2]) or None) for _ in range(2)]
opened = threads() - before
for session in sessions:
    decoder = GroupedDecoder(SessionGraph(session, device="cpu"), LAYOUT, table_of(weights()["table"]))
    decoder.start([torch.randn(40, 16)] * 8, room=9).step(torch.tensor([1] * 8))
start = time.process_time()
time.sleep(0.5)
print(json.dumps({"opened": opened, "idle": time.process_time() - start, "now": threads() - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which is Linux's")
@pytest.mark.parametrize(("variable", "asked"), [(3, 0), (3, 1)], ids=["3", "3, and 1 asked for"])
def test_sessions_take_the_threads_that_they_are_given_and_rest_without_work(variable, asked, tmp_path):
    """Two sessions beside torch: so many less one (the caller computes too) each, and none of them spins while it waits.

    What a node asks for goes over the variable.
    """
    write_graph(tmp_path / "toy.onnx")
    env = {**os.environ, "MODELGRAFT_THREADS": str(variable), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", SESSIONS, str(tmp_path / "toy.onnx"), str(asked)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    found = json.loads(ran.stdout)
    assert found["opened"] == found["now"] == 2 * ((asked or variable) - 1)
    assert found["idle"] < 0.05  # of half a second; a single spinning thread would take all of it


WATCHED = """
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("numpy" in sys.modules and not sys.modules["numpy"].__spec__._initializing)

sys.meta_path.insert(0, Watch())
from modelgraft_plugins.onnx.runtime import runtime
print("numpy" in sys.modules)
runtime()
"""


def test_numpy_is_whole_before_onnxruntime_is_imported():
    """onnxruntime asks for an inner module before the package, torch beside it the other way round: each waited for the other."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", WATCHED], env=env, capture_output=True, text=True, check=True, timeout=100)
    assert ran.stdout.split() == ["False", "True"]


def test_a_part_computes_with_a_file_as_onnxruntime_alone_does(tmp_path):
    """A session with the options of this backend, by the names of inputs and outputs."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, None])
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, None]) for name in ("twice", "less")]
    nodes = [onnx.helper.make_node("Add", ["x", "x"], ["twice"]), onnx.helper.make_node("Neg", ["x"], ["less"])]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], outputs), opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "graph.onnx")
    given = numpy.array([[1, 2, 3], [5, 7, 11]], numpy.float32)
    found = OnnxBackend().open_file(tmp_path / "graph.onnx", threads=1)({"x": given})
    assert {name: array.tolist() for name, array in found.items()} == {"twice": (2 * given).tolist(), "less": (-given).tolist()}


@pytest.mark.parametrize("held", [b"", b"no graph"], ids=["nothing", "something else"])
def test_a_file_that_holds_no_graph_is_told_by_its_name(held, tmp_path):
    """Half of a download, say: not in the words of onnxruntime alone."""
    (tmp_path / "voice.onnx").write_bytes(held)
    with pytest.raises(InputError, match=r"voice\.onnx is no graph that onnxruntime\S* [\d.]+ reads: .*\bvoice\.onnx"):
        OnnxBackend().open_file(tmp_path / "voice.onnx", threads=1)


def test_nothing_but_the_backend_opens_sessions():
    """So that threads, waiting and limits are those of all; what is written beside an export runs without modelgraft."""
    plugins = Path(modelgraft_plugins.__file__).parent
    others = [path for path in plugins.rglob("*.py") if path.parent.name != "onnx" and path.name != "exported_script.py"]
    assert len(others) > 300
    assert not [path for path in others if re.search(r"^\s*(import|from) onnxruntime", path.read_text(encoding="utf-8"), re.MULTILINE)]


def test_onnxruntime_sends_no_reports_and_keeps_none(tmp_path):
    """Unless a user asks it to: nothing of it lies in the home folder, and a process that has opened a graph has no such file open."""
    write_graph(tmp_path / "graph.onnx")
    code = (
        "import os, sys; from pathlib import Path; from modelgraft_plugins.onnx.runtime import open_file; open_file(Path(sys.argv[1]));"
        "print([os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')])"
    )
    home = tmp_path / "home"
    home.mkdir()
    own = {name: text for name, text in os.environ.items() if name not in {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"}}
    own |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    command = [sys.executable, "-c", code, str(tmp_path / "graph.onnx")]
    said = subprocess.run(command, env=own, capture_output=True, text=True, check=True).stdout
    assert ".onnxruntime" not in said
    assert [path for path in home.rglob("*") if "onnxruntime" in path.name] == []
