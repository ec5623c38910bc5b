"""Whether a GPU can be used, as told by what torch and onnxruntime say; no GPU is needed to say that there is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import modelgraft as mg
from modelgraft import api
from modelgraft.engine.backend import LoadContext, open_backend
from modelgraft.engine.modules import calling as api_devices
from modelgraft.engine.opening import Opening
from modelgraft.installed.discovery import discover
from modelgraft.kernel.planning import planner
from modelgraft.kernel.words.errors import InputError
from modelgraft_plugins.onnx import cuda, loading
from modelgraft_plugins.onnx.runtime import runtime
from modelgraft_plugins.onnx.sessions import open_session
from support.toy_decoder import write_graph

GRAPH = """
modelgraft: 1
inputs: {x: "float[batch tokens 8]"}
nodes:
  first: {use: projector/linear, with: {in_features: 8, out_features: 8}, in: {x: inputs.x}}
  second: {use: projector/linear, with: {in_features: 8, out_features: 8}, in: {x: first}}
outputs: {y: second.y}
"""
BOTH = ("CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.fixture
def machine(monkeypatch):
    """A function that makes torch and onnxruntime say what they are told; by default that all is well."""

    def say(*, providers=BOTH, torch_cuda="13.0", devices=1, version="1.31.1", missing=(), opens=BOTH):
        opened = []

        class Session:
            def __init__(self, path, options, *, providers, enable_fallback):
                opened.append((providers[0][1], enable_fallback))
                if isinstance(opens, Exception):
                    raise opens

            def get_providers(self):
                return list(opens)

            def disable_fallback(self):
                opened.append("no fallback")

        ort = SimpleNamespace(
            __version__=version,
            cuda_version="13.0",
            get_available_providers=lambda: list(providers),
            InferenceSession=Session,
            opened=opened,
        )
        monkeypatch.setattr(cuda, "runtime", lambda: ort)
        monkeypatch.setattr(cuda, "missing_libraries", lambda: missing)
        monkeypatch.setattr(cuda, "stream_of", lambda device: SimpleNamespace(cuda_stream=4711))
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        monkeypatch.setattr(torch, "__version__", "2.13.0")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        return ort

    return say


REASONS = {
    "a build for the CPU": (
        {"providers": ("CPUExecutionProvider",)},
        "onnxruntime 1.31.1 is built for the CPU alone: pip uninstall onnxruntime, then pip install onnxruntime-gpu",
    ),
    "a torch for the CPU": (
        {"torch_cuda": None},
        "torch 2.13.0 is built without CUDA, so no tensor can lie there: install a torch for CUDA 13",
    ),
    "no GPU": ({"devices": 0}, "torch sees no GPU (CUDA_VISIBLE_DEVICES is '7'): nvidia-smi lists those that the driver knows"),
    "too old": ({"version": "1.23.2"}, "onnxruntime-gpu 1.23.2 is too old: pip install 'onnxruntime-gpu>=1.31'"),
    "libraries of another CUDA": (
        {"torch_cuda": "12.8", "missing": ("libcublas.so.13",)},
        "onnxruntime-gpu 1.31.1 needs the libraries of CUDA 13, and torch 2.13.0 brings those of CUDA 12: install a torch for CUDA 13, "
        "or an onnxruntime-gpu for CUDA 12",
    ),
    "libraries that are not there": (
        {"missing": ("libcublas.so.13", "libcudnn.so.9")},
        "libraries of CUDA 13 cannot be loaded (libcublas.so.13; libcudnn.so.9): pip install 'onnxruntime-gpu[cuda,cudnn]'",
    ),
}


@pytest.mark.parametrize(("facts", "reason"), REASONS.values(), ids=REASONS)
def test_each_mismatch_is_one_sentence_with_the_way_out(machine, monkeypatch, tmp_path, facts, reason):
    """The same when a GPU is asked for, which is an error, and when nobody says where, which stays on the CPU and says so."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    ort = machine(**facts)
    assert cuda.why_not() == reason
    with pytest.raises(InputError) as raised:
        cuda.open_on_cuda(tmp_path / "absent.onnx", None, "cuda:0")
    assert str(raised.value) == f'the onnx backend cannot run on cuda:0: {reason}; or choose device="cpu"'
    assert ort.opened == []
    with pytest.warns(RuntimeWarning) as said:
        assert cuda.auto_device("cuda:0") == "cpu"
    assert str(said[0].message) == f"the onnx backend stays on the CPU: {reason}"


