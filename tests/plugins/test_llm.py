"""llm/causal against transformers' own `generate` on the same weights: logits, tokens, beams, penalties, batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from modelgraft.engine.run import NodeRuntime
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import Cancelled, InputError, SourceError
from modelgraft.loops.loop import generate
from modelgraft_plugins import llm
from modelgraft_plugins.llm.decoders import CausalDecoder
from support import checkpoints
from support.open_part import Part, open_part

REGISTRY = assemble({"llm": llm})
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32 logits of models whose activations are about 1
TEXTS = ["a photo of", "Question: how many cats are there? Answer: one or two or three, I do not know", "x"]
NAMES = ("opt", "llama", "smollm", "qwen2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoints.Checkpoint]:
    """A tiny checkpoint of each name."""
    root = tmp_path_factory.mktemp("language")
    return {name: getattr(checkpoints, name)(root / name) for name in NAMES}


def opened(checkpoint: checkpoints.Checkpoint, **config: Any) -> Part:
    """The component on a checkpoint, twelve tokens long unless said otherwise."""
    return open_part(REGISTRY, "llm/causal", str(checkpoint.folder), **{"max_new_tokens": 12, **config})


def reference(checkpoint: checkpoints.Checkpoint, texts: list[str], **settings: Any) -> list[str]:
    """What transformers writes, one prompt at a time."""
    answers = []
    for text in texts:
        ids = checkpoint.processor(text, return_tensors="pt", return_token_type_ids=False)
        written = checkpoint.model.generate(**ids, **{"max_new_tokens": 12, "do_sample": False, **settings})
        answers.append(checkpoint.processor.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers


def some_ends(checkpoint: checkpoints.Checkpoint) -> list[int]:
    """Tokens that the model does write, so that making them end tokens cuts its answers at different places."""
    ids = checkpoint.processor(TEXTS[1], return_tensors="pt").input_ids
    written = checkpoint.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    return [int(written[4]), int(written[9])]


@pytest.mark.parametrize("name", NAMES)
def test_first_logits_and_greedy_tokens_are_those_of_transformers(folders, name):
    """A batch of unequal prompts, against one prompt at a time."""
    checkpoint = folders[name]
    result = opened(checkpoint)(TEXTS)
    with torch.no_grad():
        rows = [checkpoint.model(checkpoint.processor(text, return_tensors="pt").input_ids).logits[:, -1] for text in TEXTS]
    torch.testing.assert_close(result["logits"], torch.cat(rows), **CLOSE)
    assert result["text"] == reference(checkpoint, TEXTS)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"beams": 3}, {"num_beams": 3}),
        ({"beams": 4, "length_penalty": -0.7}, {"num_beams": 4, "length_penalty": -0.7}),
        ({"beams": 2, "early_stopping": True}, {"num_beams": 2, "early_stopping": True}),
        (
            {"beams": 3, "early_stopping": "never", "length_penalty": 2.0},
            {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0},
        ),
        ({"beams": 3, "repetition_penalty": 1.6}, {"num_beams": 3, "repetition_penalty": 1.6}),
        ({"repetition_penalty": 1.6}, {"repetition_penalty": 1.6}),
        ({"min_new_tokens": 7}, {"min_new_tokens": 7}),
        ({"suppress_tokens": (70, 80, 90)}, {"suppress_tokens": [70, 80, 90]}),
    ],
)
def test_every_way_of_choosing_is_that_of_transformers(folders, ours, theirs):
    """Beams with their penalties and stopping rules, repetition, shortest answers; end tokens that do occur."""
    for name in ("opt", "smollm"):
        ends = some_ends(folders[name])
        given = opened(folders[name], end_ids=tuple(ends), **ours)(TEXTS)["text"]
        assert given == reference(folders[name], TEXTS, eos_token_id=ends, **theirs)


FAMILIES = {
    "opt": {"ffn_dim": 37, "word_embed_proj_dim": 20, "do_layer_norm_before": False},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 6},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 10},
    "gemma": {"num_key_value_heads": 1, "head_dim": 10},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 10, "sliding_window": 6},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": {},
    "phi": {"num_key_value_heads": 2},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "falcon": {"alibi": True},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 4},
}


def family(folder: Path, kind: str) -> checkpoints.Checkpoint:
    """A tiny checkpoint of any family."""
    tokenizer = checkpoints.llama_tokenizer()
    config = {
        "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    model = hf.AutoModelForCausalLM.from_config(hf.AutoConfig.for_model(kind, **{**config, **FAMILIES[kind]}))
    checkpoints.randomise(model, seed=5)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return checkpoints.Checkpoint(folder, model, tokenizer)


@pytest.mark.parametrize("kind", FAMILIES)
def test_other_families_write_the_same(kind, tmp_path):
    """Sliding windows, ALiBi, projections around the embeddings, learned and rotary positions; alone and in a padded batch."""
    checkpoint = family(tmp_path, kind)
    part = opened(checkpoint)
    wanted = reference(checkpoint, TEXTS)
    assert part(TEXTS)["text"] == wanted
    assert [part([text])["text"][0] for text in TEXTS] == wanted


@pytest.mark.parametrize("settings", [{"temperature": 0.9}, {"temperature": 1.3, "top_k": 9, "top_p": 0.8}])
def test_samples_repeat_under_a_seed_whatever_else_is_in_the_batch(folders, settings):
    """The same seed gives the same texts, another one others; a record alone gives what it gives in a batch."""
    part = opened(folders["llama"], **settings)

    def sample(texts, seed):
        part.loop.bind(NodeRuntime("llm", seed=seed))
        return part(texts)["text"]

    first = sample(TEXTS, 3)
    assert sample(TEXTS, 3) == first
    assert [sample([text], 3)[0] for text in TEXTS] == first
    assert sample(TEXTS, 4) != first


def test_an_answer_ends_before_a_stop_string(folders):
    """The stop string is taken from what the model writes without one."""
    whole = opened(folders["smollm"])([TEXTS[0]])["text"][0]
    cut = whole[3:6]
    assert opened(folders["smollm"], stop=(cut,))([TEXTS[0]])["text"] == [whole[: whole.index(cut)]]


@pytest.mark.parametrize("strips", [False, True])
def test_streamed_pieces_join_to_the_text(folders, strips):
    """One event per piece, with the record that it belongs to; white space at the beginning is left out of both where that is asked."""
    tokenizer = folders["smollm"].processor
    others = tuple({*range(len(tokenizer))} - {tokenizer.convert_tokens_to_ids("\u0120")})  # all answers begin with a space
    begun = {"begin_suppress_tokens": others}
    part, pieces = opened(folders["smollm"], **begun, strip_start=strips), ["", "", ""]

    def emit(kind, *, text, record):
        assert kind == "token"
        pieces[record] += text

    part.loop.bind(NodeRuntime("llm", emit=emit))
    assert part(TEXTS)["text"] == pieces
    whole = opened(folders["smollm"], **begun)(TEXTS)["text"]
    assert all(text.startswith(" ") for text in whole)
    assert pieces == [text.lstrip() if strips else text for text in whole]


def test_what_nobody_hears_is_put_into_words_once(folders, monkeypatch):
    """Tokens become text as they come where somebody listens, and otherwise first when the answer is whole: with the same text."""
    part, asked = opened(folders["smollm"]), []
    decode = part.loop.tokenizer.decode
    monkeypatch.setattr(part.loop.tokenizer, "decode", lambda ids: asked.append(len(ids)) or decode(ids))
    part.loop.bind(NodeRuntime("llm"))
    alone = part(TEXTS[:1])["text"]
    assert asked[0] == 12
    asked.clear()
    part.loop.bind(NodeRuntime("llm", emit=lambda *_, **__: None))
    assert part(TEXTS[:1])["text"] == alone
    assert 12 in asked[12:]


def test_a_cancelled_run_stops(folders):
    """Cancelling between two tokens raises Cancelled with the node's name."""
    part = opened(folders["llama"], max_new_tokens=100)
    runtime = NodeRuntime("sentence", emit=lambda *_, **__: runtime.cancelled.set())
    part.loop.bind(runtime)
    with pytest.raises(Cancelled, match="sentence was stopped"):
        part([TEXTS[0]])


