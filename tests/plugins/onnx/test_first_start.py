"""A first start of a decoder: the session that an export was proven with is the one that answers."""

from __future__ import annotations

import pytest
from tests.plugins.onnx.test_kept_blocks import SIZES
from tests.plugins.test_formats import gguf_of, randomised
from transformers import LlamaConfig, LlamaForCausalLM

import modelgraft as mg
from modelgraft_plugins.llm.rehearsing import REHEARSED
from modelgraft_plugins.onnx import graphs, many_rows, measured, runtime, tuned

GRAPH = """
modelgraft: 1
inputs: {q: text}
outputs: {text: a.text}
nodes: {a: {use: llm/causal, from: ./m.gguf, frozen: true, in: {q: inputs.q}, with: {prompt: '{q}', max_new_tokens: 8}}}
"""


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """The graph files that sessions are opened on from here on, a small model beside its graph, and a cache of its own."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuned, "leaves_tuning", lambda *_, **__: True)
    monkeypatch.setattr(measured, "prepare", lambda: None)
    model = randomised(LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)))
    gguf_of(tmp_path / "m.gguf", model, "llama", "Q8_0")
    (tmp_path / "g.yaml").write_text(GRAPH)
    made, found = runtime.runtime().InferenceSession, list[str]()

    def open_one(source, *args, **settings):
        if not isinstance(source, bytes):
            found.append(source.rpartition("/")[2])
        return made(source, *args, **settings)

    monkeypatch.setattr(runtime.runtime(), "InferenceSession", open_one)
    return found


def answer(tmp_path, **settings):
    with mg.open(tmp_path / "g.yaml", **settings) as pipeline:
        return pipeline.run(q="a question")["text"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "w8"])
def test_a_graph_that_was_proven_is_not_opened_again(opened, tmp_path, precision, monkeypatch):
    """It was opened once by the first start, whose text is that of the second, which opens what was kept."""
    monkeypatch.setattr(measured, "widens", lambda: precision == "w8")
    settings = {"backend": "onnx", "export": "now", "precision": precision}
    first = answer(tmp_path, **settings)
    many = ["model.many.onnx"] if precision == "w8" else []  # which is proven, and opened again when many rows come
    assert sorted(opened) == sorted([*many, "model.onnx"])
    opened.clear()
    assert answer(tmp_path, **settings) == first
    assert opened == ["model.onnx"]


@pytest.mark.slow
def test_a_wrong_graph_for_many_rows_is_refused(opened, tmp_path, monkeypatch):
    """It is compared with torch as the other one is: here it takes another number for zero."""
    monkeypatch.setattr(measured, "widens", lambda: True)
    monkeypatch.setattr(many_rows, "MIDDLE", {8: 100})
    with pytest.raises(mg.GraphError, match="differs from torch"):
        answer(tmp_path, backend="onnx", export="now", precision="w8")
    assert opened == ["model.many.onnx", "model.onnx"]


@pytest.mark.slow
def test_a_graph_for_many_rows_is_compared_by_a_prompt_and_a_token(opened, tmp_path, monkeypatch):
    """Each run of it makes all matrices anew; a row that is read behind others and one that begins are what its products can differ in."""
    monkeypatch.setattr(measured, "widens", lambda: True)
    bound, runs = graphs.SessionGraph.bind, list[tuple[bool, int]]()

    def noted(self, inputs, outputs):
        made = bound(self, inputs, outputs)
        run, tokens = made.run, inputs["inputs_embeds"].shape[1]
        is_of_many = self.session._model_path.endswith("many.onnx")
        made.run = lambda: (runs.append((is_of_many, tokens)), run())[1]
        return made

    monkeypatch.setattr(graphs.SessionGraph, "bind", noted)
    answer(tmp_path, backend="onnx", export="now", precision="w8")
    of_many = [tokens for is_of_many, tokens in runs if is_of_many]
    assert of_many == [max(REHEARSED[0]), 1]
    assert [tokens for is_of_many, tokens in runs if not is_of_many][:5] == [max(REHEARSED[0]), 1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [max(REHEARSED[0]), 1])
def test_a_graph_for_many_rows_that_is_wrong_for_a_prompt_or_behind_it_is_refused(opened, tmp_path, monkeypatch, tokens):
    monkeypatch.setattr(measured, "widens", lambda: True)
    bound = graphs.SessionGraph.bind

    def wrong(self, inputs, outputs):
        made = bound(self, inputs, outputs)
        if self.session._model_path.endswith("many.onnx") and inputs["inputs_embeds"].shape[1] == tokens:
            run = made.run
            made.run = lambda: (run(), outputs["logits"].__imul__(-1))[0]
        return made

    monkeypatch.setattr(graphs.SessionGraph, "bind", wrong)
    with pytest.raises(mg.GraphError, match="differs from torch"):
        answer(tmp_path, backend="onnx", export="now", precision="w8")
