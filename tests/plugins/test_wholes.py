"""The language model inside a whole is that of the whole: its head, its last scale, its begin token; and what cannot be built is told."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.models.auto import modeling_auto as auto

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import GraphError, InputError
from modelgraft.sources.families import families
from modelgraft_plugins import llm
from modelgraft_plugins.llm import CausalConfig
from modelgraft_plugins.llm.classes import CAUSAL, CROSSING
from modelgraft_plugins.llm.known import LAST
from support import checkpoints
from support.open_part import configured, open_part
from support.tokenizers import byte_level

REGISTRY = assemble({"llm": llm})
WHOLES = {kind: (families().language_inside(kind), whole.tied) for kind, whole in families().wholes.items() if whole.tied is not None}
ELSEWHERE = {"kosmos-1", "qwen_vl", "kosmos-2", "qwen2_audio", "voxtral"}  # without a class there; with a head within a part; that hear
KEEPS = {kind for kind, whole in families().wholes.items() if whole.keeps}
INSIDE = {kind for kind, whole in families().wholes.items() if whole.tied_inside}
SILENT = {kind: card.last for kind, card in families().languages.items() if card.last is not None}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
EYE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}
HEADS = ("model.language_model.embed_tokens.weight", "model.text_model.embed_tokens.weight")
TEXT = "how many cats are there?"


def sizes(tokenizer: Any) -> dict[str, Any]:
    """Of a small language model."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip


def text_of(kind: str, tokenizer: Any, **more: Any) -> dict[str, Any]:
    """The config of a language model."""
    return hf.AutoConfig.for_model(kind, **{**sizes(tokenizer), **more}).to_dict()


def whole(kind: str, tokenizer: Any, *, tied: bool, text: str, eye: str, **more: Any) -> Any:
    """A whole whose language model says the opposite about its head."""
    config = hf.AutoConfig.for_model(
        kind, tie_word_embeddings=tied, text_config=text_of(text, tokenizer, tie_word_embeddings=not tied),
        vision_config={**EYE, "model_type": eye}, **more,
    )  # fmt: skip
    return hf.AutoModelForImageTextToText.from_config(config)


MODELS = {
    "llava": {"text": "llama", "eye": "clip_vision_model"},
    "internvl": {"text": "qwen2", "eye": "internvl_vision"},
    "mistral3": {"text": "mistral", "eye": "pixtral"},
    "idefics2": {"text": "mistral", "eye": "idefics2"},
    "idefics3": {"text": "llama", "eye": "idefics3_vision"},
    "smolvlm": {"text": "llama", "eye": "smolvlm_vision"},
    "aya_vision": {"text": "cohere2", "eye": "siglip_vision_model"},
    "llava of gemma2": {"text": "gemma2", "eye": "clip_vision_model"},
}


def saved(name: str, folder: Path, *, tied: bool) -> tuple[Any, Any]:
    """The whole, saved with a tokenizer."""
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=("<image>",))
    torch.manual_seed(0)
    model = whole(name.partition(" ")[0], tokenizer, tied=tied, **MODELS[name])
    checkpoints.randomise(model, seed=5)
    model.tie_weights()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_the_head_and_the_last_scale_are_those_of_the_whole(tmp_path, name, tied):
    """The outer config decides whether the head is tied; the logits of a text are those of the whole's own class."""
    model, tokenizer = saved(name, tmp_path, tied=tied)
    with torch.no_grad():
        wanted = model(tokenizer(TEXT, return_tensors="pt").input_ids).logits[:, -1]
    part = open_part(REGISTRY, "llm/causal", f"{tmp_path}#language_model", max_new_tokens=0)
    torch.testing.assert_close(part([TEXT])["logits"], wanted, **CLOSE)
    assert part.node.config.tie_word_embeddings is model.config.tie_word_embeddings


@pytest.mark.parametrize("outer", [{}, {"tie_word_embeddings": False}], ids=["silent", "denied"])
def test_a_head_that_only_the_config_inside_ties(tmp_path, outer):
    """As files from before transformers 5 say it, of which some deny it outside; the file has no head."""
    model, tokenizer = saved("llava", tmp_path, tied=True)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["tie_word_embeddings"]
    path.write_text(json.dumps({**config, **outer, "text_config": {**config["text_config"], "tie_word_embeddings": True}}))
    with torch.no_grad():
        wanted = model(tokenizer(TEXT, return_tensors="pt").input_ids).logits[:, -1]
    part = open_part(REGISTRY, "llm/causal", f"{tmp_path}#language_model", max_new_tokens=0)
    torch.testing.assert_close(part([TEXT])["logits"], wanted, **CLOSE)


