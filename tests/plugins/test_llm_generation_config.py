"""What a generation_config.json states is obeyed as transformers does, or told; what the graph says goes over it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError
from modelgraft_plugins import llm
from modelgraft_plugins.llm import Seq2SeqConfig
from modelgraft_plugins.llm.writing import TABLE
from support import checkpoints
from support.open_part import configured, open_part
from support.untuned import leave_untuned

REGISTRY = assemble({"llm": llm})
TEXTS = ["a photo of", "Question: how many cats are there? Answer: one or two", "x"]
NEW = 14
pytestmark = pytest.mark.filterwarnings("ignore:Unfeasible length constraints:UserWarning", "ignore:Using the model-agnostic default")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Checkpoint:
    """A tiny LLaMA."""
    return checkpoints.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Checkpoint:
    """A tiny T5."""
    return checkpoints.t5(tmp_path_factory.mktemp("t5"))


def stating(made: checkpoints.Checkpoint, folder: Path, **settings: Any) -> Path:
    """A copy of a checkpoint whose generation_config.json states these."""
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return folder


def tokens(made: checkpoints.Checkpoint, text: str = TEXTS[1]) -> list[int]:
    """What the model writes when nothing is stated."""
    ids = made.processor(text, return_tensors="pt", return_token_type_ids=False)
    written = made.model.generate(**ids, max_new_tokens=NEW, do_sample=False)[0].tolist()
    return written[1:] if made.model.config.is_encoder_decoder else written[ids["input_ids"].shape[1] :]


def theirs(made: checkpoints.Checkpoint, folder: Path, **asked: Any) -> list[str]:
    """What transformers writes with the stated settings, one prompt at a time."""
    kind = hf.AutoModelForSeq2SeqLM if made.model.config.is_encoder_decoder else hf.AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for text in TEXTS:
        ids = made.processor(text, return_tensors="pt", return_token_type_ids=False)
        start = 0 if made.model.config.is_encoder_decoder else ids["input_ids"].shape[1]
        answers.append(made.processor.decode(model.generate(**ids, **asked)[0, start:], skip_special_tokens=True))
    return answers


def ours(folder: Path, component: str = "llm/causal", **config: Any) -> list[str]:
    """What the component writes, all prompts in one batch."""
    return open_part(REGISTRY, component, str(folder), **config)(TEXTS)["text"]


def states(made: checkpoints.Checkpoint) -> dict[str, dict[str, Any]]:
    """Settings under which the model writes something else than without them."""
    usual = tokens(made)
    return {
        "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
        "no_repeat_unigram": {"no_repeat_ngram_size": 1},
        "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
        "encoder_repetition_penalty": {"encoder_repetition_penalty": 3.0},
        "bad_words_ids": {"bad_words_ids": [[usual[0]], [usual[2], usual[3]]]},
        "sequence_bias": {"sequence_bias": [[[usual[0]], -50.0], [[usual[1], usual[2]], -9.5]]},
        "sequence_bias twice": {"sequence_bias": [[usual[:2], -70.0], [[usual[2]], -50.0], [usual[:2], 4.0], [[usual[2]], -1.0]]},
        "min_length": {"min_length": 30, "eos_token_id": [made.model.config.eos_token_id, *usual[:3]]},
        "min_new_tokens": {"min_new_tokens": 5, "eos_token_id": [made.model.config.eos_token_id, *usual[:3]]},
        "forced_bos_token_id": {"forced_bos_token_id": usual[5]},
        "forced_eos_token_id": {"forced_eos_token_id": usual[4]},
        "forced_ends": {"forced_eos_token_id": [usual[4]]},
        "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [3, 1.9]},
        "begin_suppress_tokens": {"begin_suppress_tokens": usual[:1], "forced_bos_token_id": usual[1]},
        "all together": {"no_repeat_ngram_size": 3, "bad_words_ids": [usual[:2]], "repetition_penalty": 1.3, "suppress_tokens": usual[3:4]},
    }


NAMES = [
    "no_repeat_ngram_size", "no_repeat_unigram", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "bad_words_ids",
    "sequence_bias", "sequence_bias twice", "min_length", "min_new_tokens", "forced_bos_token_id", "forced_eos_token_id", "forced_ends",
    "exponential_decay_length_penalty", "begin_suppress_tokens", "all together",
]  # fmt: skip
SEARCHED = (
    "no_repeat_ngram_size",
    "sequence_bias",
    "min_length",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "all together",
)


@pytest.mark.parametrize(("name", "beams"), [*((name, 1) for name in NAMES), *((name, 3) for name in SEARCHED)])
def test_a_decoder_obeys_what_is_stated(llama, tmp_path, name, beams):
    """Greedy, and with beams and what they leave over made a distribution again."""
    folder = stating(llama, tmp_path / "m", **states(llama)[name], num_beams=beams, renormalize_logits=beams > 1)
    assert ours(folder, max_new_tokens=NEW) == theirs(llama, folder, max_new_tokens=NEW)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_decoder_obeys_what_is_stated(t5, tmp_path, name):
    """Lengths count the tokens that its decoder begins with, and what was read are those of its encoder."""
    folder = stating(t5, tmp_path / "m", **states(t5)[name], num_beams=2)
    assert ours(folder, "llm/seq2seq", max_new_tokens=NEW) == theirs(t5, folder, max_new_tokens=NEW)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_stated_length_counts_the_prompt_and_the_graph_goes_over_it(llama, tmp_path, beams):
    """max_length without max_new_tokens; each row by its own prompt."""
    folder = stating(llama, tmp_path / "m", max_length=39, num_beams=beams)
    assert ours(folder) == theirs(llama, folder)
    assert ours(folder, max_new_tokens=3) == theirs(llama, folder, max_new_tokens=3)


GRAPH = """modelgraft: 1
inputs: {prompt: text}
nodes:
  llm: {use: llm/causal, from: ./m, with: {max_new_tokens: 14}, in: {prompt: inputs.prompt}}
