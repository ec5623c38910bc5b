"""The llamacpp backend where llama.cpp itself is not needed: what it refuses, what it leaves to torch, and what it loads when."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.plugins.test_formats import LLAMA, gguf_of, randomised

import modelgraft as mg
from modelgraft import GraphError, PluginError
from modelgraft.cli import main
from modelgraft_plugins.llamacpp import library
from modelgraft_plugins.llamacpp.backend import LlamaCppBackend

SMALL = {"model_type": "llama", "vocab_size": 260, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 6}
BROKEN = 'raise RuntimeError("Failed to load shared library: undefined symbol: llama_process")\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small language model with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return gguf_of(tmp_path / "m.gguf", randomised(LlamaForCausalLM(LlamaConfig(**LLAMA))), "llama")


def written(folder: Path, node: str, **more: str) -> Path:
    """A graph of one language model, and whatever else."""
    others = "".join(f"  {name}: {text}\n" for name, text in more.items())
    text = f"modelgraft: 1\ninputs: {{prompt: text}}\nnodes:\n  llm: {node}\n{others}outputs: {{text: llm.text}}\n"
    path = folder / "say.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def llm(source: str = "from: ./m.gguf", config: str = "", runtime: str = "") -> str:
    return f"{{use: llm/causal, {source}, with: {{max_new_tokens: 2{config}}}, in: {{prompt: inputs.prompt}}{runtime}}}"


@pytest.fixture
def bindings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Gives what stands in for the bindings: a module of this text, or none."""

    def put(text: str | None) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "llama_cpp"]:
            monkeypatch.delitem(sys.modules, name)
        if text is None:
            monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as where it is not installed
        else:
            package = tmp_path / "stand_in" / "llama_cpp"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text(text, encoding="utf-8")
            monkeypatch.syspath_prepend(package.parent)

    library.library.cache_clear()
    yield put
    library.library.cache_clear()


def test_missing_bindings_are_one_error_with_what_to_install(tmp_path, file, bindings, capsys):
    """When such a node is loaded; a plan, and a bench that only checks, tell of it before."""
    bindings(None)
    graph = written(tmp_path, llm())
    assert main(["check", str(graph)]) == 0
    assert main(["plan", str(graph), "--backend", "llamacpp"]) == 0
    told = "the llamacpp backend cannot run here, not installed: llama-cpp-python; pip install 'modelgraft[llamacpp]'"
    assert told in capsys.readouterr().err
    assert main(["plan", str(graph)]) == 0
    assert "llama-cpp-python" not in capsys.readouterr().err
    assert main(["bench", str(graph), "--backend", "llamacpp", "--check-only"]) == 1
    assert "the llamacpp backend cannot run here, not installed: llama-cpp-python" in capsys.readouterr().err
    with mg.open(mg.load(graph), backend="llamacpp") as pipeline, pytest.raises(PluginError) as caught:
        pipeline.run(prompt="a cat")
    wanted = "llm (say.yaml:4): the llamacpp backend needs llama-cpp-python, which is not installed: pip install 'modelgraft[llamacpp]'"
    assert wanted in str(caught.value)


def test_bindings_that_do_not_fit_their_library_say_whose_it_is(tmp_path, file, bindings, monkeypatch):
    """Libraries that were built elsewhere are of the version of the bindings, or it is told."""
    bindings(BROKEN)
    graph = written(tmp_path, llm())
    for folder, hint in (
        ("/somewhere", "LLAMA_CPP_LIB_PATH names /somewhere: libraries there must be of its version"),
        ("", "install it again"),
    ):
        monkeypatch.setenv("LLAMA_CPP_LIB_PATH", folder)
        with mg.open(mg.load(graph), backend="llamacpp") as pipeline, pytest.raises(PluginError, match=hint) as caught:
            pipeline.run(prompt="a cat")
        assert str(caught.value).startswith("llm (say.yaml:4): llama-cpp-python is installed, and cannot be imported (Failed")
        assert "undefined symbol: llama_process" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (
            ["--precision", "w8"],
            "llm: the llamacpp backend has no precision 'w8'; it has float32; found on: onnx",
        ),
        (
            ["--dtype", "float16"],
            "llm: the llamacpp backend has no dtype 'float16'; it has float32; found on: compile, onnx, torch",
        ),
        (["--device", "cuda:0"], "device is 'cuda:0'; wanted: auto or cpu"),
    ],
    ids=["precision", "dtype", "device"],
)
def test_what_it_does_not_have_is_refused_by_the_plan(tmp_path, file, options, found, capsys):
    """Before anything is loaded."""
    assert main(["plan", str(written(tmp_path, llm())), "--backend", "llamacpp", *options]) != 0
    assert found in capsys.readouterr().err


