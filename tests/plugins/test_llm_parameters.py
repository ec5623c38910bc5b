"""Parameters of language models by formula: equal to what transformers builds, and to published numbers."""

from __future__ import annotations

import pytest
import transformers as hf
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as SEQ2SEQ_NAMES

from modelgraft.engine.modules.building import count_parameters
from modelgraft.installed.discovery import assemble
from modelgraft.sources.families import families
from modelgraft.testing import node_of
from modelgraft_plugins import huggingface, llm
from modelgraft_plugins.llm import CausalConfig, Seq2SeqConfig, kosmos
from modelgraft_plugins.llm.known import family_of, is_put_on

FAMILIES = {kind: card for kind, card in families().languages.items() if card.defaults}
SMALL = {"vocab_size": 53, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 4}
PAIRS = {"num_key_value_heads": 2}
OPT = {"vocab_size": 53, "hidden_size": 24, "ffn_dim": 37, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 19}
GPT2 = {"vocab_size": 53, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 19}
FALCON = {"vocab_size": 53, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
KOSMOS = {"vocab_size": 53, "embed_dim": 24, "ffn_dim": 37, "layers": 3, "attention_heads": 4}
T5 = {"vocab_size": 53, "d_model": 26, "d_kv": 5, "d_ff": 37, "num_layers": 3, "num_heads": 4, "relative_attention_num_buckets": 7}

CAUSAL = [
    ("opt", OPT),
    ("opt", {**OPT, "word_embed_proj_dim": 20, "do_layer_norm_before": False}),
    ("opt", {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False, "tie_word_embeddings": False}),
    ("llama", {**SMALL, **PAIRS}),
    ("llama", {**SMALL, "head_dim": 10, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("mistral", {**SMALL, **PAIRS}),
    ("qwen2", {**SMALL, **PAIRS}),
    ("qwen3", {**SMALL, **PAIRS, "head_dim": 10}),
    ("qwen3", {**SMALL, **PAIRS, "attention_bias": True, "tie_word_embeddings": True}),
    ("gemma", {**SMALL, "num_key_value_heads": 1, "head_dim": 10}),
    ("gemma2", {**SMALL, **PAIRS, "head_dim": 10}),
    ("gpt2", GPT2),
    ("gpt2", {**GPT2, "n_inner": 31, "tie_word_embeddings": False}),
    ("gpt_neox", SMALL),
    ("gpt_neox", {**SMALL, "attention_bias": False, "tie_word_embeddings": True}),
    ("phi", {**SMALL, **PAIRS}),
    ("phi", {**SMALL, "qk_layernorm": True}),
    ("mpt", {"vocab_size": 53, "d_model": 24, "n_layers": 3, "n_heads": 4}),
    ("mpt", {"vocab_size": 53, "d_model": 24, "n_layers": 3, "n_heads": 4, "tie_word_embeddings": False}),
    ("bloom", {"vocab_size": 53, "hidden_size": 24, "n_layer": 3, "n_head": 4}),
    ("bloom", {"vocab_size": 53, "n_embed": 24, "n_layer": 3, "n_head": 4}),  # as the first ones were published
    ("falcon", FALCON),
    ("falcon", {**FALCON, "multi_query": False, "bias": True, "parallel_attn": False}),
    ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 37}),
    ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    ("gptj", {**GPT2, "rotary_dim": 4}),
    ("kosmos_2_text_model", KOSMOS),
    ("kosmos_2_text_model", {**KOSMOS, "tie_word_embeddings": False}),
    ("kosmos_1_text_model", KOSMOS),
    ("gptj", {**GPT2, "rotary_dim": 4, "n_inner": 31, "tie_word_embeddings": True}),
]
BESIDE = {"kosmos_2_text_model": "models.kosmos2.modeling_kosmos2:Kosmos2TextForCausalLM", "kosmos_1_text_model": kosmos.Kosmos1}
SEQ2SEQ = [
    T5,
    {**T5, "num_decoder_layers": 2, "feed_forward_proj": "gated-gelu"},
    {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
]
WHISPER = {
    "model_type": "whisper", "vocab_size": 53, "d_model": 24, "encoder_layers": 3, "decoder_layers": 2, "decoder_ffn_dim": 37,
    "encoder_attention_heads": 3, "decoder_attention_heads": 4, "max_target_positions": 17, "pad_token_id": 0, "bos_token_id": 0,
    "eos_token_id": 0, "decoder_start_token_id": 1,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "config"), CAUSAL)
def test_the_formula_counts_what_transformers_builds(kind, config):
    """Our count, our module and transformers' model agree to the unit."""
    model = huggingface.blueprint({"model_type": kind, **config}, BESIDE.get(kind, "AutoModelForCausalLM"))
    declared = CausalConfig(model={"model_type": kind, **config})
    assert declared.parameters() == sum(parameter.numel() for parameter in model.parameters())
    assert declared.parameters() == count_parameters(node_of(CausalConfig, {"model": {"model_type": kind, **config}}))


@pytest.mark.parametrize("config", SEQ2SEQ)
def test_the_formula_counts_encoder_decoders(config):
    """T5 and gated T5; with a head of its own where the config does not tie it."""
    tied = config.get("tie_word_embeddings", True)
    declared = {"model": {"model_type": "t5", **config}, "tie_word_embeddings": tied}
    built = sum(
        parameter.numel() for parameter in huggingface.blueprint({"model_type": "t5", **config}, "AutoModelForSeq2SeqLM").parameters()
    )
    wanted = built if tied else built + config["vocab_size"] * config["d_model"]  # transformers builds it tied, whatever the config says
    assert Seq2SeqConfig(**declared).parameters() == wanted
    assert count_parameters(node_of(Seq2SeqConfig, declared)) == wanted


def test_a_decoder_alone_is_counted_alone():
    """Whisper's and T5's decoders without their encoders."""
    for model, architecture in [(WHISPER, "WhisperForConditionalGeneration"), ({"model_type": "t5", **T5}, "AutoModelForSeq2SeqLM")]:
        whole = huggingface.blueprint(model, architecture)
        wanted = sum(parameter.numel() for parameter in whole.get_decoder().parameters())
        declared = {"model": model, "encoder": "none"}
        assert Seq2SeqConfig(**declared).parameters() == wanted == count_parameters(node_of(Seq2SeqConfig, declared))


PUBLISHED = [  # model, config that differs from the family's defaults, parameters of the published checkpoint
    ("opt", {}, 125_239_296),  # facebook/opt-125m
    ("llama", {}, 6_738_415_616),  # LLaMA-7B
    (
        "llama",
        {
            "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "tie_word_embeddings": True,
        },
        134_515_008,
    ),  # SmolLM2-135M
    (
        "qwen2",
        {
            "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        494_032_768,
    ),  # Qwen2-0.5B
    ("mistral", {}, 7_241_732_096),  # Mistral-7B
    ("gpt2", {}, 124_439_808),  # gpt2
    ("mpt", {"vocab_size": 50432, "d_model": 4096, "n_layers": 32, "n_heads": 32}, 6_649_286_656),  # MPT-7B
    ("bloom", {"n_embed": 1024, "n_layer": 24, "n_head": 16}, 559_214_592),  # BLOOM-560M
    ("falcon", {}, 6_921_720_704),  # Falcon-7B
    ("gptj", {}, 6_050_882_784),  # GPT-J-6B
    ("t5", {"d_ff": 2048}, 60_506_624),  # t5-small
]  # fmt: skip


@pytest.mark.parametrize(("kind", "config", "parameters"), PUBLISHED)
def test_published_numbers(kind, config, parameters):
    """The family's defaults and the formula together give the published count."""
    component = Seq2SeqConfig if kind == "t5" else CausalConfig
    assert component(model={"model_type": kind, **config}).parameters() == parameters


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_defaults_are_those_of_transformers(kind):
    """What published configs leave out is what transformers fills in."""
    config = huggingface.config_of({"model_type": kind}, BESIDE.get(kind, "AutoModel"))
    family = FAMILIES[kind]
    of_whole = {"tie_word_embeddings": False} if is_put_on(kind) else {}  # whose head is that of the whole, and says so itself
    found = {name: getattr(config, name) for name in family.defaults if name not in of_whole} | of_whole
    if kind in ("t5", "mt5"):
        assert found.pop("num_decoder_layers") == config.num_layers  # None means: as many as the encoder has
    assert found == {name: value for name, value in family.defaults.items() if name != "num_decoder_layers"}


def test_an_unknown_family_is_not_counted():
    """No formula, no number: `plan --exact` builds it."""
    assert CausalConfig(model={"model_type": "stablelm", "hidden_size": 64}).parameters() is None
    assert CausalConfig().parameters() is None


def test_the_plugin_offers_language_models_and_what_stands_in_them():
    """By their ids; the seed matters for those of kind llm."""
    found = assemble({"llm": llm}).components
    assert {name: (found[name].kind, found[name].random) for name in found} == {
        "llm/causal": ("llm", True),
        "llm/draft": ("llm", False),
        "llm/remote": ("llm", True),
        "llm/seq2seq": ("llm", True),
        "llm/splice": ("projector", False),
        "adapter/gated_cross_attention": ("adapter", False),
        "adapter/prefix_attention": ("adapter", False),
    }


def widths() -> dict[str, tuple[int | None, dict[str, object]]]:
    """How wide the models are that a config class of transformers makes when it is given nothing."""
    found = {}
    for kind in sorted({*CAUSAL_NAMES, *SEQ2SEQ_NAMES}):
        try:
            config = hf.AutoConfig.for_model(kind)
        except Exception:  # noqa: BLE001 a class that cannot be made of nothing
            continue
        found[kind] = getattr(config, "hidden_size", None), config.to_dict()
    return found


@pytest.mark.slow
def test_the_width_of_every_language_model_of_transformers_is_read():
    """BART calls it d_model, XLM emb_dim: a family that is not listed has the common names too."""
    wrong = {kind: width for kind, (width, config) in widths().items() if family_of(kind).read(config, "hidden_size") != width}
    assert not wrong
