"""What a GGUF file states about its model is in the model, or the file is refused by the key; the rest is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf as library
import numpy as np
import pytest
import torch
import transformers as hf
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from modelgraft.installed.discovery import assemble
from modelgraft.sources import views
from modelgraft_plugins import formats, llm
from modelgraft_plugins.formats import gguf, gguf_keys
from modelgraft_plugins.llm import CausalConfig
from modelgraft_plugins.stated import REMARKS

REGISTRY = assemble({"formats": formats, "llm": llm})
LLAMA = {"vocab_size": 260, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 6}
HEADS_OF_32 = {"llama.attention.key_length": 32, "llama.attention.value_length": 32}
Meta = dict[str, Any]


def byte_vocabulary() -> list[str]:
    """Markers, then the 256 bytes in the alphabet of byte-level BPE, then one merge."""
    from tokenizers.pre_tokenizers import ByteLevel

    return ["<unk>", "<s>", "</s>", *sorted(ByteLevel.alphabet()), "at"]


def written(path: Path, meta: Meta, *, kind: str = "llama", divisors: list[float] | None = None) -> Path:
    """The metadata of a small model with heads of four, and a table of divisors; `meta` goes over the usual keys, null takes one out."""
    usual: Meta = {
        "llama.context_length": 64, "llama.embedding_length": 24, "llama.block_count": 1, "llama.feed_forward_length": 40,
        "llama.attention.head_count": 6, "llama.attention.head_count_kv": 2, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 500.0, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": byte_vocabulary(), "tokenizer.ggml.token_type": [3, 3, 3, *[1] * 257], "tokenizer.ggml.merges": ["a t"],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
    }  # fmt: skip
    writer = library.GGUFWriter(path, kind)
    for key, value in {**usual, **meta}.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
        if value is not None:
            add[type(value)](key.replace("llama.", f"{kind}.", 1) if key.startswith("llama.") else key, value)
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(divisors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def frequencies(rope: Meta) -> tuple[torch.Tensor, float]:
    """What transformers turns positions by."""
    config = hf.LlamaConfig(**{**LLAMA, "head_dim": 32, "max_position_embeddings": 64, "rope_parameters": rope})
    return ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu")


@pytest.mark.parametrize(
    "rule",
    [
        {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        {"factor": 4.0, "low_freq_factor": 2.0, "high_freq_factor": 6.0, "original_max_position_embeddings": 300},
        {"factor": 5.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 48},
    ],
)
def test_divisors_of_llama_3_become_its_rule(tmp_path, rule):
    """Published numbers, other ends, and so few frequencies that none lies between the ends."""
    base = 500.0
    wanted, _ = frequencies({"rope_type": "llama3", "rope_theta": base, **rule})
    plain, _ = frequencies({"rope_type": "linear", "factor": 1.0, "rope_theta": base})
    path = written(tmp_path / "m.gguf", HEADS_OF_32, divisors=(plain / wanted).tolist())
    found = gguf.peek(path)["rope_parameters"]
    assert found["rope_type"] == "llama3"
    torch.testing.assert_close(frequencies(found)[0], wanted, rtol=1e-5, atol=0)


def test_divisors_of_no_rule_are_taken_one_by_one(tmp_path):
    divisors = [1.0 + 0.37 * index for index in range(16)]
    path = written(tmp_path / "m.gguf", HEADS_OF_32, divisors=divisors)
    got, stretch = frequencies(gguf.peek(path)["rope_parameters"])
    wanted = torch.tensor([500.0 ** (-index / 16) / divisor for index, divisor in enumerate(divisors)])
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=0)
    assert stretch == 1.0


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, {"rope_type": "default"}),
        ({"type": "none", "factor": 4.0}, {"rope_type": "default"}),
        ({"factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 16, "yarn_beta_fast": 20.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 20.0, "beta_slow": 1.0,
             "attention_factor": pytest.approx(0.1 * np.log(4.0) + 1)},
        ),
    ],
)  # fmt: skip
def test_scaling_by_numbers_is_that_of_transformers(tmp_path, meta, expected):
    path = written(tmp_path / "m.gguf", {f"llama.rope.scaling.{key}": value for key, value in meta.items()})
    assert gguf.peek(path)["rope_parameters"] == {"rope_theta": 500.0, **expected}


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 4.0}, "in the way 'longrope'"),
        ({"llama.rope.dimension_count": 2, "llama.attention.key_length": 4}, r"rope.dimension_count = 2, where its heads are 4 wide"),
        ({"llama.expert_count": 8}, r"llama\.expert_count = 8"),
        ({"llama.attention.scale": 0.3}, r"llama\.attention\.scale"),
        ({"llama.logit_scale": 0.25}, r"llama\.logit_scale"),
        ({"llama.final_logit_softcapping": 30.0}, r"final_logit_softcapping"),
        ({"llama.attention.causal": False}, r"attention\.causal = False"),
        ({"llama.rope.dimension_sections": [1, 1]}, "rope.dimension_sections"),
        ({"llama.ssm.state_size": 3}, r"llama\.ssm\.state_size = 3"),
        ({"general.type": "adapter"}, "it is no language model by itself"),
        ({"split.count": 3}, "join them with `llama-gguf-split --merge`"),
    ],
)
def test_what_makes_another_model_of_it_is_refused_by_key(tmp_path, meta, message):
    with pytest.raises(ValueError, match=message):
        gguf.peek(written(tmp_path / "m.gguf", meta))


def test_what_does_nothing_is_not_told(tmp_path):
    quiet = {
        "llama.attention.scale": 0.5, "llama.expert_count": 0, "llama.logit_scale": 1.0, "general.type": "model", "general.name": "x",
        "general.base_model.0.name": "y", "tokenizer.ggml.fim_pre_token_id": 3, "quantize.imatrix.file": "z",
    }  # fmt: skip
    assert REMARKS not in gguf.peek(written(tmp_path / "m.gguf", quiet))


def test_what_is_not_known_and_recommended_sampling_are_told(tmp_path):
    """In the words of the node that reads the file, before it is converted."""
    path = written(tmp_path / "m.gguf", {"temper.heat": 9, "general.sampling.temp": 0.75})
    view = views.view(views.parse(str(path)), registry=REGISTRY, folder=None, trusted=True, offline=True)
    told = " ".join(sentence for sentence, *_ in CausalConfig.unheeded(view))
    assert "states temper.heat = 9, which is not known here" in told
    assert "recommends general.sampling.temp = 0.75" in told
    assert REMARKS not in CausalConfig.from_source(view)["model"]


def test_mistral_keeps_its_window(tmp_path):
    found = gguf.peek(written(tmp_path / "m.gguf", {"llama.attention.sliding_window": 16}))
    assert (found["model_type"], found["sliding_window"]) == ("mistral", 16)
    assert "sliding_window" not in gguf.peek(written(tmp_path / "wide.gguf", {"llama.attention.sliding_window": 64}))


def converted(tmp_path: Path, meta: Meta, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the reader writes, without weights."""
    monkeypatch.setattr("modelgraft_plugins.formats.tensor_file.write", lambda *_, **__: None)
    (tmp_path / "out").mkdir()
    gguf.read(written(tmp_path / "m.gguf", meta), tmp_path / "out")
    return tmp_path / "out"