REFUSED = {
    "no file": (
        "",
        f", {', '.join(f'{key}: {value}' for key, value in SMALL.items())}",
        "its source is no weights of its own, and llama.cpp opens a .gguf file, whole",
    ),
    "both directions": ("from: ./m.gguf", ", reads: both", "reads is both, and llama.cpp lets each token see those before it"),
    "added tokens": ("from: ./m.gguf", ", extra_tokens: ['[RET]']", "its embeddings and head get rows for 1 tokens that the file lacks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_cannot_run_is_refused_with_the_reason(tmp_path, file, bindings, case):
    """Before llama.cpp is asked, and with the way out."""
    bindings(None)
    source, config, found = REFUSED[case]
    graph = written(tmp_path, llm(source or "frozen: true", config))
    with mg.open(mg.load(graph), backend="llamacpp", init="random") as pipeline, pytest.raises(GraphError) as caught:
        pipeline.run(prompt="a cat")
    (problem,) = caught.value.problems
    assert problem.code == "not-exportable"
    assert problem.found == f"llm (llm/causal) cannot run on the llamacpp backend: {found}"
    assert 'fallback="torch"' in problem.hint


def test_nothing_heavy_is_imported_before_a_node_is_loaded(tmp_path, file):
    """Neither by check, plan and lists, nor by the module of the backend."""
    graph = written(tmp_path, llm(runtime=", runtime: {backend: llamacpp, threads: 2}"))
    heavy = ("torch", "numpy", "llama_cpp")
    program = (
        "import sys\nfrom modelgraft.cli import main\nimport modelgraft_plugins.llamacpp.backend\n"
        f"codes = [main(words) for words in (['check', {str(graph)!r}], ['plan', {str(graph)!r}], ['plugins', 'info', 'llamacpp'])]\n"
        f"print(codes, sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "[0, 0, 0] []"
    assert "llamacpp" in done.stdout


def test_other_modules_are_refused_or_stay_on_torch(capsys):
    """With what runs there; code that is no module runs as ever."""
    graph = mg.Graph("project")
    made = graph.node("projector/linear", name="part", config={"out_features": 3}, x=graph.input("x", "float[batch tokens 4]"))
    graph.output("y", made.y)
    x = torch.randn(2, 5, 4)
    with mg.open(graph, backend="llamacpp", init="random") as pipeline, pytest.raises(GraphError) as caught:
        pipeline.run(x=x)
    assert "part (projector/linear) cannot run on the llamacpp backend: llama.cpp runs decoders (llm/causal) of .gguf files" in str(
        caught.value
    )
    with mg.open(graph, backend="llamacpp", init="random", fallback="torch") as mine, mg.open(graph, init="random") as theirs:
        result = mine.run(x=x)
        assert torch.equal(result["y"], theirs.run(x=x)["y"])
        assert any("it stays on torch" in text for text in result.warnings)
    said = mg.Graph("say")
    said.output("text", said.node("text/template", config={"template": "a {what}"}, what=said.input("what", "text")).text)
    with mg.open(said, backend="llamacpp") as pipeline:
        assert pipeline.run(what="cat")["text"] == "a cat"


def test_it_says_what_is_missing(monkeypatch):
    """For those who ask before they choose it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert LlamaCppBackend().why_not().startswith("not installed: llama-cpp-python; pip install 'modelgraft[llamacpp]'")
