"""How the decoder of a Whisper begins: with the language, the task and no times, as transformers begins it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft_plugins import llm
from modelgraft_plugins.families.whisper import CODES
from modelgraft_plugins.llm import Seq2SeqConfig
from support import checkpoints
from support.open_part import configured, open_part
from support.tokenizers import byte_level
from support.untuned import leave_untuned

REGISTRY = assemble({"llm": llm})
MARKS = ("<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|notimestamps|>")
NEW = 5
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Checkpoint:
    """A Whisper that knows three languages."""
    folder = tmp_path_factory.mktemp("whisper")
    tokenizer = byte_level(begin=None, end="<|endoftext|>", extra=MARKS[:-1])
    tokenizer.add_tokens([MARKS[-1]], special_tokens=True)  # what follows it would be times
    number = tokenizer.convert_tokens_to_ids
    config = hf.WhisperConfig(
        vocab_size=len(tokenizer), d_model=24, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=3,
        encoder_ffn_dim=40, decoder_ffn_dim=37, num_mel_bins=8, max_source_positions=20, max_target_positions=30, pad_token_id=0,
        bos_token_id=0, eos_token_id=0, decoder_start_token_id=number(MARKS[0]),
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config)
    checkpoints.randomise(model, seed=20)
    given = {
        "no_timestamps_token_id": number("<|notimestamps|>"), "suppress_tokens": [5], "begin_suppress_tokens": [0], "is_multilingual": True,
        "return_timestamps": False, "max_length": 30, "_from_model_config": False, "prev_sot_token_id": number("<|startofprev|>"),
        "lang_to_id": {f"<|{code}|>": number(f"<|{code}|>") for code in ("en", "de", "fr")},
        "task_to_id": {task: number(f"<|{task}|>") for task in ("translate", "transcribe")},
    }  # fmt: skip
    for name, value in given.items():
        setattr(model.generation_config, name, value)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return checkpoints.Checkpoint(folder, model, tokenizer)


def features() -> torch.Tensor:
    """Sounds in which the model hears different languages."""
    return 3 * torch.randn(4, 8, 40, generator=torch.Generator().manual_seed(5))


def stating(whisper: checkpoints.Checkpoint, folder: Path, **settings: Any) -> Path:
    """A copy whose generation_config.json states these."""
    shutil.copytree(whisper.folder, folder)
    config = folder / "generation_config.json"
    stated = {**json.loads(config.read_text()), **settings}
    config.write_text(json.dumps(stated))
    return folder


def theirs(folder: Path, tokenizer: Any, **asked: Any) -> list[str]:
    """What transformers writes."""
    model = hf.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    written = model.generate(features(), max_new_tokens=NEW, **asked)
    return tokenizer.batch_decode(written, skip_special_tokens=True)


def ours(folder: Path, whisper: checkpoints.Checkpoint, **config: Any) -> list[str]:
    """What the component writes of the same sounds."""
    with torch.no_grad():
        memory = whisper.model.model.encoder(features()).last_hidden_state
    return open_part(REGISTRY, "llm/seq2seq", str(folder), max_new_tokens=NEW, **config)(memory)["text"]


def test_the_sounds_are_heard_in_several_languages(whisper):
    """Otherwise the tests below prove little."""
    assert len(set(whisper.model.detect_language(features()).tolist())) > 1


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"forced_decoder_ids": [[1, None], [2, "<|transcribe|>"]]},
        {"forced_decoder_ids": [[1, "<|de|>"], [2, "<|translate|>"]]},
        {"language": "german"},
        {"language": "<|fr|>", "task": "translate"},
        {"task": "translate"},
        {"num_beams": 2},
        {"no_repeat_ngram_size": 1, "repetition_penalty": 1.4},
    ],
)
def test_a_source_that_knows_languages_begins_as_in_transformers(whisper, tmp_path, stated):
    """What is stated counts; where nothing is, the language is heard, for each sound by itself."""
    if "forced_decoder_ids" in stated:
        number = whisper.processor.convert_tokens_to_ids
        stated = {"forced_decoder_ids": [[place, token and number(token)] for place, token in stated["forced_decoder_ids"]]}
    folder = stating(whisper, tmp_path / "m", **stated)
    assert ours(folder, whisper) == theirs(folder, whisper.processor)


@pytest.mark.parametrize("asked", [{"language": "de"}, {"language": "French", "task": "translate"}, {"task": "translate"}])
def test_the_graph_goes_over_the_source(whisper, tmp_path, asked):
    number = whisper.processor.convert_tokens_to_ids
    folder = stating(whisper, tmp_path / "m", forced_decoder_ids=[[1, None], [2, number("<|transcribe|>")]])
    assert ours(folder, whisper, **asked) == theirs(folder, whisper.processor, **asked)


def test_a_language_that_the_source_does_not_know_is_refused_with_those_it_knows(whisper):
    with pytest.raises(ValueError, match=r"'xx' is none of those that the source knows .*: de, en, fr"):
        configured(REGISTRY, "llm/seq2seq", str(whisper.folder), language="xx")


def test_writing_times_is_told(whisper, tmp_path):
    view = configured(REGISTRY, "llm/seq2seq", str(stating(whisper, tmp_path / "m", return_timestamps=True))).source
    assert "return_timestamps: true" in " ".join(sentence for sentence, *_ in Seq2SeqConfig.unheeded(view))
    assert list(Seq2SeqConfig.unheeded(configured(REGISTRY, "llm/seq2seq", str(whisper.folder)).source)) == []


def test_names_of_languages_are_those_of_transformers():
    assert dict(CODES) == TO_LANGUAGE_CODE


GRAPH = """modelgraft: 1
inputs: {memory: "float[batch 20 24]"}
nodes:
  words: {use: llm/seq2seq, from: ./m, with: {max_new_tokens: 5}, in: {memory: inputs.memory}}
outputs: {text: words.text}
"""


@pytest.mark.whole("tests/plugins/test_llm_onnx.py::test_an_encoder_decoder_keeps_the_keys_of_its_memory")
@pytest.mark.slow
def test_the_onnx_backend_hears_the_same(whisper, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    leave_untuned(monkeypatch)
    folder = stating(whisper, tmp_path / "m")
    (tmp_path / "graph.yaml").write_text(GRAPH)
    with torch.no_grad():
        memory = whisper.model.model.encoder(features()).last_hidden_state
    with mg.open(mg.load(str(tmp_path / "graph.yaml")), backend="onnx") as pipeline:
        assert pipeline.run(memory=memory)["text"] == theirs(folder, whisper.processor)