outputs: {text: llm.text}
"""


@pytest.mark.whole(
    "tests/plugins/test_llm_generation_config.py::test_a_decoder_obeys_what_is_stated",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_onnx_backend_obeys_and_tells_the_same(llama, tmp_path, monkeypatch):
    """One loop serves both; what is not done is a warning of the run, with the line that names the source."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    leave_untuned(monkeypatch)
    folder = stating(llama, tmp_path / "m", **states(llama)["all together"], guidance_scale=1.5)
    (tmp_path / "graph.yaml").write_text(GRAPH)
    with mg.open(tmp_path / "graph.yaml", backend="onnx") as pipeline:
        result = pipeline.run(prompt=TEXTS)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "guidance_scale"}))
    assert result["text"] == theirs(llama, folder, max_new_tokens=NEW)
    assert any("states guidance_scale: 1.5, which is not done here" in text and "graph.yaml:4" in text for text in result.warnings)


def test_a_prompt_that_leaves_no_room_under_the_stated_length_is_told(llama, tmp_path):
    folder = stating(llama, tmp_path / "m", max_length=5)
    with pytest.raises(InputError, match="max_length allows 5 with the answer: shorten it, or set max_new_tokens"):
        ours(folder)


def test_former_settings_in_a_config_count_where_there_is_no_generation_config(llama, tmp_path):
    """As in transformers: the config's own words, without a generation_config.json."""
    folder = stating(llama, tmp_path / "m")
    (folder / "generation_config.json").unlink()
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "no_repeat_ngram_size": 2, "num_beams": 2, "max_length": 20}))
    assert ours(folder, max_new_tokens=NEW) == theirs(llama, folder, max_new_tokens=NEW)
    assert configured(REGISTRY, "llm/causal", str(folder)).config.max_length is None  # 20 stood in every config, whoever wrote it


def test_settings_of_drawing_count_only_where_it_draws(llama, tmp_path):
    stated = {"temperature": 0.6, "top_k": 7, "min_p": 0.1, "typical_p": 0.9, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02, "top_h": 0.4}
    still = configured(REGISTRY, "llm/causal", str(stating(llama, tmp_path / "still", **stated))).config
    drawn = configured(REGISTRY, "llm/causal", str(stating(llama, tmp_path / "drawn", **stated, do_sample=True))).config
    assert {name: getattr(drawn, name) for name in stated} == stated
    assert not still.settings().draws


def remarks(folder: Path, config: type = REGISTRY.components["llm/causal"].config) -> list[str]:
    """What is told of a source."""
    view = configured(REGISTRY, "llm/seq2seq" if config is Seq2SeqConfig else "llm/causal", str(folder)).source
    return [sentence for sentence, *_ in config.unheeded(view)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("guidance_scale", 1.5), ("num_beam_groups", 2), ("diversity_penalty", 0.5), ("penalty_alpha", 0.6), ("token_healing", True),
        ("watermarking_config", {"bias": 2.5}), ("max_time", 3.0), ("num_return_sequences", 2), ("cache_implementation", "quantized"),
        ("stop_strings", ["x"]), ("dola_layers", "high"), ("force_words_ids", [[3]]), ("temper", "hot"),
    ],
)  # fmt: skip
def test_what_the_loop_does_not_do_is_told_by_name(llama, tmp_path, key, value):
    (sentence,) = remarks(stating(llama, tmp_path / "m", **{key: value}))
    assert key in sentence


@pytest.mark.parametrize("key", ["eos_token_id", "suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id"])
@pytest.mark.parametrize("value", ["2", [2, "</s>"], [[2]], True, 2.0], ids=str)
def test_what_is_no_token_where_one_is_wanted_is_refused(llama, tmp_path, key, value):
    """It would otherwise be left out, and an answer end elsewhere."""
    folder = stating(llama, tmp_path / "m", **{key: value})
    with pytest.raises(ValueError, match=f"it states {key}: .* is none"):
        ours(folder)


def test_drawing_at_temperature_0_takes_the_likeliest_and_is_told(llama, tmp_path):
    """transformers refuses it; another temperature than the stated one would be silent."""
    folder = stating(llama, tmp_path / "m", do_sample=True, temperature=0.0)
    assert ours(folder, max_new_tokens=NEW) == theirs(llama, llama.folder, max_new_tokens=NEW)
    assert "draws tokens (do_sample) at temperature 0, which takes the likeliest instead" in remarks(folder)[0]


def test_drawing_within_beams_is_told(llama, tmp_path):
    (sentence,) = remarks(stating(llama, tmp_path / "m", do_sample=True, num_beams=3))
    assert "draws within 3 beams" in sentence


def test_nothing_is_told_of_what_changes_nothing(llama, tmp_path):
    quiet = {
        "use_cache": False,
        "num_beam_groups": 1,
        "guidance_scale": 1,
        "diversity_penalty": 0.0,
        "output_scores": True,
        "max_time": None,
    }
    assert remarks(stating(llama, tmp_path / "m", **quiet)) == []


def test_every_key_of_transformers_is_in_the_table():
    """A key that is new in GenerationConfig fails here: obey it, or say why it changes nothing, or let it be told."""
    assert set(vars(hf.GenerationConfig())) - TABLE.known == set()
    assert set(hf.GenerationConfig().to_dict()) - TABLE.known == set()