def test_a_batch_of_equal_lengths_needs_no_mask(folders):
    """Attention then runs its causal kernel, and its memory is laid out once."""
    model = opened(folders["llama"]).module.model
    prompts = list(torch.randn(2, 5, 28, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        session = CausalDecoder(model).start(prompts, room=7)
        memory = session.cache.layers[0].all_keys
        session.step(torch.tensor([4, 5]))
    assert session.mask is None
    assert session.cache.layers[0].all_keys is memory
    assert memory.shape[2] == 5 + 7


def test_generation_defaults_come_from_the_source(folders, tmp_path):
    """generation_config.json is obeyed; what the graph says goes before it."""
    checkpoint = folders["llama"]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(checkpoint.folder / name)
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [2, 5], "repetition_penalty": 1.1, "max_new_tokens": 9}'
    )
    config = open_part(REGISTRY, "llm/causal", str(tmp_path), max_new_tokens=4).node.config
    assert (config.temperature, config.top_p, config.top_k, config.end_ids) == (0.6, 0.9, 50, (2, 5))  # 50: what transformers assumes
    assert (config.repetition_penalty, config.max_new_tokens) == (1.1, 4)


def test_untied_weights_of_a_tied_config_stay_apart(folders, tmp_path):
    """A file that holds both tables keeps both, as in from_pretrained; one that holds one gets it twice."""
    checkpoint = folders["smollm"]
    tied = opened(checkpoint).module.model
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    from safetensors.torch import load_file, save_file

    state = load_file(checkpoint.folder / "model.safetensors")
    assert "lm_head.weight" not in state
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(checkpoint.folder / name)
    save_file({**state, "lm_head.weight": state["model.embed_tokens.weight"] * 2}, tmp_path / "model.safetensors")
    model = open_part(REGISTRY, "llm/causal", str(tmp_path)).module.model
    torch.testing.assert_close(model.lm_head.weight, model.model.embed_tokens.weight * 2)