@pytest.mark.parametrize(("name", "key"), [("aya_vision", "logit_scale"), ("llava of gemma2", "final_logit_softcapping")])
def test_what_the_whole_leaves_out_can_be_asked_for_and_is_told(tmp_path, name, key):
    """The other reading: the language model as its own class has it."""
    model, tokenizer = saved(name, tmp_path, tied=False)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        plain = model(ids).logits[:, -1]
    config = model.config.text_config
    wanted = plain * config.logit_scale if key == "logit_scale" else torch.tanh(plain / 30.0) * 30.0
    part = open_part(REGISTRY, "llm/causal", f"{tmp_path}#language_model", max_new_tokens=0, final_scale="model")
    torch.testing.assert_close(part([TEXT])["logits"], wanted, **CLOSE)
    (remark,) = CausalConfig.unheeded(part.node.source)
    assert f"states {key}: {getattr(config, key)}, which the {name.partition(' ')[0]} around it leaves out" in remark[0]
    assert remark[2] == "final_scale"


def test_a_language_model_by_itself_keeps_its_last_scale(tmp_path):
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=True, extra=())
    model = hf.AutoModelForCausalLM.from_config(hf.AutoConfig.for_model(**text_of("cohere2", tokenizer)))
    checkpoints.randomise(model, seed=5)
    model.tie_weights()
    model.eval().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = model(tokenizer(TEXT, return_tensors="pt").input_ids).logits[:, -1]
    part = open_part(REGISTRY, "llm/causal", str(tmp_path), max_new_tokens=0)
    torch.testing.assert_close(part([TEXT])["logits"], wanted, **CLOSE)
    assert list(CausalConfig.unheeded(part.node.source)) == []


def wholes_of_transformers() -> dict[str, tuple[Any, type]]:
    """The wholes whose class owns the head of the language model inside: config and class by model type."""
    found = {}
    for kind, name in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items():
        made = getattr(hf, name if isinstance(name, str) else name[0])
        keys = getattr(made, "_tied_weights_keys", None) or {}
        if str(keys.get("lm_head.weight", "")).endswith(
            ("model.language_model.embed_tokens.weight", "model.text_model.embed_tokens.weight")
        ):
            found[kind] = (hf.AutoConfig.for_model(kind), made)
    return found


def is_tied_inside(config: Any) -> bool:
    """Whether a whole that denies it is tied because its language model says so."""
    given = {**config.to_dict(), "tie_word_embeddings": False}
    del given["model_type"]
    inside = {**config.get_text_config().to_dict(), "tie_word_embeddings": True}
    return bool(type(config).from_dict({**given, "text_config": inside}).tie_word_embeddings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_tables_are_those_of_transformers():
    """A whole, or a last scale, that is new there fails here."""
    there = wholes_of_transformers()
    assert {
        kind: (config.get_text_config().model_type, bool(getattr(config, "tie_word_embeddings", False)))
        for kind, (config, _) in there.items()
    } == {kind: found for kind, found in WHOLES.items() if kind not in ELSEWHERE}
    assert {kind for kind, (config, _) in there.items() if is_tied_inside(config)} == INSIDE
    assert {kind for kind, (_, made) in there.items() if any(key in inspect.getsource(made.forward) for key in LAST)} == KEEPS - ELSEWHERE
    silent = {}
    for kind in CAUSAL:
        try:
            config = hf.AutoConfig.for_model(kind)
        except Exception:  # noqa: BLE001 a config that cannot be made of its own defaults
            continue
        found = [(key, getattr(config, key)) for key in LAST if getattr(config, key, None) not in (None, LAST[key])]
        silent.update({kind: found[0]} if found else {})
    assert silent == dict(SILENT)


def test_the_classes_are_those_of_transformers():
    assert set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) == CAUSAL
    assert set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES) == CROSSING


# IDEFICS puts its begin token before every prompt by itself


@pytest.mark.parametrize(("begins", "ends"), [(False, False), (True, True)])
def test_prompts_of_idefics_begin_once_and_never_end(tmp_path, begins, ends):
    """As its processor writes them, whatever its tokenizer would put around a text."""
    checkpoints.idefics(tmp_path)
    tokenizer = byte_level(begin="<s>", end="</s>", pad="<pad>", prefix=begins, suffix=ends, extra=("<fake_token_around_image>", "<image>"))
    tokenizer.save_pretrained(tmp_path)
    wanted = hf.IdeficsProcessor.from_pretrained(tmp_path)(text=["cats"], return_tensors="pt").input_ids[0].tolist()
    part = open_part(REGISTRY, "llm/causal", str(tmp_path), max_new_tokens=0)
    assert part.loop.prompts([["cats"]])[0].ids == wanted


