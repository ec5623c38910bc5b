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
from modelgraft_plugins.onnx.decoding import OnnxDecoder
from modelgraft_plugins.onnx.growing import CrossingDecoder, GrowingDecoder
from modelgraft_plugins.onnx.sessions import open_session
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


def assert_follows(reference, decoder, prompts, *, tolerance):
    """Prompts of unequal lengths, tokens one by one, and a reordering that makes the batch larger."""
    with torch.no_grad():
        expected, got = reference.prefill(prompts, room=9), decoder.prefill(prompts, room=9)
        for step in range(8):
            assert (got.float().cpu() - expected).abs().max() <= tolerance * expected.abs().max(), step
            tokens = expected.argmax(-1)
            expected, got = reference.step(tokens), decoder.step(tokens.to(DEVICE))
            if step == 4:
                rows = torch.tensor([1, 0, 1])
                reference.reorder(rows)
                decoder.reorder(rows.to(DEVICE))
                expected, got = expected[rows], got[rows.to(DEVICE)]


def test_a_language_model_decodes_in_float16(tmp_path):
    """With its cache in place, and its steps captured: nothing of it runs on the host."""
    model = model_of(hf.LlamaConfig(**SIZES, num_key_value_heads=1))
    layout = grouped_query.export(model, tmp_path / "m.onnx", half=True)
    session = open_session(tmp_path / "m.onnx", device=DEVICE, settings={"session.disable_cpu_ep_fallback": "1"})
    decoder = OnnxDecoder(session, layout, model.get_input_embeddings(), device=DEVICE)
    assert_follows(CausalDecoder(model), decoder, embedded(model, 7, 3), tolerance=2e-2)
    assert decoder.one.captured.is_proven


def test_a_growing_cache_stays_on_the_device(tmp_path):
    """In float32, which the operator for caches in place does not take there."""
    model = model_of(
        hf.GPTJConfig(vocab_size=97, n_embd=32, n_layer=1, n_head=4, n_positions=128, rotary_dim=4, bos_token_id=1, eos_token_id=2)
    )
    layout = growing_export.export_decoder(model, tmp_path / "m.onnx", half=False)
    decoder = GrowingDecoder(open_session(tmp_path / "m.onnx", device=DEVICE), layout, model.get_input_embeddings(), device=DEVICE)
    assert_follows(CausalDecoder(model), decoder, embedded(model, 7, 3), tolerance=1e-4)
    assert all(tensor.is_cuda for tensor in decoder.body.past.values())


def test_an_encoder_decoder_keeps_its_memory_on_the_device(tmp_path):
    """Whisper's decoder."""
    model = model_of(checkpoints.whisper_config(), hf.AutoModelForSpeechSeq2Seq)
    layout = growing_export.export_crossing(model, tmp_path, half=False, encoder=None, start=1)
    sessions = {path.stem: open_session(path, device=DEVICE) for path in tmp_path.glob("*.onnx")}
    decoder = CrossingDecoder(sessions, layout, lambda: (1, 5), device=DEVICE)
    prompts = [torch.randn(13, 32, generator=torch.Generator().manual_seed(row)) for row in range(2)]
    assert_follows(CrossDecoder(model, start=(1, 5), encoder=None), decoder, prompts, tolerance=1e-4)


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
