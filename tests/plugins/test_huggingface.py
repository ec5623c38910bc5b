"""Models of transformers: built without memory, filled from every layout of their files, tied as in from_pretrained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file

from modelgraft.engine.modules.building import parameters_without_memory
from modelgraft_plugins import huggingface
from support.checkpoints import randomise

LLAMA = {
    "hidden_size": 24,
    "intermediate_size": 37,
    "num_hidden_layers": 11,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 53,
}
EYE = {"hidden_size": 20, "intermediate_size": 31, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8, "patch_size": 4}
T5 = {"d_model": 26, "d_kv": 5, "d_ff": 37, "num_layers": 2, "num_heads": 4, "vocab_size": 53}
READER = {"hidden_size": 18, "intermediate_size": 31, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 61}
MODELS: list[tuple[str, str, dict[str, Any]]] = [
    ("AutoModelForCausalLM", "llama", LLAMA),
    ("AutoModelForCausalLM", "llama", {**LLAMA, "tie_word_embeddings": True}),
    ("AutoModelForSeq2SeqLM", "t5", T5),
    ("CLIPVisionModel", "clip_vision_model", EYE),
    ("SiglipVisionModel", "siglip_vision_model", EYE),
    ("BertModel", "bert", READER),
    (
        "LlavaForConditionalGeneration",
        "llava",
        {"text_config": {"model_type": "llama", **LLAMA}, "vision_config": {"model_type": "clip_vision_model", **EYE}},
    ),
]


@pytest.mark.parametrize(("architecture", "kind", "config"), MODELS)
def test_files_fill_a_model_that_was_built_without_memory(architecture, kind, config, tmp_path):
    """What save_pretrained writes comes back tensor by tensor, under the names in memory; nothing is missing or over."""
    made = huggingface.config_of({"model_type": kind, **config}, architecture)
    original = huggingface.class_of(made, architecture)(made)
    randomise(original, seed=1)
    original.save_pretrained(tmp_path)
    filled = huggingface.blueprint(made, architecture)
    assert all(parameter.is_meta for parameter in filled.parameters())
    assert not any(buffer.is_meta for buffer in filled.buffers())
    filled.load_state_dict(huggingface.convert(load_file(tmp_path / "model.safetensors"), filled), strict=True, assign=True)
    huggingface.tie(filled)
    wanted = original.state_dict()
    assert filled.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in filled.state_dict().items())
    assert sum(parameter.numel() for parameter in filled.parameters()) == sum(parameter.numel() for parameter in original.parameters())


OLD_NAMES = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi": "multi",
    "lm_head.": "language_model.lm_head.",
}


def test_older_layouts_are_read(tmp_path):
    """LLaVA before transformers 5: other prefixes for every part."""
    config = {"model_type": "llava", **MODELS[-1][2]}
    model = huggingface.build(config, "LlavaForConditionalGeneration")
    old = {}
    for name, tensor in model.state_dict().items():
        prefix = next(prefix for prefix in OLD_NAMES if name.startswith(prefix))
        old[OLD_NAMES[prefix] + name.removeprefix(prefix)] = tensor
    found = huggingface.convert(old, huggingface.blueprint(config, "LlavaForConditionalGeneration"))
    assert found.keys() == model.state_dict().keys()
    assert all(found[name] is old_tensor or torch.equal(found[name], old_tensor) for name, old_tensor in model.state_dict().items())


def test_a_base_model_may_carry_the_prefix_of_its_head_or_not():
    """`model.layers...` for a model without head, and bare names for one with a head."""
    config = {"model_type": "llama", **LLAMA}
    bare = huggingface.build(config, "AutoModel").state_dict()
    headed = huggingface.blueprint(config, "AutoModelForCausalLM")
    assert set(huggingface.convert(bare, headed)) == set(headed.state_dict()) - {"lm_head.weight"}
    with_prefix = {f"model.{name}": tensor for name, tensor in bare.items()}
    assert huggingface.convert(with_prefix, huggingface.blueprint(config, "AutoModel")).keys() == bare.keys()


def test_no_tensor_is_copied():
    """Names change, memory does not: a mapped file stays mapped."""
    config = {"model_type": "llama", **LLAMA}
    state = huggingface.build(config, "AutoModelForCausalLM").state_dict()
    found = huggingface.convert(state, huggingface.blueprint(config, "AutoModelForCausalLM"), prefix="model.")
    assert all(found[f"model.{name}"].data_ptr() == tensor.data_ptr() for name, tensor in state.items())


def test_what_is_missing_or_over_can_be_seen():
    """Left-over names stay, missing ones do not appear, and computed buffers of old files are dropped."""
    config = {"model_type": "llama", **LLAMA}
    model = huggingface.blueprint(config, "AutoModelForCausalLM")
    state = huggingface.build(config, "AutoModelForCausalLM").state_dict()
    del state["model.norm.weight"]
    state |= {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(3), "gate.weight": torch.zeros(2)}
    found = huggingface.convert(state, model)
    assert set(model.state_dict()) - set(found) == {"model.norm.weight"}
    assert set(found) - set(model.state_dict()) == {"gate.weight"}


def test_tied_weights_are_one_parameter_unless_the_file_says_otherwise():
    """Whichever of the names the file uses; different tensors stay apart."""
    config = {"model_type": "llama", **LLAMA, "tie_word_embeddings": True}
    state = dict(huggingface.build(config, "AutoModelForCausalLM").state_dict())
    table = state["model.embed_tokens.weight"]
    for absent in ("lm_head.weight", "model.embed_tokens.weight"):
        model = huggingface.blueprint(config, "AutoModelForCausalLM")
        given = {name: tensor for name, tensor in state.items() if name != absent}
        model.load_state_dict(huggingface.convert(given, model), strict=True, assign=True)
        huggingface.tie(model)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert torch.equal(model.lm_head.weight, table)
    model = huggingface.blueprint(config, "AutoModelForCausalLM")
    model.load_state_dict(huggingface.convert({**state, "lm_head.weight": table + 1}, model), strict=True, assign=True)
    huggingface.tie(model)
    assert torch.equal(model.lm_head.weight, table + 1)
    assert torch.equal(model.model.embed_tokens.weight, table)


def test_a_model_is_built_in_float32_whatever_its_config_was_saved_in():
    """The pipeline casts it afterwards; buffers are computed in full precision."""
    model = huggingface.build({"model_type": "llama", **LLAMA, "torch_dtype": "float16"}, "AutoModelForCausalLM")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_attention_may_be_chosen():
    """sdpa is the default where the model knows it."""
    config = {"model_type": "llama", **LLAMA}
    with parameters_without_memory():
        assert huggingface.build(config, "AutoModelForCausalLM").config._attn_implementation == "sdpa"
        assert huggingface.build(config, "AutoModelForCausalLM", attention="eager").config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 3}, "has no model_type"),
        ({"model_type": "clip_vision_model"}, "no AutoModelForCausalLM for model_type 'clip_vision_model'"),
    ],
)
def test_configs_of_no_language_model_are_refused(config, message):
    """With the reason."""
    with pytest.raises(ValueError, match=message):
        huggingface.build(config, "AutoModelForCausalLM")


def test_a_config_object_is_taken_as_it_is():
    """And not changed."""
    config = hf.LlamaConfig(**LLAMA)
    assert huggingface.blueprint(config, "AutoModelForCausalLM").config is not config
