"""Decoders whose graphs are put together from their tensors, against transformers: every shape, and those that must be traced."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from modelgraft.kernel.words.errors import InputError
from modelgraft.plugin import Places, as_tensor
from modelgraft_plugins.llm import built, plain, plain_kinds
from modelgraft_plugins.llm.decoders import CausalDecoder
from modelgraft_plugins.llm.grouped import GroupedDecoder
from modelgraft_plugins.llm.reading import PIECE
from modelgraft_plugins.onnx.graphs import SessionGraph
from modelgraft_plugins.onnx.reducing import save
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.tracing import FolderTracer
from modelgraft_plugins.onnx.tuning import tune

MOST = 300
SIZES = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": MOST, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
KNOWN = {
    "llama, tied": lambda: hf.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama, wide heads, biases": lambda: hf.LlamaConfig(**SIZES, head_dim=32, attention_bias=True, mlp_bias=True),
    "llama, one head": lambda: hf.LlamaConfig(**{**SIZES, "num_attention_heads": 1, "num_key_value_heads": 1}),
    "llama 3": lambda: hf.LlamaConfig(**SIZES, rope_parameters=LLAMA3),
    "llama, linear": lambda: hf.LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "rope_theta": 5e3, "factor": 3.0}),
    "llama, yarn": lambda: hf.LlamaConfig(**SIZES, rope_parameters=YARN),
    "mistral, windows": lambda: hf.MistralConfig(**SIZES, sliding_window=6),
    "mistral, all the way": lambda: hf.MistralConfig(**SIZES, sliding_window=None),
    "qwen2": lambda: hf.Qwen2Config(**SIZES),
    "qwen3": lambda: hf.Qwen3Config(**SIZES, head_dim=32),
    "qwen3, windows, biases": lambda: hf.Qwen3Config(
        **SIZES, head_dim=48, attention_bias=True, use_sliding_window=True, sliding_window=6, max_window_layers=0
    ),
}
TRACED = {
    "angles that depend on the length": lambda: hf.LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    ),
    "windows in some layers": lambda: hf.Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "another gate": lambda: hf.LlamaConfig(**SIZES, hidden_act="gelu"),
    "a window that its class does not know": lambda: hf.LlamaConfig(**SIZES, sliding_window=6, layer_types=["sliding_attention"] * 2),
    "another kind": lambda: hf.Olmo2Config(**SIZES),
    "a body of another name": lambda: hf.GPTNeoXConfig(**{key: size for key, size in SIZES.items() if key != "num_key_value_heads"}),
    "heads that the operator does not turn": lambda: hf.LlamaConfig(**SIZES, head_dim=24),
}


def model_of(config):
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def decoder_of(model, folder, *, half=False, layers=(), most=MOST):
    known = built.known_of(model, most)
    tracer = FolderTracer(folder, half=half, weights=None)
    layout = built.export(known, tracer, layers=layers)
    for file, graph in tracer.unwritten.items():
        save(graph, file)
    embed = model.get_input_embeddings()
    return GroupedDecoder(SessionGraph(open_session(folder / "model.onnx", device="cpu"), device="cpu"), layout, embed)


def prompts_of(model, *lengths):
    generator = torch.Generator().manual_seed(1)
    return [model.get_input_embeddings()(torch.randint(3, 90, (length,), generator=generator)).detach() for length in lengths]


def assert_near(got, expected, tolerance):
    got = as_tensor(got)
    assert (got.float() - expected).abs().max() <= tolerance * max(expected.abs().max().item(), 1.0)


@torch.no_grad()
def assert_same(one, other, prompts, *, tolerance=1e-5):
    one, other = one.start(prompts, room=5), other.start(prompts, room=5)
    for _ in range(4):
        assert_near(other.logits, one.logits, tolerance)
        tokens = one.logits.argmax(-1)
        one.step(tokens)
        other.step(tokens)


@pytest.mark.parametrize("shape", KNOWN)
def test_a_known_shape_gives_the_logits_of_transformers(shape, tmp_path):
    """Rows of unequal lengths, at once and, where one is long, row after row in pieces; then tokens one by one."""
    model = model_of(KNOWN[shape]())
    one, other = CausalDecoder(model), decoder_of(model, tmp_path)
    for lengths in ((7, 3, 100), (5, PIECE + 34)):
        assert_same(one, other, prompts_of(model, *lengths))


@pytest.mark.parametrize("shape", ["llama, tied", "qwen3"])
def test_float16_is_what_float32_is_within_its_own_steps(shape, tmp_path):
    """Vectors, matrices and angles alike."""
    model = model_of(KNOWN[shape]())
    decoder = decoder_of(model, tmp_path, half=True)
    assert decoder.layout.dtype == "float16"
    prompts = prompts_of(model, 7, 3, 40)
    with torch.no_grad():
        got = decoder.start([prompt.half() for prompt in prompts], room=3).logits
        assert_near(got, CausalDecoder(model).start(prompts, room=3).logits, 0.02)


@torch.no_grad()
def test_states_of_layers_are_those_of_transformers(tmp_path):
    """Of the embeddings, a layer between, and what the head reads: at places of the prompt, and after a token."""
    model, layers = model_of(KNOWN["llama, tied"]()), (0, 1, -1)
    prompts, places = prompts_of(model, 7, 3), [[0, 4], [2]]
    one = CausalDecoder(model, layers=layers).start(prompts, room=3, states=True, places=(expected := Places(places)))
    other = decoder_of(model, tmp_path, layers=layers).start(prompts, room=3, states=True, places=(found := Places(places)))
    for mine, theirs in zip(found.found, expected.found, strict=True):
        assert_near(mine, theirs, 1e-5)
    tokens = torch.tensor([5, 6])
    one.step(tokens)
    other.step(tokens)
    assert_near(other.states, one.states, 1e-5)


@torch.no_grad()
def test_a_row_is_read_on_from_where_it_parted(tmp_path):
    """Tokens behind others are turned by their own positions: read on, taken back, and read on again."""
    model = model_of(KNOWN["llama, linear"]())
    decoder, (whole,) = decoder_of(model, tmp_path), prompts_of(model, 40)
    expected = CausalDecoder(model).start([whole], room=3).logits
    session = decoder.start([whole[:17]], room=30)
    session.extend(whole[17:30], conditions=None, room=3, states=False)
    session.rewind(10)
    session.extend(whole[20:], conditions=None, room=3, states=False)
    assert_near(session.logits, expected, 1e-5)


@torch.no_grad()
def test_what_is_read_in_pieces_is_what_is_read_at_once(tmp_path):
    """Behind a beginning that was kept, before guesses, where they are taken back, and with the states of the last token or of others."""
    most, layers = 3 * PIECE, (0, -1)
    model = model_of(hf.LlamaConfig(**{**SIZES, "max_position_embeddings": most}))
    one, decoder = CausalDecoder(model, layers=layers), decoder_of(model, tmp_path, layers=layers, most=most)
    prompts, guesses = prompts_of(model, 2 * PIECE + 30, PIECE + 1), torch.tensor([[5, 6, 7]])
    mine, theirs = decoder.start([prompts[0][:17]], room=most - 20), one.start(prompts[:1], room=9, states=True)
    mine.extend(prompts[0][17:], conditions=None, room=9, states=True)
    for _ in range(2):
        assert_near(mine.states, theirs.states, 1e-5)
        assert_near(mine.logits, theirs.logits, 1e-5)
        for got, expected in zip(mine.look(guesses)[0].copy(), [theirs.step(token).clone()[0] for token in guesses.unbind(1)], strict=True):
            assert_near(got, expected, 1e-5)
        mine.rewind(2)
        theirs.rewind(2)
        mine.step(torch.tensor([9]))
        theirs.step(torch.tensor([9]))
    wanted = [[3, PIECE + 5], [PIECE]]
    for at in (None, wanted):
        (expected, theirs), (found, mine) = (
            (there := Places(at) if at else None, each.start(prompts, room=9, states=True, places=there)) for each in (one, decoder)
        )
        assert_near(mine.logits, theirs.logits, 1e-5)
        assert_near(mine.states, theirs.states, 1e-5)
        for got, right in zip(found.found, expected.found, strict=True) if at else ():
            assert_near(got, right, 1e-5)


@pytest.mark.parametrize("case", ["llama, tied", "llama 3", "llama, linear", "mistral, all the way", "qwen2", "qwen3"])
def test_the_plain_model_is_built_without_transformers(tmp_path, case):
    """From its own tensors."""
    facts = KNOWN[case]().to_dict()
    facts = {key: facts[key] for key in {*plain_kinds.OBEYED, "sliding_window"} if key in facts}
    assert plain_kinds.serves(facts)
    torch.manual_seed(0)
    model = plain.Model(facts).eval()
    assert_same(plain.Decoder(model), decoder_of(model, tmp_path), prompts_of(model, 7, 3, 90))


@pytest.mark.parametrize("case", TRACED)
def test_what_is_not_known_to_the_last_key_is_traced(case):
    """Nothing is put together on a guess."""
    assert built.known_of(model_of(TRACED[case]()), MOST) is None


def test_without_a_limit_there_is_no_table_of_angles():
    """Nor with one that would outweigh the model."""
    model = model_of(KNOWN["llama, tied"]())
    assert built.known_of(model, MOST) is not None
    assert built.known_of(model, None) is None
    assert built.known_of(model, built.MOST + 1) is None


def test_a_tensor_that_no_known_shape_has_is_not_left_out():
    """An adapter that stands beside the matrices, say."""
    model = model_of(KNOWN["llama, tied"]())
    model.model.layers[1].mlp.extra = torch.nn.Linear(2, 2)
    assert built.known_of(model, MOST) is None


def test_a_bias_of_the_values_alone_is_not_left_out():
    """Queries, keys and values are one matrix, and have one bias."""
    model = model_of(KNOWN["llama, tied"]())
    model.model.layers[1].self_attn.v_proj.bias = torch.nn.Parameter(torch.ones(32))
    assert built.known_of(model, MOST) is None


def test_what_stands_beside_a_module_is_traced():
    """Hooks, and calls that somebody has put in the place of its own."""
    model = model_of(KNOWN["llama, tied"]())
    handle = model.model.layers[0].mlp.register_forward_hook(lambda _module, _given, found: found * 2)
    assert built.known_of(model, MOST) is None
    handle.remove()
    assert built.known_of(model, MOST) is not None
    layer = model.model.layers[1]
    layer.forward = layer.forward
    assert built.known_of(model, MOST) is None


def _gated_by(model):
    model.model.layers[1].mlp.act_fn = torch.nn.GELU()


def _steadied_by(model):
    model.model.layers[1].input_layernorm.variance_epsilon = 0.1


def _scaled_by(model):
    model.model.layers[1].self_attn.scaling = 0.1


def _doubled(model):
    mlp = model.model.layers[1].mlp
    mlp.__class__ = type(
        "Doubled", (type(mlp),), {"forward": lambda self, x: type(mlp).__mro__[1].forward(self, x) * 2, "__module__": "my"}
    )


@pytest.mark.parametrize("change", [_gated_by, _steadied_by, _scaled_by, _doubled])
def test_modules_that_compute_otherwise_than_the_config_says_are_traced(change):
    """Another activation, number or class, with the same tensors."""
    model = model_of(KNOWN["llama, tied"]())
    change(model)
    assert built.known_of(model, MOST) is None


@torch.no_grad()
def test_no_position_is_read_beyond_the_table(tmp_path):
    """The operator does not look: prompts, answers, and what a prompt goes on with, up to the last position and not one further."""
    model = model_of(KNOWN["llama, tied"]())
    decoder = decoder_of(model, tmp_path, most=70)
    prompt = prompts_of(model, 69)
    session = decoder.start(prompt, room=1)
    assert_near(session.step(torch.tensor([5])), _after(model, prompt[0], 5), 1e-5)
    with pytest.raises(InputError, match="more tokens than there is room for"):
        session.step(torch.tensor([5]))
    session.close()
    with pytest.raises(InputError, match="75 tokens were to be read and written, and this export tells 70 positions apart"):
        decoder.start(prompts_of(model, 70), room=5)


def test_it_is_tuned_on_inputs_that_are_made_up(tmp_path):
    """What its graph takes is known where no loop is: else every start would be the slow one."""
    decoder_of(model_of(KNOWN["qwen2"]()), tmp_path)
    (tmp_path / "tuned").mkdir()
    assert tune(tmp_path / "model.onnx", tmp_path / "tuned" / "model.onnx") == ""


def _after(model, prompt, token):
    whole = torch.cat([prompt, model.get_input_embeddings()(torch.tensor([token]))])
    return model(inputs_embeds=whole[None]).logits[:, -1]