def test_libraries_of_both_versions_of_cuda_may_lie_side_by_side(machine):
    """What counts is that they can be loaded."""
    machine(torch_cuda="12.8")
    assert cuda.why_not() == ""
    assert cuda.auto_device("cuda:0") == "cuda:0"


def test_a_machine_on_which_torch_stays_on_the_cpu_is_not_asked(machine):
    """Its onnxruntime is not even imported."""
    machine(providers=())
    assert cuda.auto_device("cpu") == "cpu"


def solved(folder, *, second=""):
    (folder / "g.yaml").write_text(GRAPH.replace("in: {x: first}", f"in: {{x: first}}{second}"))
    return mg.check(mg.load(folder / "g.yaml"))


def test_nodes_on_onnx_stay_on_the_cpu_when_only_torch_has_a_gpu(machine, monkeypatch, tmp_path):
    """Those on torch take it; a device that was asked for is asked of everyone; nothing is said where nothing runs on onnx."""
    plain = solved(tmp_path)
    machine(devices=1, providers=())
    monkeypatch.setattr(api, "has_no_gpu", lambda: False)
    monkeypatch.setattr(api_devices, "resolve_device", lambda device: "cuda:0" if device in (None, "auto") else device)
    assert api._placement(plain, Opening()) == {"device": "cuda:0", "backend": "torch"}
    with pytest.warns(RuntimeWarning, match="the onnx backend stays on the CPU: onnxruntime 1.31.1 is built for the CPU alone"):
        where = api._placement(plain, Opening(device="auto", backend="onnx"))
    assert where == {"device": "cuda:0", "backend": "torch", "device of onnx": "cpu"}
    assert api._placement(plain, Opening(device="cuda:0", backend="onnx")) == {"device": "cuda:0", "backend": "torch", "flag": "cuda:0"}
    mixed = planner.plan(solved(tmp_path, second=", runtime: {backend: onnx}"), otherwise=where)
    devices = {step.node.name: step.device for step in mixed.steps}
    assert devices == {"first": "cuda:0", "second": "cpu"}


def test_a_node_is_refused_before_it_is_exported_for_a_gpu_that_is_of_no_use(machine, monkeypatch, tmp_path):
    """The node, the device, why, and what to do: nothing is built or traced first. What a session says later carries the node too."""
    machine(torch_cuda=None)
    (step, _) = planner.plan(solved(tmp_path), asked={"backend": "onnx", "device": "cuda:0"}).steps
    context = LoadContext(step.node, "cuda:0", "float32", None, 0, offline=True, registry=discover())
    loader = loading.Loads(open_backend(discover(), "torch"), {})
    with pytest.raises(
        InputError, match=r"^first cannot run on cuda:0 with the onnx backend: torch 2\.13\.0 is built .*; or choose device=\"cpu\"$"
    ):
        loader.load(context, {})
    machine()

    def refuse(*_):
        raise InputError("onnxruntime cannot open m.onnx")

    monkeypatch.setattr(loader, "_open", refuse)
    with pytest.raises(InputError, match=r"^first: onnxruntime cannot open m.onnx$"):
        loader.load(context, {})


