"""`use: a | b`: the node becomes the first component that its source is made for."""

from __future__ import annotations

from pathlib import Path

import pytest

import modelgraft as mg
from support import checkpoints

GRAPH = """
modelgraft: 1
params: {checkpoint: none}
inputs: {prompt: text}
nodes:
  llm: {use: llm/causal | llm/seq2seq, from: "${checkpoint}", with: {max_new_tokens: 2}, in: {prompt: inputs.prompt}}
outputs: {text: llm.text}
"""


def written(folder: Path, text: str) -> Path:
    """A graph file."""
    path = folder / "either.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("language", "component"), [("opt", "llm/causal"), ("t5", "llm/seq2seq")])
def test_the_source_decides_which_component_a_node_becomes(tmp_path: Path, language: str, component: str):
    """One graph serves decoders and encoder-decoders."""
    getattr(checkpoints, language)(tmp_path / "model")
    solved = mg.check(mg.load(written(tmp_path, GRAPH), params={"checkpoint": str(tmp_path / "model")}))
    assert solved.nodes["llm"].component.id == component


def test_a_source_that_none_is_made_for_is_reported_for_the_first(tmp_path: Path):
    """As if only the first were written."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(mg.GraphError, match=r"source-mismatch  llm: llm/causal cannot use .* has no model_type"):
        mg.check(mg.load(written(tmp_path, GRAPH), params={"checkpoint": str(tmp_path / "model")}))


def test_a_misspelt_alternative_is_named(tmp_path: Path):
    """Like any other unknown component."""
    text = GRAPH.replace("llm/seq2seq", "llm/seq2sec")
    with pytest.raises(mg.GraphError, match=r"unknown-component  llm: .*'llm/seq2sec'"):
        mg.check(mg.load(written(tmp_path, text)))