# what cannot be built is found by the check

GRAPH = """modelgraft: 1
inputs: {prompt: text}
nodes:
  llm:
    use: %s
    from: ./m
    with: {max_new_tokens: 3}
    in: {prompt: inputs.prompt}
outputs: {text: llm.text}
"""


def checked(folder: Path, config: dict[str, Any], use: str = "llm/causal") -> GraphError:
    """The problems of a graph whose source has this config."""
    (folder / "m").mkdir()
    (folder / "m" / "config.json").write_text(json.dumps(config))
    (folder / "g.yaml").write_text(GRAPH % use)
    with pytest.raises(GraphError) as caught:
        mg.check(mg.load(str(folder / "g.yaml")))
    return caught.value


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mllama_text_model"}, "no language model of the type mllama_text_model (it is a part of mllama, and no model"),
        ({"model_type": "chameleon"}, "no language model of the type chameleon"),
        ({"model_type": "lama"}, "Did you mean 'llama'?"),
    ],
)
def test_a_language_model_that_transformers_has_no_class_for_is_refused(tmp_path, config, message):
    (problem,) = checked(tmp_path, config).problems
    assert message in problem.found
    assert (problem.node, problem.place.line) == ("llm", 6)


@pytest.mark.parametrize(
    ("config", "found", "hint"),
    [
        (
            {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 5},
            "5 attention heads, which do not divide",
            "to one of 1, 2, 4",
        ),
        ({"model_type": "gpt2", "n_embd": 64, "n_head": 5}, "which do not divide its n_embd 64", "set n_head to one of 1, 2, 4"),
        (
            {"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 3},
            "8 attention heads and 3 of keys",
            "look",
        ),
        ({"model_type": "opt", "hidden_size": 64, "num_attention_heads": 5}, "5 attention heads", "set num_attention_heads"),
    ],
)
def test_heads_that_do_not_share_the_width_are_found_by_the_check(tmp_path, config, found, hint):
    (problem,) = checked(tmp_path, config).problems
    assert problem.code == "config-mismatch"
    assert found in problem.found
    assert hint in problem.hint


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen3", "hidden_size": 60, "num_attention_heads": 8, "num_key_value_heads": 4},  # heads of 128 by itself
        {"model_type": "mistral", "hidden_size": 60, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16},
    ],
)
def test_heads_of_their_own_width_need_not_divide(tmp_path, config):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "g.yaml").write_text(GRAPH % "llm/causal")
    mg.check(mg.load(str(tmp_path / "g.yaml")))


def test_an_adapter_is_refused_in_what_its_host_has_become(tmp_path):
    """`llm/causal | llm/seq2seq` with a T5 is the latter, which gated cross-attention has no place in."""
    checkpoints.t5(tmp_path / "m")
    (tmp_path / "g.yaml").write_text(
        """modelgraft: 1
inputs: {prompt: text, media: "float[batch latents 8]"}
nodes:
  llm:
    use: llm/causal | llm/seq2seq
    from: ./m
    in: {prompt: inputs.prompt}
    adapters:
      - {use: adapter/gated_cross_attention, in: {media: inputs.media}}
outputs: {text: llm.text}
"""
    )
    with pytest.raises(GraphError) as caught:
        mg.check(mg.load(str(tmp_path / "g.yaml")))
    problem = next(problem for problem in caught.value.problems if problem.code == "adapter-misplaced")
    assert "cannot be grafted into llm/seq2seq, which `llm/causal | llm/seq2seq` is with the source ./m" in problem.found
    assert problem.place.line == 9


def test_a_token_that_the_embeddings_lack_is_named(tmp_path):
    """With its text, its id, and the rows that there are."""
    made = checkpoints.llama(tmp_path)
    rows = len(made.processor)
    made.processor.add_tokens(["<new>"])
    made.processor.save_pretrained(tmp_path)
    part = open_part(REGISTRY, "llm/causal", str(tmp_path), max_new_tokens=2)
    assert part(["the bird"])["text"]
    with pytest.raises(InputError, match=rf"writes '<new>' as the id {rows}, and the embeddings of llama have {rows} rows"):
        part(["the <new> bird"])


def test_the_start_of_an_answer_must_be_of_the_vocabulary(tmp_path):
    checkpoints.t5(tmp_path)
    with pytest.raises(ValueError, match="decoder_start_ids has 99999, wanted: 0 to"):
        configured(REGISTRY, "llm/seq2seq", str(tmp_path), decoder_start_ids=(99999,))
