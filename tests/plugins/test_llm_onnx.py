"""Decoders of transformers on ONNX Runtime, against the torch decoder: every style, every family."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from modelgraft.kernel.words.errors import InputError
from modelgraft.plugin import ExportError, Remembering, as_tensor
from modelgraft_plugins.llm import grouped_query, growing_export
from modelgraft_plugins.llm.decoders import CausalDecoder, CrossDecoder
from modelgraft_plugins.llm.grouped import GroupedDecoder
from modelgraft_plugins.llm.growing import CrossingDecoder, GrowingDecoder
from modelgraft_plugins.onnx.capturing import is_worth_capturing
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.tracing import FolderTracer
from support import checkpoints
from support.ordering import HostOrder

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SHALLOW = {**SIZES, "num_hidden_layers": 1}  # llama, opt, gpt2 and gemma2 show that layers are told apart
UNGROUPED = {name: value for name, value in SHALLOW.items() if name != "num_key_value_heads"}
GROUPED = {
    "llama": lambda: hf.LlamaConfig(**SIZES, tie_word_embeddings=True),  # SmolLM2 is one
    "opt": lambda: hf.OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
        word_embed_proj_dim=32,
    ),
    "gpt2": lambda: hf.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**UNGROUPED),
    "qwen2": lambda: hf.Qwen2Config(**SHALLOW),
    "qwen3": lambda: hf.Qwen3Config(**SHALLOW, head_dim=16),
    "phi": lambda: hf.PhiConfig(**SHALLOW),
    "gemma2": lambda: hf.Gemma2Config(**SIZES, head_dim=16, sliding_window=6, attn_logit_softcapping=0.5),
    "mistral": lambda: hf.MistralConfig(**SHALLOW, sliding_window=6),
    "gemma": lambda: hf.GemmaConfig(**SHALLOW, head_dim=16),
    "stablelm": lambda: hf.StableLmConfig(**SHALLOW),
    "olmo2": lambda: hf.Olmo2Config(**SHALLOW),
}  # fmt: skip
# What transformers does not send through its table of attentions; 3 and 6 heads are no power of 2, which their slopes mind.
OWN = {
    "mpt": lambda: hf.MptConfig(vocab_size=97, d_model=24, n_heads=3, n_layers=2, max_seq_len=400, attn_config={"clip_qkv": 0.3}),
    "bloom": lambda: hf.BloomConfig(vocab_size=97, hidden_size=48, n_head=6, n_layer=2),
    "falcon": lambda: hf.FalconConfig(
        vocab_size=97, hidden_size=32, num_attention_heads=4, num_kv_heads=2, num_hidden_layers=1, new_decoder_architecture=True,
    ),
    "falcon, one key for all heads, ALiBi": lambda: hf.FalconConfig(
        vocab_size=97, hidden_size=32, num_attention_heads=4, num_hidden_layers=1, alibi=True,
    ),
}  # fmt: skip


def model_of(config, auto=hf.AutoModelForCausalLM):
    torch.manual_seed(0)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def graph_in(folder, name="model", order=None):
    return SessionGraph(open_session(folder / f"{name}.onnx", device="cpu"), device="cpu", order=order)


def grouped(model, folder, *, half=False):
    """The exported decoder of a model."""
    layout = grouped_query.export(model, FolderTracer(folder, half=half, weights=None))
    return GroupedDecoder(graph_in(folder), layout, model.get_input_embeddings())


def read(decoder, *prompts, room=9, **given):
    """The logits after prompts."""
    return as_tensor(decoder.start(list(prompts), room=room, **given).logits)


def assert_same(one, other, prompts, *, tolerance=1e-5, conditions=None):
    """Prompts of unequal lengths, tokens one by one, and a reordering that makes the batch larger."""
    with torch.no_grad():
        one, other = (decoder.start(prompts, room=9, conditions=conditions) for decoder in (one, other))
        expected, got = one.logits, as_tensor(other.logits)
        for step in range(6):
            assert_same_logits(got, expected, tolerance=tolerance)
            tokens = expected.argmax(-1)
            expected, got = one.step(tokens), as_tensor(other.step(tokens))
            if step == 3:
                rows = torch.tensor([2, 0, 2, 1])
                expected, got = expected[rows], got[rows]
                one.reorder(rows)
                other.reorder(rows)


def assert_same_logits(got, expected, *, tolerance=1e-5):
    assert (got - expected).abs().max() <= tolerance * max(expected.abs().max().item(), 1.0)


def embedded(model, *lengths):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return [model.get_input_embeddings()(torch.randint(3, 90, (length,), generator=generator)) for length in lengths]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A model, its exported decoder, and what it answered before it was exported."""
    model, folder = model_of(GROUPED["llama"]()), tmp_path_factory.mktemp("llama")
    with torch.no_grad():
        before = read(CausalDecoder(model), *embedded(model, 5))
    layout = grouped(model, folder).layout
    return model, lambda: GroupedDecoder(graph_in(folder), layout, model.get_input_embeddings()), before


