"""Whatever the file of a feature extractor says, and wherever it lies, features are those of transformers' own."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoFeatureExtractor, WhisperFeatureExtractor

from modelgraft import Audio
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import SourceError
from modelgraft_plugins import audio, processor_files
from modelgraft_plugins.audio import IDLE, KEYS, Preprocess
from support.open_part import configured, open_part
from support.sounds import heard, tone

REGISTRY = assemble({"audio": audio})
SMALL = {"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 1, "feature_size": 40}


def folder(path: Path, **files: Any) -> Path:
    for name, content in {"config": {"model_type": "whisper"}, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def assert_equal_to_transformers(path: Path, sound: Audio) -> None:
    extractor = AutoFeatureExtractor.from_pretrained(path)
    wanted = heard(extractor, sound.samples[0], sampling_rate=extractor.sampling_rate, return_tensors="pt").input_features
    assert torch.equal(open_part(REGISTRY, "audio/preprocess", str(path))([sound]), wanted)


@pytest.mark.parametrize(
    "written",
    [{}, {"hop_length": 80}, {"n_fft": 512}, {"sampling_rate": 32_000}, {"padding_value": 0.25}, {"n_samples": 3, "nb_max_frames": 2}],
    ids=str,
)
def test_features_are_those_of_transformers(tmp_path: Path, written: dict[str, Any]):
    path = folder(tmp_path, preprocessor_config={**SMALL, **written})
    assert_equal_to_transformers(path, tone(0.3, rate=written.get("sampling_rate", 16_000)))


def test_a_file_that_is_silent_means_what_the_class_does(tmp_path: Path):
    """Also about which class it is, where the model tells that."""
    assert_equal_to_transformers(folder(tmp_path, preprocessor_config={}), tone(0.3))


def test_the_feature_extractor_of_a_processor_goes_over_the_older_file(tmp_path: Path):
    """A folder that transformers 5 saved over an older one has both files."""
    path = folder(tmp_path, preprocessor_config=SMALL, processor_config={"feature_extractor": {**SMALL, "feature_size": 24}})
    assert_equal_to_transformers(path, tone(0.3))
    assert configured(REGISTRY, "audio/preprocess", str(path)).config.mels == 24


@pytest.mark.parametrize("theirs", sorted(audio.PUBLISHED))
def test_the_defaults_are_those_of_the_class(theirs: str):
    wanted = inspect.signature(WhisperFeatureExtractor).parameters[theirs].default
    assert Preprocess.model_fields[audio.PUBLISHED[theirs]].default == wanted


def test_every_key_of_the_class_is_heeded_idle_or_refused():
    """A new key of the library fails here until it is known what it does."""
    written = WhisperFeatureExtractor(chunk_length=1).to_dict()
    keys = {*inspect.signature(WhisperFeatureExtractor).parameters, *written} - {"kwargs"}
    assert keys <= {*KEYS, *IDLE, *processor_files.BOOKKEEPING}


def test_a_key_that_nothing_knows_is_told(tmp_path: Path):
    source = configured(REGISTRY, "audio/preprocess", str(folder(tmp_path, preprocessor_config={**SMALL, "preemphasis": 0.97}))).source
    assert source is not None
    ((sentence, _),) = Preprocess.unheeded(source)
    assert sentence == f"{tmp_path}/preprocessor_config.json states preemphasis, which audio/preprocess does not read"


@pytest.mark.parametrize("value", [[], {}, "x", -1, True, None, float("nan"), [[1]], 10**30], ids=repr)
@pytest.mark.parametrize("key", sorted(set(KEYS) - {"feature_extractor_type"}))
def test_a_value_of_another_kind_is_refused_by_file_and_key(tmp_path: Path, key: str, value: Any):
    path = folder(tmp_path, preprocessor_config={**SMALL, key: value})
    if processor_files.is_number(value) and key == "padding_value":
        return  # any number will do there
    with pytest.raises((SourceError, ValueError), match=f"{key}|{audio.PUBLISHED.get(key)}"):
        configured(REGISTRY, "audio/preprocess", str(path))


@pytest.mark.parametrize(("key", "value", "said"), [("dither", 0.1, "noise that is added at random"), ("padding_side", "left", "'right'")])
def test_what_is_not_done_is_refused(tmp_path: Path, key: str, value: Any, said: str):
    with pytest.raises(SourceError, match=said):
        configured(REGISTRY, "audio/preprocess", str(folder(tmp_path, preprocessor_config={**SMALL, key: value})))


def test_a_window_that_would_fill_the_memory_is_refused_with_the_check():
    with pytest.raises(ValueError, match="a window of 160,000,000,000 samples, and 100,000,000 are the most"):
        Preprocess(chunk_s=10_000_000)
