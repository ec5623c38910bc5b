"""Exported models on a GPU against torch on the host. Twins: tests/plugins/test_llm_onnx.py and tests/graphs/test_onnx_graphs.py."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from PIL import Image
from skimage import data

import modelgraft as mg
from modelgraft_plugins.llm import grouped_query, growing_export
from modelgraft_plugins.llm.decoders import CausalDecoder, CrossDecoder
from modelgraft_plugins.llm.grouped import GroupedDecoder
from modelgraft_plugins.llm.growing import CrossingDecoder, GrowingDecoder
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.tracing import FolderTracer
from support import checkpoints

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")]

DEVICE = "cuda:0"
SIZES = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def model_of(config, auto=hf.AutoModelForCausalLM):
    torch.manual_seed(0)
    return auto.from_config(config).eval()


def embedded(model, *lengths):
    with torch.no_grad():
        return [model.get_input_embeddings()(torch.arange(3, 3 + length)) for length in lengths]


def graph_in(folder, name="model", **settings):
    return SessionGraph(open_session(folder / f"{name}.onnx", device=DEVICE, **settings), device=DEVICE)


def assert_follows(reference, decoder, prompts, *, tolerance, conditions=None):
    """Prompts of unequal lengths, tokens one by one, and a reordering that makes the batch larger. Gives the session."""
    with torch.no_grad():
        reference, decoder = (one.start(prompts, room=9, conditions=conditions) for one in (reference, decoder))
        expected, got = reference.logits, decoder.logits
        for step in range(8):
            assert (got.float().cpu() - expected).abs().max() <= tolerance * expected.abs().max(), step
            tokens = expected.argmax(-1)
            expected, got = reference.step(tokens), decoder.step(tokens.to(DEVICE))
            if step == 4:
                rows = torch.tensor([1, 0, 1])
                expected, got = expected[rows], got[rows.to(DEVICE)]
                reference.reorder(rows)
                decoder.reorder(rows.to(DEVICE))
    return decoder


def test_a_language_model_decodes_in_float16(tmp_path):
    """With its cache in place, and its steps captured: nothing of it runs on the host."""
    model = model_of(hf.LlamaConfig(**SIZES, num_key_value_heads=1))
    layout = grouped_query.export(model, FolderTracer(tmp_path, half=True, weights=None))
    graph = graph_in(tmp_path, settings={"session.disable_cpu_ep_fallback": "1"})
    decoder = GroupedDecoder(graph, layout, model.get_input_embeddings())
    session = assert_follows(CausalDecoder(model), decoder, embedded(model, 7, 3), tolerance=2e-2)
    assert session.memory.one.captured.is_proven


def test_a_growing_cache_stays_on_the_device(tmp_path):
    """In float32, which the operator for caches in place does not take there."""
    model = model_of(
        hf.GPTJConfig(vocab_size=97, n_embd=32, n_layer=1, n_head=4, n_positions=128, rotary_dim=4, bos_token_id=1, eos_token_id=2)
    )
    layout = growing_export.export_decoder(model, FolderTracer(tmp_path, half=False, weights=None))
    decoder = GrowingDecoder(graph_in(tmp_path), layout, model.get_input_embeddings())
    session = assert_follows(CausalDecoder(model), decoder, embedded(model, 7, 3), tolerance=1e-4)
    assert all(tensor.is_cuda for tensor in session.past.values())


def test_an_encoder_decoder_keeps_its_memory_on_the_device(tmp_path):
    """Whisper's decoder."""
    model = model_of(checkpoints.whisper_config(), hf.AutoModelForSpeechSeq2Seq)
    layout = growing_export.export_crossing(model, FolderTracer(tmp_path, half=False, weights=None), encoder=None)
    decoder = CrossingDecoder({path.stem: graph_in(tmp_path, path.stem) for path in tmp_path.glob("*.onnx")}, layout)
    memory = [torch.randn(13, 32, generator=torch.Generator().manual_seed(row)) for row in range(2)]
    begun = [torch.tensor([1, 5])] * 2
    assert_follows(CrossDecoder(model, encoder=None), decoder, begun, tolerance=1e-4, conditions=memory)


def test_a_whole_graph_answers_as_on_the_host(tmp_path, monkeypatch):
    """BLIP-2 with its language model in float16, segments in float32: the logits of the first token, and an answer."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    checkpoints.blip2(tmp_path / "blip2")
    given = {"image": Image.fromarray(data.chelsea()), "prompt": "a cat"}
    logits = {}
    for backend, device, precision in (("torch", "cpu", None), ("onnx", DEVICE, "float16")):
        graph = mg.load("blip2", params={"checkpoint": str(tmp_path / "blip2")})
        with mg.open(graph, backend=backend, device=device, precision=precision) as pipeline:
            logits[backend] = pipeline.run(outputs=["llm.logits"], **given)["llm.logits"].float().cpu()
    assert (logits["onnx"] - logits["torch"]).abs().max() <= 5e-2 * logits["torch"].abs().max()
