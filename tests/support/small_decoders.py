"""Small decoders with random weights, of families that read in unlike ways."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from modelgraft_plugins.llm import grouped_query, growing_export, plain
from modelgraft_plugins.llm.grouped import GroupedDecoder
from modelgraft_plugins.llm.growing import GrowingDecoder
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.tracing import FolderTracer

FACTS = {
    "model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
    "tie_word_embeddings": False, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1,
}  # fmt: skip
CONFIGS = {
    "llama": lambda: hf.LlamaConfig(**{key: value for key, value in FACTS.items() if key != "model_type"}),
    "opt": lambda: hf.OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=256,
        word_embed_proj_dim=32,
    ),
    "gpt2": lambda: hf.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2),
    "bloom": lambda: hf.BloomConfig(vocab_size=97, hidden_size=48, n_head=6, n_layer=2),
    "mpt": lambda: hf.MptConfig(vocab_size=97, d_model=24, n_heads=3, n_layers=2, max_seq_len=256),
    "falcon": lambda: hf.FalconConfig(vocab_size=97, hidden_size=32, num_attention_heads=4, num_hidden_layers=1, alibi=True),
}  # fmt: skip


def model_of(family: str, **changes: Any) -> Any:
    """A model of transformers, whose parameters are further from zero than new ones; changes: of its config."""
    torch.manual_seed(0)
    config = CONFIGS[family]()
    config.update(changes)
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def plain_decoder(*, layers: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """One that is built here, and its embeddings; layers: see plain.Decoder."""
    torch.manual_seed(0)
    model = plain.Model(FACTS).eval().requires_grad_(requires_grad=False)
    return plain.Decoder(model, layers=layers), model.model.embed_tokens


def exported(style: str) -> tuple[Any, Any]:
    """A LLaMA of one layer as a session, with its cache in place ("grouped") or with one that grows ("growing"), and its embeddings."""
    model, layout, folder = _traced(style)
    graph = SessionGraph(open_session(folder / "model.onnx", device="cpu"), device="cpu")
    kind = GroupedDecoder if style == "grouped" else GrowingDecoder
    return kind(graph, layout, model.get_input_embeddings()), model.get_input_embeddings()


@cache
def _traced(style: str) -> tuple[Any, Any, Path]:
    """The model, the layout of its graph and where that lies: for all tests of a process, since tracing takes longer than what they do."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    model, export = model_of("llama", num_hidden_layers=1), grouped_query.export if style == "grouped" else growing_export.export_decoder
    return model, export(model, FolderTracer(Path(folder.name), half=False, weights=None)), Path(folder.name)