def test_a_session_is_on_the_gpu_or_an_error(machine, tmp_path):
    """One that onnxruntime opened on the CPU instead, one that it cannot open, and fallbacks later on."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"MatMul")
    ort = machine()
    assert cuda.open_on_cuda(path, None, "cuda:1").get_providers() == list(BOTH)
    settings, fallback = ort.opened[0]
    assert (settings["device_id"], settings["user_compute_stream"], settings["use_tf32"], settings["enable_cuda_graph"]) == (
        "1",
        "4711",
        "0",
        "0",
    )
    assert fallback == 0
    assert ort.opened[1] == "no fallback"
    machine(opens=("CPUExecutionProvider",))
    expected = "opened m.onnx on CPUExecutionProvider instead of cuda:0: its CUDA provider could not be loaded; its log above says why"
    with pytest.raises(InputError, match=expected):
        cuda.open_on_cuda(path, None, "cuda:0")
    machine(opens=RuntimeError("out of memory\nmore"))
    with pytest.raises(InputError, match=r"onnxruntime cannot open m.onnx on cuda:0: out of memory$"):
        cuda.open_on_cuda(path, None, "cuda:0")


def test_activations_of_8_bits_are_refused_with_what_to_take_instead(machine, tmp_path):
    """They would run on the host, between copies, and nobody would know why it is slow."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"DynamicQuantizeLinear")
    ort = machine()
    with pytest.raises(
        InputError, match=r"m.onnx has 8-bit activations, .* for the CPU alone: run the node with precision float16, or choose"
    ):
        cuda.open_on_cuda(path, None, "cuda:0")
    assert ort.opened == []


def test_a_decoder_that_cannot_be_captured_is_opened_all_the_same(machine, tmp_path):
    """Its session is first opened to capture; when onnxruntime refuses that, without, and that is said."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"GroupQueryAttention")
    ort = machine()
    cuda.open_on_cuda(path, None, "cuda:0")
    assert [entry[0]["enable_cuda_graph"] for entry in ort.opened if entry != "no fallback"] == ["1"]
    ort = machine(opens=RuntimeError("all compute graph nodes have not been partitioned to the CUDA EP"))
    with pytest.warns(RuntimeWarning, match="not replayed as a CUDA graph.*have not been partitioned"), pytest.raises(InputError):
        cuda.open_on_cuda(path, None, "cuda:0")
    assert [entry[0]["enable_cuda_graph"] for entry in ort.opened] == ["1", "0"]


def test_what_onnxruntime_prints_of_libraries_is_kept_from_stdout(monkeypatch, capsys):
    """Results go there; the names of what is missing are taken from it."""

    def preload():
        print("Failed to load libcublas.so.13: cannot open shared object file: No such file or directory")
        print("Failed to load /home/x/libcudnn.so.9: another reason")
        print("Please follow https://onnxruntime.ai/docs/install")

    monkeypatch.setattr(cuda, "runtime", lambda: SimpleNamespace(preload_dlls=preload))
    assert cuda.missing_libraries.__wrapped__() == ("libcublas.so.13", "/home/x/libcudnn.so.9")
    assert capsys.readouterr().out == ""


def test_the_real_preload_says_what_is_missing_in_that_form(monkeypatch, capsys):
    """The sentences of the installed onnxruntime are those that are looked for, and nothing else is printed."""
    if not hasattr(runtime(), "preload_dlls") or torch.cuda.is_available():
        pytest.skip("onnxruntime is older, or the libraries are here")
    missing = cuda.missing_libraries.__wrapped__()
    assert capsys.readouterr().out == ""
    if "CUDAExecutionProvider" in runtime().get_available_providers():
        assert any("cublas" in name for name in missing)


def test_a_real_session_is_refused_where_there_is_no_gpu(tmp_path):
    """With what is installed here, whatever that is: one message, no traceback of onnxruntime, no silent CPU."""
    if not cuda.why_not():
        pytest.skip("there is a GPU")
    write_graph(tmp_path / "toy.onnx")
    with pytest.raises(InputError, match=r"^the onnx backend cannot run on cuda:0: .*; or choose device=\"cpu\"$"):
        open_session(tmp_path / "toy.onnx", device="cuda:0")
