"""The compile backend: torch's numbers, bounded, and every reason why not in one line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft import GraphError, InputError
from modelgraft.cli import main
from support import checkpoints

HAS_COMPILER = any(shutil.which(name) for name in ("g++", "clang++"))
compiles = [
    pytest.mark.slow,  # it compiles
    pytest.mark.skipif(not HAS_COMPILER, reason="there is no C++ compiler on this machine, and torch.compile needs one"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
SMALL_EYE = {
    "family": "clip", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 12,
    "patch_size": 4,
}  # fmt: skip
SMALL_RESAMPLER = {"hidden_size": 12, "depth": 1, "num_heads": 3, "head_dim": 5, "num_latents": 4}


def projector() -> mg.Graph:
    """12 numbers of every token to 7."""
    graph = mg.Graph("project")
    made = graph.node("projector/linear", name="part", config={"out_features": 7}, x=graph.input("x", "float[batch tokens 12]"))
    graph.output("y", made.y)
    return graph


def perceiver(**config: object) -> mg.Graph:
    """Tokens of a medium, or of several, to four vectors each."""
    graph = mg.Graph("resample")
    kind = "float[batch images tokens 12]" if config.get("many") else "float[batch tokens 12]"
    made = graph.node("resampler/perceiver", name="part", config={**SMALL_RESAMPLER, **config}, media=graph.input("x", kind))
    graph.output("y", made.latents)
    return graph


def eye() -> mg.Graph:
    """A small CLIP."""
    graph = mg.Graph("see")
    made = graph.node("vision/encoder", name="part", config=SMALL_EYE, pixels=graph.input("x", "float[batch 3 12 12]"))
    graph.output("y", made.tokens)
    return graph


def opened(graph: mg.Graph, backend: str = "compile", **options: object) -> mg.Pipeline:
    return mg.open(graph, backend=backend, init="random", cache_bytes=0, **options)


CASES = {
    "projector": (projector, [(2, 5, 12), (1, 3, 12), (4, 1, 12)]),
    "perceiver": (perceiver, [(2, 5, 12), (1, 9, 12)]),
    "vision encoder": (eye, [(2, 3, 12, 12), (1, 3, 12, 12)]),
}


@pytest.mark.parametrize("case", [pytest.param(name, marks=compiles) for name in CASES])
def test_a_compiled_part_gives_torchs_numbers(case: str):
    """Element by element, on sizes other than those of the gate."""
    graph, sizes = CASES[case]
    with opened(graph()) as mine, opened(graph(), "torch") as theirs:
        for index, size in enumerate(sizes):
            x = torch.randn(size, generator=torch.Generator().manual_seed(index))
            one, other = (pipeline.run(x=x)["y"] for pipeline in (mine, theirs))
            assert one.shape == other.shape
            assert (one - other).abs().max() <= 1e-5 * max(other.abs().max().item(), 1.0)
        assert mine._loader.loaded()["part"].call is not theirs._loader.loaded()["part"].call


@pytest.mark.parametrize("graph", [pytest.param(projector, marks=compiles)])
def test_sizes_are_compiled_within_a_bound(graph, monkeypatch: pytest.MonkeyPatch):
    """Batch and tokens may have any size without new code; what needs a form beyond the bound runs as on torch, and is told once."""
    with opened(graph()) as pipeline:
        pipeline.load()
        for batch, tokens in ((3, 8), (7, 2), (5, 30), (1, 6)):
            assert pipeline.run(x=torch.zeros(batch, tokens, 12))["y"].shape == (batch, tokens, 7)
        assert not any("part" in text for text in pipeline.run(x=torch.zeros(2, 9, 12)).warnings if "compiled" in text)
        monkeypatch.setattr("modelgraft_plugins.compile.entry.MOST_FORMS", 2)
        texts = [event.facts["text"] for event in pipeline.stream(x=torch.zeros(4, 1, 12)) if event.kind == "warning"]
        assert any("part is not compiled for x [4 1 12], and runs as on torch" in text for text in texts), texts
        again = [event.facts["text"] for event in pipeline.stream(x=torch.zeros(4, 1, 12)) if event.kind == "warning"]
        assert not any("is not compiled" in text for text in again)


@pytest.mark.parametrize("graph", [pytest.param(projector, marks=compiles)])
def test_a_form_that_is_compiled_in_a_run_is_told(graph):
    """It takes time, and says for which sizes."""
    with opened(graph()) as pipeline:
        pipeline.load()
        texts = [event.facts["text"] for event in pipeline.stream(x=torch.zeros(4, 1, 12)) if event.kind == "warning"]
        assert any("part was compiled anew for x [4 1 12]: form 3, of at most 8" in text for text in texts), texts


@pytest.mark.parametrize("dtype", [pytest.param(name, marks=compiles) for name in ("bfloat16", "float64")])
def test_each_dtype_has_its_tolerance(dtype: str):
    """The gate compares in the dtype of the run."""
    with opened(projector(), dtype=dtype) as pipeline:
        assert pipeline.run(x=torch.randn(2, 5, 12))["y"].dtype is getattr(torch, dtype)


@pytest.mark.parametrize("graph", [pytest.param(perceiver, marks=compiles)])
def test_what_a_module_refuses_it_refuses_compiled(graph):
    """Its own error, not one of the compiler."""
    with opened(graph(many=True, max_num_media=3)) as pipeline:
        assert pipeline.run(x=torch.randn(2, 2, 5, 12))["y"].shape == (2, 2, 4, 12)
        with pytest.raises(InputError, match="resampler/perceiver got 4 images, but has learned vectors for 3: give fewer images"):
            pipeline.run(x=torch.randn(2, 4, 5, 12))


@pytest.mark.parametrize("graph", [pytest.param(projector, marks=compiles)])
def test_code_that_differs_is_refused(graph, monkeypatch: pytest.MonkeyPatch):
    """A failed gate is an error with its figure, and a warning where torch may take over."""
    from modelgraft_plugins.compile import loading

    monkeypatch.setattr(loading, "ACCEPTED", {"float32": (-1.0, "nothing passes")})
    message = r"part \(projector/linear\) cannot run on the compile backend: what is compiled differs from torch: max difference .*-1"
    with opened(graph()) as pipeline, pytest.raises(GraphError, match=message) as refused:
        pipeline.run(x=torch.zeros(2, 5, 12))
    assert refused.value.problems[0].code == "not-exportable"
    assert "nodes.part.runtime: {backend: torch}" in refused.value.problems[0].hint
    with opened(graph(), fallback="torch") as pipeline:
        result = pipeline.run(x=torch.zeros(2, 5, 12))
    assert result["y"].shape == (2, 5, 7)
    assert any("differs from torch" in text and text.endswith("it stays on torch") for text in result.warnings)


def test_a_machine_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With what to install; and goes on as torch where that is allowed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with (
        opened(projector()) as pipeline,
        pytest.raises(GraphError, match=r"there is no C\+\+ compiler \(g\+\+ or clang\+\+\): install one"),
    ):
        pipeline.run(x=torch.zeros(2, 5, 12))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with opened(projector(), fallback="torch") as pipeline:
        result = pipeline.run(x=torch.zeros(2, 5, 12))
    assert any("there is no C++ compiler (no-such-compiler)" in text and text.endswith("it stays on torch") for text in result.warnings)


def test_a_torch_without_inductor_says_so(monkeypatch: pytest.MonkeyPatch):
    """Some builds of torch leave it out."""
    from modelgraft_plugins.compile import entry

    find = entry.importlib.util.find_spec
    monkeypatch.setattr(entry.importlib.util, "find_spec", lambda name: None if name == "torch._inductor" else find(name))
    assert "has no inductor" in entry.why_not("cpu")


def test_a_decoder_stays_on_torch(tmp_path: Path):
    """It says why, and what to do; with the fallback it writes what it writes on torch."""
    checkpoints.llama(tmp_path)
    graph = mg.Graph("write")
    config = {"prompt": "{words}", "max_new_tokens": 4}
    llm = graph.node("llm/causal", name="llm", source=tmp_path, config=config, words=graph.input("words", "text"))
    graph.output("text", llm.text)
    with (
        mg.open(graph, backend="compile") as pipeline,
        pytest.raises(GraphError, match="its decoder reads a cache that") as refused,
    ):
        pipeline.run(words="one two")
    assert "let it stay on torch" in refused.value.problems[0].hint
    with mg.open(graph, backend="compile", fallback="torch") as mine, mg.open(graph) as theirs:
        result = mine.run(words="one two")
        assert result["text"] == theirs.run(words="one two")["text"]
    assert any("its decoder reads a cache" in text for text in result.warnings)


def test_functions_run_as_on_torch():
    """Code that is no module needs no compiler."""
    graph = mg.Graph("plain")
    node = graph.node("text/template", name="words", config={"template": "<{a}>"}, a=graph.input("a", "text"))
    graph.output("text", node.text)
    with mg.open(graph, backend="compile") as pipeline:
        assert pipeline.run(a="b")["text"] == "<b>"


@pytest.mark.parametrize("model", [pytest.param(checkpoints.vit, marks=compiles)])
def test_a_plan_tells_how_far_it_was(model, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The figure of the last load, of weights that have a name."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    model(tmp_path / "vit", layers=1)
    options = ["plan", "vit", "--set", f"checkpoint={tmp_path / 'vit'}", "--backend", "compile"]
    assert main(options) == 0
    assert "from torch" not in capsys.readouterr().out
    with mg.open("vit", params={"checkpoint": str(tmp_path / "vit")}, backend="compile") as pipeline:
        pipeline.load()
    assert main(options) == 0
    assert re.search(r"compiled: \w+, at most \S+ of the largest value from torch", capsys.readouterr().out)
