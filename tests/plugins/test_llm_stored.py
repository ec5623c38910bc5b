"""Exports of decoders whose files hold half as many bytes: the module they are proven against keeps the dtype of its file."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft_plugins.onnx import exporting, store

GRAPH = """
modelgraft: 1
name: tongue
params: {checkpoint: null}
inputs: {prompt: text}
nodes: {llm: {use: llm/causal, from: "${checkpoint}", with: {max_new_tokens: 0}, in: {prompt: inputs.prompt}}}
outputs: {logits: llm.logits}
"""


SIZES = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SHAPES = {
    "llama, tied": lambda: hf.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama, biases": lambda: hf.LlamaConfig(**SIZES, head_dim=32, attention_bias=True, mlp_bias=True),
    "mistral, windows": lambda: hf.MistralConfig(**SIZES, sliding_window=6),
    "qwen3": lambda: hf.Qwen3Config(**SIZES, head_dim=32),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_graph_is_that_of_the_same_numbers_in_float32(shape, tmp_path, monkeypatch):
    """Byte by byte, and as near to torch; the module is nowhere widened."""
    seen = list[set[torch.dtype]]()

    @contextmanager
    def spied(module, dtype):
        seen.append({parameter.dtype for parameter in module.parameters()})
        with within(module, dtype):
            yield

    within = exporting.in_turn
    monkeypatch.setattr(exporting, "in_turn", spied)
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(SHAPES[shape]()).bfloat16()
    model.save_pretrained(tmp_path / "half")
    model.float().save_pretrained(tmp_path / "whole")
    path, found = tmp_path / "tongue.yaml", {}
    path.write_text(GRAPH, encoding="utf-8")
    for kind in ("half", "whole"):
        monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / f"cache-{kind}"))
        with mg.open(mg.load(path, params={"checkpoint": str(tmp_path / kind)}), backend="onnx", threads=1) as pipeline:
            pipeline.load()
            (entry,) = store.entries()
        found[kind] = entry
    assert seen == [{torch.bfloat16}, {torch.float32}]
    one, other = ((entry.folder / f"{store.GRAPH}.data").read_bytes() for entry in (found["half"], found["whole"]))
    assert one == other
    assert found["half"].manifest["parity"]["relative"] < 1e-5
