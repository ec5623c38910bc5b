"""What language models hear with, against transformers: windows of features, encoders, and what stands between them and the words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector

from modelgraft import Audio, InputError
from modelgraft.engine.run import NodeRuntime
from modelgraft.sources.families import families
from modelgraft.testing import conform, open_node
from modelgraft_plugins.audio import Encoder, Windows
from modelgraft_plugins.families import voxtral
from modelgraft_plugins.projectors import NormedPool, Stack
from support.checkpoints import randomise
from support.installed import registry
from support.open_part import configured, counts, open_part
from support.sounds import heard, tone

REGISTRY = registry()
SMALL = {"mels": 40, "chunk_s": 2, "hop_length": 80}
EXTRACTOR = {"feature_size": 40, "chunk_length": 2, "hop_length": 80}


def cut(config: dict[str, Any], records: list[Any]) -> tuple[dict[str, Any], list[str]]:
    """The windows of a batch, and the warnings."""
    trial, said = open_node(Windows, config), list[str]()
    trial.loaded.bind(NodeRuntime("ear", "audio/windows", emit=lambda kind, **facts: said.append(facts["text"])))
    return trial(records), said


def test_windows_and_masks_are_those_of_transformers():
    """Of any number of sounds of a record, one window for each, and which frames are made of sound."""
    records = [[tone(0.7), tone(1.3, hertz=97.0)], [], [tone(2.0)]]
    found, said = cut(SMALL, [*records[:2], records[2][0]])  # one alone need be no list
    theirs = hf.WhisperFeatureExtractor(**EXTRACTOR)
    for record, features, mask in zip(records, found["features"], found["mask"], strict=True):
        for sound, one, there in zip(record, features, mask, strict=True):
            wanted = heard(theirs, sound.samples[0], sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
            torch.testing.assert_close(one, wanted.input_features[0], rtol=0, atol=0)
            assert torch.equal(there, wanted.attention_mask[0].bool())
    assert found["counts"].tolist() == [[1, 1], [0, 0], [1, 0]]
    assert not said


def test_a_long_sound_in_windows_has_the_features_of_the_whole():
    """As the processor of Voxtral makes them: filled up to whole windows, then cut."""
    sound = tone(5.1, hertz=97.0)
    found, _ = cut({**SMALL, "longer": "split"}, [[sound, tone(1.0)]])
    theirs = hf.WhisperFeatureExtractor(**EXTRACTOR)
    told = {"sampling_rate": 16_000, "padding": True, "truncation": False, "pad_to_multiple_of": 32_000, "return_tensors": "pt"}
    whole = heard(theirs, sound.samples[0], **told)
    wanted = whole.input_features.reshape(40, -1, 400).transpose(0, 1)
    torch.testing.assert_close(torch.stack(found["features"][0][:3]), wanted, rtol=0, atol=0)
    assert found["counts"].tolist() == [[3, 1]]
    apart, _ = cut(SMALL, [[Audio(sound.samples[:, :32_000], 16_000)]])
    assert (apart["features"][0][0] - found["features"][0][0]).abs().max() > 1e-3  # what follows is heard in it


def test_a_sound_that_is_longer_is_refused_or_cut_and_it_is_said():
    with pytest.raises(InputError, match=r"the sound lasts 3\.5 s and 2 s are heard at once; cut it into pieces, set `longer: cut`"):
        cut(SMALL, [[tone(3.5)]])
    found, said = cut({**SMALL, "longer": "cut"}, [[tone(3.5)]])
    wanted, _ = cut(SMALL, [[Audio(tone(3.5).samples[:, :32_000], 16_000)]])
    assert torch.equal(found["features"][0][0], wanted["features"][0][0])
    assert said == ["the sound lasts 3.5 s; only the first 2 s are heard"]


def test_sounds_that_cannot_be_heard_are_refused():
    with pytest.raises(InputError, match="audio/windows: the sound is empty: it holds no samples"):
        cut(SMALL, [[tone(1.0), Audio(np.zeros((1, 0), np.float32), 16_000)]])


QWEN = {
    "d_model": 12,
    "encoder_ffn_dim": 22,
    "encoder_layers": 3,
    "encoder_attention_heads": 3,
    "num_mel_bins": 7,
    "max_source_positions": 22,
}
VOXTRAL = {
    "hidden_size": 12, "intermediate_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "num_mel_bins": 7,
    "max_source_positions": 22,
}  # fmt: skip


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    return saved(hf.Qwen2AudioEncoder(hf.Qwen2AudioEncoderConfig(**QWEN)), tmp_path_factory)


def saved(model: Any, factory: pytest.TempPathFactory) -> tuple[Any, str]:
    folder = factory.mktemp("ear")
    randomise(model, seed=3)
    model.eval().save_pretrained(folder)
    return model, str(folder)


def test_the_ear_of_qwen2_audio_looks_at_sound_alone(qwen: tuple[Any, str]):
    """Windows that are filled up to unlike lengths, odd and even: vectors that are made of sound, and how many there are."""
    model, folder = qwen
    part = open_part(REGISTRY, "audio/encoder", folder)
    features, lengths = torch.randn(5, 7, 44, generator=torch.Generator().manual_seed(1)), torch.tensor([44, 31, 6, 3, 1])
    found = part(features, torch.arange(44) < lengths[:, None])
    places, vectors = model._get_feat_extract_output_lengths(lengths)
    with torch.no_grad():
        mask = (torch.arange(22) < places[:, None])[:, None, None].expand(-1, 1, 22, -1)
        wanted = model(features, attention_mask=mask).last_hidden_state
    assert found["frame_mask"].sum(1).tolist() == vectors.tolist() == [11, 8, 1, 1, 0]
    there = found["frame_mask"]
    torch.testing.assert_close(found["tokens"][there], wanted[there], rtol=0, atol=1e-5)
    heard = part(features, None)
    assert heard["frame_mask"].all()
    assert (heard["tokens"][there] - wanted[there]).abs().max() > 1e-2  # silence that fills up is not heard
    assert part.outputs == {"tokens": "float[batch 11 12]", "frame_mask": "bool[batch 11]"}


def test_the_ear_of_voxtral_gives_what_transformers_gives(tmp_path_factory: pytest.TempPathFactory):
    model, folder = saved(hf.VoxtralEncoder(hf.VoxtralEncoderConfig(**VOXTRAL)), tmp_path_factory)
    features = torch.randn(2, 7, 44, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(features).last_hidden_state
    torch.testing.assert_close(open_part(REGISTRY, "audio/encoder", folder)(features), wanted, rtol=0, atol=1e-5)
    node = configured(REGISTRY, "audio/encoder", folder)
    assert counts(node) == (sum(each.numel() for each in model.parameters()),) * 2


def test_ears_are_counted_without_building(qwen: tuple[Any, str]):
    assert counts(configured(REGISTRY, "audio/encoder", qwen[1])) == (sum(each.numel() for each in qwen[0].parameters()),) * 2


@pytest.mark.parametrize(
    ("kind", "config"), [("qwen2_audio_encoder", hf.Qwen2AudioEncoderConfig), ("voxtral_encoder", hf.VoxtralEncoderConfig)]
)
def test_what_a_silent_config_means_is_what_it_means_to_transformers(kind: str, config: Any):
    card = families().towers[kind]
    assert {word: getattr(config(), key) for word, key in card.names.items()} == card.defaults


def test_what_a_silent_voxtral_means_of_its_language_model():
    silent = hf.VoxtralConfig(text_config={"model_type": "llama"}).text_config
    theta = silent.rope_parameters["rope_theta"]
    assert {key: theta if key == "rope_theta" else getattr(silent, key) for key in voxtral.SILENT} == voxtral.SILENT


def test_the_parts_keep_their_declarations():
    conform(
        Encoder, {"family": "qwen2-audio", "hidden_size": 12, "intermediate_size": 22, "num_attention_heads": 3, "mels": 7, "positions": 22}
    )
    conform(Stack, {"factor": 3})
    conform(NormedPool, {"in_features": 5, "out_features": 7, "side": 6, "factor": 2})


def test_runs_of_vectors_are_joined_in_order():
    x = torch.arange(24.0).view(2, 6, 2)
    assert torch.equal(open_node(Stack, {"factor": 3})(x)["y"], x.reshape(-1, 6).view(2, 2, 6))
    with pytest.raises(InputError, match="projector/stack got 6 tokens, which runs of 4 do not divide"):
        open_node(Stack, {"factor": 4}).loaded.call(x)


@pytest.mark.parametrize("side", [4, 2])
def test_means_of_patches_are_those_of_gemma_3(side: int):
    """Of 8 x 8 patches as many rows and columns as the whole model wants."""
    vision = {"model_type": "siglip_vision_model", "hidden_size": 6, "image_size": 24, "patch_size": 3, "layer_norm_eps": 1e-3}
    config = hf.Gemma3Config(vision_config=vision, text_config={"hidden_size": 10, "num_attention_heads": 2}, mm_tokens_per_image=side**2)
    theirs = Gemma3MultiModalProjector(config)
    randomise(theirs, seed=4)
    x = torch.randn(2, 64, 6, generator=torch.Generator().manual_seed(2))
    ours = open_node(
        NormedPool, {"in_features": 6, "out_features": 10, "side": 8, "factor": 8 // side, "eps": 1e-3}, state=theirs.state_dict()
    )
    with torch.no_grad():
        torch.testing.assert_close(ours(x)["y"], theirs(x), rtol=0, atol=1e-5)