@pytest.mark.parametrize("family", [name for name in GROUPED if name != "llama"])
def test_one_graph_with_its_cache_in_place_gives_torchs_logits(family, tmp_path):
    """Prompts and tokens, grouped heads, sliding windows, soft caps: all in one operator."""
    model = model_of(GROUPED[family]())
    assert_same(CausalDecoder(model), grouped(model, tmp_path), embedded(model, 7, 3, 11))


@pytest.mark.parametrize("family", OWN)
def test_attention_of_their_own_is_the_same_operator(family, tmp_path):
    """MPT, BLOOM and Falcon: rows of 3 and of 290 tokens, where bfloat16 no longer tells positions apart as Falcon computes them.

    And one row alone, read on from where it parts from the one before.
    """
    model = model_of(OWN[family]())
    kept = {part for part in model.modules() if "forward" in vars(part)}
    exported = grouped(model, tmp_path)
    assert {part for part in model.modules() if "forward" in vars(part)} == kept
    assert_same(CausalDecoder(model), exported, embedded(model, 7, 3, 290))
    picture, first, second = embedded(model, 20, 5, 7)
    remembering = Remembering(exported, model.get_input_embeddings())
    with torch.no_grad():
        remembering.start([torch.cat([picture, first])], room=9).close()
        prompt = torch.cat([picture, second])
        assert_same_logits(read(remembering, prompt), read(CausalDecoder(model), prompt))
    assert remembering.reused == 20


def test_grouped_heads_share_keys_in_one_graph(llama):
    """The same for LLaMA, whose two pairs of heads share keys and values."""
    model, opened, _ = llama
    assert_same(CausalDecoder(model), opened(), embedded(model, 7, 3, 11))


def test_the_model_attends_in_torch_as_before_afterwards(llama):
    """Exporting leaves the attention of the model as it was."""
    model, _, before = llama
    with torch.no_grad():
        assert torch.equal(read(CausalDecoder(model), *embedded(model, 5)), before)


def test_more_tokens_than_there_is_room_for_are_refused(llama):
    """The operator would write beyond the end of the cache."""
    model, opened, _ = llama
    with torch.no_grad():
        reading = opened().start(embedded(model, 60), room=4)
        for token in range(4):
            reading.step(torch.tensor([token]))
        with pytest.raises(InputError, match="more tokens than there is room for: the cache was made for 64; start with a larger room"):
            reading.step(torch.tensor([5]))
        with pytest.raises(InputError, match="2 tokens came for 1 rows"):
            reading.step(torch.tensor([5, 6]))