def test_every_token_that_ends_an_answer_counts(tmp_path, monkeypatch):
    """The end of a turn and of a message, beside the end of a text."""
    folder = converted(tmp_path, {"tokenizer.ggml.eot_token_id": 0, "tokenizer.ggml.eom_token_id": 7}, monkeypatch)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0, 7]


@pytest.mark.parametrize(("begins", "ends"), [(False, False), (True, False), (False, True), (True, True)])
def test_begin_and_end_tokens_are_put_around_a_text_as_stated(tmp_path, monkeypatch, begins, ends):
    folder = converted(tmp_path, {"tokenizer.ggml.add_bos_token": begins, "tokenizer.ggml.add_eos_token": ends}, monkeypatch)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    bare = tokenizer("at a", add_special_tokens=False).input_ids
    assert tokenizer("at a").input_ids == [*([1] * begins), *bare, *([2] * ends)]


def test_chat_templates_are_kept_by_name(tmp_path, monkeypatch):
    folder = converted(tmp_path, {"tokenizer.chat_template": "usual", "tokenizer.chat_template.tool_use": "tools"}, monkeypatch)
    assert hf.AutoTokenizer.from_pretrained(folder).chat_template == {"default": "usual", "tool_use": "tools"}


@pytest.mark.parametrize("begins", [True, False])
def test_a_vocabulary_with_scores_begins_as_stated(tmp_path, monkeypatch, begins):
    """The kind that sentencepiece makes, which transformers converts."""
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], "▁", "a", "t", "▁a", "at"]
    meta = {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-5.0, -4.0, -3.0, -1.0, -2.0],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 5], "tokenizer.ggml.merges": None, "tokenizer.ggml.pre": None,
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": begins,
    }  # fmt: skip
    tokenizer = hf.AutoTokenizer.from_pretrained(converted(tmp_path, meta, monkeypatch))
    assert tokenizer("at").input_ids == [*([1] * begins), *tokenizer("at", add_special_tokens=False).input_ids]


def keys_of(group: type) -> set[str]:
    """All keys that the package gguf lists."""
    found = set[str]()
    for name, value in vars(group).items():
        if name.startswith("__"):
            continue
        found |= keys_of(value) if isinstance(value, type) else {value} if isinstance(value, str) and "." in value else set()
    return found


def test_every_key_of_gguf_is_in_the_table_or_refused():
    """A key that is new in the package fails here, unless it is one of a model, which is refused until it is read."""
    every = {gguf_keys._general(key.replace("{id}", "0"), "{arch}") for key in keys_of(library.Keys)}
    left = {key for key in every if key not in gguf_keys.TABLE.known and not key.startswith((*gguf_keys.FOREIGN, gguf_keys.SAMPLING))}
    assert left == set()