# -- what does not fit ------------------------------------------------------------------------------------------------


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(folders):
    """96 positions of the tiny OPT; nothing runs."""
    part = opened(folders["opt"], max_new_tokens=90)
    with pytest.raises(InputError, match=r"the prompt has \d+ tokens and max_new_tokens is 90, together \d+; opt has 96 positions"):
        part(["a photo of a cat and a dog"])


@pytest.mark.parametrize(
    ("letters", "way_out"), [(40, r"shorten the prompt, or set max_new_tokens to at most \d+$"), (400, r"shorten the prompt$")]
)
def test_the_way_out_of_a_long_prompt_is_one(folders, letters, way_out):
    """A prompt that alone is too long does not fit with fewer new tokens either."""
    part = opened(folders["opt"], max_new_tokens=90)
    with pytest.raises(InputError, match=way_out):
        part(["z" * letters])


def test_a_source_without_tokenizer_is_named(folders, tmp_path):
    """The error says which files would do."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(folders["llama"].folder / name)
    part = open_part(REGISTRY, "llm/causal", str(tmp_path))
    with pytest.raises(SourceError, match=r"needs the tokenizer of .*has none of tokenizer\.json, tokenizer\.model"):
        part(["x"])


def test_a_tokenizer_that_cannot_be_read_is_named(folders, tmp_path):
    """Also where the package tokenizers raises a plain Exception: a merge of a token that the vocabulary lacks."""
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(folders["llama"].folder / name)
    facts = json.loads((folders["llama"].folder / "tokenizer.json").read_text())
    facts["model"]["merges"].append(["no such", "token"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts))
    part = open_part(REGISTRY, "llm/causal", str(tmp_path))
    with pytest.raises(SourceError, match=r"needs the tokenizer of .*: its tokenizer files cannot be read: "):
        part(["x"])


def test_an_empty_prompt_needs_a_begin_token(folders):
    """LLaMA's tokenizer puts one before every text, Qwen2's does not."""
    assert opened(folders["llama"])([""])["text"] == reference(folders["llama"], [""])
    with pytest.raises(InputError, match="the prompt is empty, and the tokenizer puts no begin token before a text"):
        opened(folders["qwen2"])([""])


def test_missing_and_left_over_tensors_are_named(folders, tmp_path):
    """By their own names."""
    from safetensors.torch import load_file, save_file

    state = load_file(folders["llama"].folder / "model.safetensors")
    del state["model.norm.weight"]
    state["model.gate.weight"] = torch.zeros(2)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(folders["llama"].folder / name)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(SourceError, match=r"1 missing: model\.model\.norm\.weight; 1 left over: model\.model\.gate\.weight"):
        open_part(REGISTRY, "llm/causal", str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prompt": "a {b"}, r"the prompt has a lone '\{' in 'a \{b'"),
        ({"prompt": "{image:3} {image:4}"}, r"the field \{image\} two sizes: 3 and 4 tokens"),
        ({"beams": 2, "temperature": 0.5}, "choose one"),
        ({"stop": ("",)}, "an empty string would end every answer"),
        (
            {"hidden_size": 64, "model": {"model_type": "llama", "hidden_size": 32}},
            "hidden_size is 64, but the model of this source is 32 wide",
        ),
        (
            {"model_type": "opt", "vocab_size": 9, "suppress_tokens": (3, 9)},
            "suppress_tokens has 9, wanted: 0 to 8, the ids of the vocabulary",
        ),
        ({"begin_suppress_tokens": (-1,)}, "begin_suppress_tokens has -1, wanted: 0 or more"),
        ({"end_ids": (-2,)}, "end_ids has -2, wanted: 0 or more"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(config, message):
    """At the check, before anything loads."""
    with pytest.raises(ValueError, match=message):
        llm.CausalConfig(**config)


def test_the_loop_takes_any_decoder(folders):
    """What the ONNX backend relies on: prompts as rows of any length, and no module around them."""
    model = opened(folders["llama"]).module.model
    embedded = [model.get_input_embeddings()(torch.tensor([2, 9, 17, 30][:count])).detach() for count in (4, 2)]
    settings = opened(folders["llama"]).node.config.settings()
    with torch.no_grad():
        together = generate(CausalDecoder(model), embedded, settings, decode=str)
        alone = [generate(CausalDecoder(model), [prompt], settings, decode=str) for prompt in embedded]
    assert together.ids == [answers.ids[0] for answers in alone]