def test_a_step_that_failed_is_not_reused(llama, monkeypatch):
    """What the cache holds after an error is not known, so the next prompt is read whole."""
    model, opened, _ = llama
    remembering, prompt = Remembering(opened(), model.get_input_embeddings()), embedded(model, 20)
    with torch.no_grad():
        reading = remembering.start(prompt, room=9)
        monkeypatch.setattr(reading.inner, "_step", lambda tokens: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reading.step(torch.tensor([5]))
        reading.close()
        remembering.start(prompt, room=9).close()
        assert remembering.reused == 0
        remembering.start(prompt, room=9)
        assert remembering.reused == 19


def test_a_common_beginning_is_not_read_again(llama):
    """Another question about the same picture, and the next turn of a chat: the same logits as read from the start."""
    model, opened, _ = llama
    table = model.get_input_embeddings()
    remembering = Remembering(opened(), table)
    picture, first, second = embedded(model, 20, 5, 7)
    with torch.no_grad():
        remembering.start([torch.cat([picture, first])], room=9).close()
        assert remembering.reused == 0
        reading = remembering.start([torch.cat([picture, second])], room=9)
        assert remembering.reused == 20
        assert (as_tensor(reading.logits) - read(CausalDecoder(model), torch.cat([picture, second]))).abs().max() <= 1e-5
        said = [4, 9]
        for token in said:
            reading.step(torch.tensor([token]))
        reading.close()
        turn = torch.cat([picture, second, table(torch.tensor(said)), first])
        got = read(remembering, turn)
        assert remembering.reused == 29
        assert (got - read(CausalDecoder(model), turn)).abs().max() <= 1e-5


def test_half_precision_runs_on_the_cpu_too(tmp_path):
    """float16 graphs are meant for a GPU, and are proven here: within 2 % of the largest logit."""
    model = model_of(GROUPED["qwen2"]())
    exported = grouped(model, tmp_path, half=True)
    prompts = embedded(model, 4, 9)
    with torch.no_grad():
        expected, got = read(CausalDecoder(model), *prompts), read(exported, *prompts)
    assert got.dtype is torch.float16
    assert is_worth_capturing(tmp_path / "model.onnx")  # on a GPU: nothing in it has sizes that the host decides
    assert 0 < (got.float() - expected).abs().max() <= 2e-2 * expected.abs().max()


def test_heads_of_another_width_are_refused_by_name(tmp_path):
    """12 is no multiple of 8."""
    with pytest.raises(ExportError, match="heads are 12 wide, and GroupQueryAttention takes multiples of 8"):
        grouped_query.export(model_of(hf.LlamaConfig(**{**SIZES, "hidden_size": 48})), FolderTracer(tmp_path, half=False, weights=None))


def gptj():
    return hf.GPTJConfig(vocab_size=97, n_embd=32, n_layer=1, n_head=4, n_positions=128, rotary_dim=4, bos_token_id=1, eos_token_id=2)


def test_a_decoder_that_calls_its_attention_itself_is_refused_by_the_operator(tmp_path):
    with pytest.raises(ExportError, match=r"^its attention does not go through the table of transformers$"):
        grouped_query.export(model_of(gptj()), FolderTracer(tmp_path, half=False, weights=None))


@pytest.mark.parametrize("family", ["gptj", "falcon"])
def test_what_the_operator_cannot_serve_gets_a_growing_cache(family, tmp_path):
    """GPT-J calls its attention itself; heads of 12 are too narrow for the operator, where Falcon repeats keys for each head."""
    narrow = hf.FalconConfig(
        vocab_size=97, hidden_size=48, num_attention_heads=4, num_kv_heads=2, num_hidden_layers=1, new_decoder_architecture=True
    )
    decoder = model_of(gptj() if family == "gptj" else narrow)
    layout = growing_export.export_decoder(decoder, FolderTracer(tmp_path, half=False, weights=None))
    for order in (None, HostOrder()):  # the second as on a GPU
        exported = GrowingDecoder(graph_in(tmp_path, order=order), layout, decoder.get_input_embeddings())
        assert_same(CausalDecoder(decoder), exported, embedded(decoder, 7, 3, 11))


def test_an_encoder_decoder_keeps_the_keys_of_its_memory(tmp_path):
    """Whisper's decoder takes the memory itself; T5, which has an encoder of its own, is compared in test_onnx_graphs.py."""
    model = model_of(checkpoints.whisper_config(), hf.AutoModelForSpeechSeq2Seq)
    layout = growing_export.export_crossing(model, FolderTracer(tmp_path, half=False, weights=None), encoder=None)
    memory = [torch.randn(13, 32, generator=torch.Generator().manual_seed(row)) for row in range(3)]
    begun = [torch.tensor([1, 5])] * 3
    for order in (None, HostOrder()):  # the second as on a GPU
        exported = CrossingDecoder({path.stem: graph_in(tmp_path, path.stem, order) for path in tmp_path.glob("*.onnx")}, layout)
        assert_same(CrossDecoder(model, encoder=None), exported, begun, conditions=memory)
