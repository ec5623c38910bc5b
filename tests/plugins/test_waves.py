"""Encoders that hear samples, wav2vec 2.0 and HuBERT: against transformers, by layer, mask and spans; their files, sizes and counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from modelgraft import Audio, InputError
from modelgraft.engine.run import NodeRuntime
from modelgraft.plugin import families
from modelgraft.sources import views
from modelgraft.testing import conform, open_node
from modelgraft_plugins.audio import Encoder, Samples, wave_table, waves
from support.checkpoints import randomise
from support.installed import registry
from support.open_part import configured, counts, open_part
from support.sounds import tone

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
REGISTRY = registry()
SIZES = {
    "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 3, "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2, "conv_dim": [6, 7], "conv_stride": [5, 2], "conv_kernel": [10, 3],
}  # fmt: skip
NORMS = {"group": {}, "layer": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}}
KINDS = [(kind, norm) for kind in ("Wav2Vec2", "Hubert") for norm in NORMS]


def saved(folder: Path, kind: str, norm: str, *, head: str = "Model", **more: Any) -> Any:
    """A tiny model of transformers, saved."""
    config = getattr(hf, f"{kind}Config")(**SIZES, **NORMS[norm], **more)
    model = getattr(hf, f"{kind}{head}")(config)
    randomise(model, seed=3)
    model.eval().save_pretrained(folder)
    return model


def sounds() -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of samples, of which the second has ended before, and where they are."""
    mask = torch.arange(331) < torch.tensor([331, 210])[:, None]
    return torch.randn(2, 331, generator=torch.Generator().manual_seed(4)) * mask, mask


@pytest.mark.parametrize(("kind", "norm"), KINDS)
def test_every_layer_equals_transformers(tmp_path: Path, kind: str, norm: str):
    """With and without a mask: hidden states by their number, the last one normed where no layer is asked for."""
    model, (samples, mask) = saved(tmp_path, kind, norm), sounds()
    for there in (None, mask):
        with torch.no_grad():
            found = model(samples, attention_mask=None if there is None else there.long(), output_hidden_states=True)
        rows = slice(None) if there is None else model._get_feature_vector_attention_mask(found.last_hidden_state.shape[1], there.long())
        for layer in (None, 0, 2, -1):
            ear = open_part(REGISTRY, "audio/encoder", str(tmp_path), layer=layer, statistics="batch")
            expected = found.last_hidden_state if layer is None else found.hidden_states[layer]
            torch.testing.assert_close(ear(samples, there, None)["tokens"][rows], expected[rows], rtol=0, atol=2e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_masked_spans_and_normed_features_equal_transformers(tmp_path: Path, norm: str):
    model, (samples, _) = saved(tmp_path, "Wav2Vec2", norm), sounds()
    spans = torch.zeros(2, 32, dtype=torch.bool)
    spans[0, 3:7] = spans[1, 20:30] = True
    with torch.no_grad():
        expected = model(samples, mask_time_indices=spans)
        convolved = model.feature_extractor(samples).transpose(1, 2)
    found = open_part(REGISTRY, "audio/encoder", str(tmp_path))(samples, None, spans)
    torch.testing.assert_close(found["tokens"], expected.last_hidden_state, rtol=0, atol=2e-6)
    torch.testing.assert_close(found["normed"], expected.extract_features, rtol=0, atol=2e-6)
    torch.testing.assert_close(found["conv_features"], convolved, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("kind", "norm"), KINDS)
def test_a_sound_in_a_batch_is_what_it_is_alone(tmp_path: Path, kind: str, norm: str):
    """Whatever fills it up: group norms, too, are over the sound alone, unless they are asked to be as published."""
    saved(tmp_path, kind, norm)
    samples, mask = sounds()
    noise = torch.where(mask, samples, torch.randn(2, 331, generator=torch.Generator().manual_seed(5)))
    ear = open_part(REGISTRY, "audio/encoder", str(tmp_path))
    whole, alone = ear(noise, mask, None), ear(samples[1:, :210], None, None)
    count = int(whole["frame_mask"][1].sum())
    assert count == alone["tokens"].shape[1] == waves.frames(210, SIZES)
    for name in ("tokens", "conv_features", "normed"):
        torch.testing.assert_close(whole[name][1, :count], alone[name][0], rtol=0, atol=5e-6)
        assert not whole[name][1, count:].any()


@pytest.mark.parametrize(("kind", "head"), [("Wav2Vec2", "ForCTC"), ("Wav2Vec2", "ForPreTraining"), ("Hubert", "ForCTC")])
def test_the_encoder_is_found_in_a_model_with_heads(tmp_path: Path, kind: str, head: str):
    """By the whole folder, and by the part that transformers names."""
    model, (samples, _) = saved(tmp_path, kind, "layer", head=head), sounds()
    with torch.no_grad():
        expected = getattr(model, kind.lower())(samples).last_hidden_state
    for part in ("", f"#{kind.lower()}"):
        found = open_part(REGISTRY, "audio/encoder", f"{tmp_path}{part}")(samples, None, None)
        torch.testing.assert_close(found["tokens"], expected, rtol=0, atol=2e-6)


def test_a_file_that_has_lost_the_vector_of_masked_frames_is_taken(tmp_path: Path):
    """Its config says that there is one; the headers of the file say that there is none."""
    config = hf.Wav2Vec2Config(**SIZES, mask_time_prob=0.0)
    model = hf.Wav2Vec2Model(config)
    model.eval().save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stated, "mask_time_prob": 0.05}))
    node = open_part(REGISTRY, "audio/encoder", str(tmp_path)).node
    assert node.config.parameters() == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("kind", "norm"), KINDS)
def test_the_formula_counts_what_transformers_builds(tmp_path: Path, kind: str, norm: str):
    model = saved(tmp_path, kind, norm)
    formula, exact = counts(configured(REGISTRY, "audio/encoder", str(tmp_path)))
    assert formula == exact == sum(parameter.numel() for parameter in model.parameters())


def test_adapters_inside_the_blocks_are_run_and_counted(tmp_path: Path):
    """As in MMS, whose one model has small layers for each language."""
    model, (samples, _) = saved(tmp_path, "Wav2Vec2", "layer", head="ForCTC", adapter_attn_dim=5, vocab_size=11), sounds()
    with torch.no_grad():
        expected = model.wav2vec2(samples).last_hidden_state
    ear = open_part(REGISTRY, "audio/encoder", str(tmp_path))
    torch.testing.assert_close(ear(samples, None, None)["tokens"], expected, rtol=0, atol=2e-6)
    assert ear.node.config.parameters() == sum(parameter.numel() for parameter in model.wav2vec2.parameters())


def test_the_number_of_tokens_is_known_where_that_of_samples_is():
    """The figures of the paper: a vector for every fiftieth of a second, from a fortieth on."""
    facts = {"conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2]}
    assert [waves.frames(samples, facts) for samples in (399, 400, 16_000, 32_000, 480_000)] == [0, 1, 49, 99, 1499]
    assert waves.least_samples(facts) == 400
    model = {"model_type": "wav2vec2", **families().tower("wav2vec2").defaults}
    assert Encoder(family="auto", model=model, hidden_size=768, samples=16_000).tokens == 49


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert"])
def test_every_key_of_the_library_is_known(tmp_path: Path, kind: str):
    """A key that is new in the class fails here; a config as the library saves it is quiet."""
    config = getattr(hf, f"{kind}Config")
    stated, table = config().to_dict(), wave_table(families().tower(kind.lower()))
    assert ({field.name for field in dataclasses.fields(config)} | set(stated)) - table.known == set()
    (tmp_path / "config.json").write_text(json.dumps(stated))
    view = views.view(views.parse(str(tmp_path)), registry=REGISTRY, folder=None, trusted=True, offline=True)
    assert list(Encoder.unheeded(view)) == []


def test_convolutions_behind_the_encoder_are_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "add_adapter": True}))
    with pytest.raises(ValueError, match="add_adapter: true, convolutions behind the encoder"):
        configured(REGISTRY, "audio/encoder", str(tmp_path))


def test_the_encoder_keeps_its_declaration(tmp_path: Path):
    """Ports, batch, parameters, state: with a mask and masked spans."""
    samples, mask = sounds()
    spans = torch.zeros(2, 32, dtype=torch.bool)
    spans[:, 3:9] = True
    for norm in NORMS:
        saved(tmp_path / norm, "Wav2Vec2", norm)
        config = configured(REGISTRY, "audio/encoder", str(tmp_path / norm)).config.model_dump()
        conform(Encoder, config, samples=samples, mask=mask, spans=spans)


# -- samples ---------------------------------------------------------------------------------------------------------------


def taken(config: dict[str, Any], heard: list[Audio]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The samples of a batch, and what was said."""
    trial, said = open_node(Samples, config), list[str]()
    trial.loaded.bind(NodeRuntime("wave", "audio/samples", emit=lambda kind, **facts: said.append(facts["text"])))
    return trial(heard), said


@pytest.mark.parametrize("normalize", [True, False])
def test_samples_equal_those_of_transformers_to_the_last_bit(normalize: bool):
    heard = [tone(0.7), tone(1.3, hertz=97.0), Audio(np.full((1, 500), 0.25, np.float32), 16_000)]
    theirs = hf.Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=True)
    wanted = theirs([sound.samples[0] for sound in heard], sampling_rate=16_000, padding=True, return_tensors="pt")
    found, said = taken({"normalize": normalize}, heard)
    torch.testing.assert_close(found["samples"], wanted.input_values, rtol=0, atol=0)
    assert torch.equal(found["mask"], wanted.attention_mask.bool())
    assert said == ["the sound is silent: all of its samples are the same"]


def test_other_rates_and_channels_are_brought_to_the_one_that_is_heard_and_it_is_said():
    found, said = taken({"normalize": False}, [tone(1.0, rate=44_100, channels=2)])
    torch.testing.assert_close(found["samples"], torch.from_numpy(tone(1.0).samples) * 0.875, rtol=0, atol=0.02)  # the mean of 1 and 0.75
    assert said == ["2 channels were mixed into one", "the sound was resampled from 44100 Hz to 16000 Hz"]


def test_sounds_that_cannot_be_heard_are_refused():
    for sound, told in (
        (Audio(np.zeros((1, 0), np.float32), 16_000), "the sound is empty: it holds no samples"),
        (Audio(np.array([[0.0, np.inf]], np.float32), 16_000), "samples that are no finite numbers"),
        (tone(0.02), r"the sound has 320 samples at 16000 Hz, and the encoder makes its first vector of 400 \(0\.025 s\)"),
        (tone(3.5), r"the sound lasts 3\.5 s and 3 s are heard at once; cut it into pieces, or set longest_s: 4"),
    ):
        with pytest.raises(InputError, match=told):
            taken({"least_samples": 400, "longest_s": 3.0}, [sound])
    conform(Samples, {"least_samples": 400}, audio=[tone(0.1), tone(0.1, hertz=97.0)])


@pytest.mark.parametrize(
    ("config", "file", "wanted"),
    [
        ({"model_type": "wav2vec2"}, {"do_normalize": False, "sampling_rate": 8_000}, {"normalize": False, "sample_rate_hz": 8_000}),
        ({"model_type": "wav2vec2"}, None, {"normalize": True}),
        ({"model_type": "wav2vec2", "encoder_embed_dim": 768}, None, {"normalize": False}),
        ({"model_type": "wav2vec2", "encoder_embed_dim": 1024, "extractor_mode": "layer_norm"}, None, {"normalize": True}),
        ({"model_type": "hubert", "encoder_embed_dim": 768, "normalize": True}, None, {"normalize": True}),
    ],
)
def test_a_checkpoint_says_how_it_hears(tmp_path: Path, config: dict[str, Any], file: dict[str, Any] | None, wanted: dict[str, Any]):
    """Its feature extractor; without one transformers scales, and fairseq does for layer-normed convolutions."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    if file is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"feature_extractor_type": "Wav2Vec2FeatureExtractor", **file}))
    found = configured(REGISTRY, "audio/samples", str(tmp_path)).config
    assert {key: getattr(found, key) for key in wanted} == wanted
    assert found.least_samples == 400


def test_a_feature_extractor_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    for file, told in (
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "has no 'WhisperFeatureExtractor'; it has Wav2Vec2FeatureExtractor"),
        ({"padding_side": "left"}, "padding_side: 'left', wanted 'right'"),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(file))
        with pytest.raises(Exception, match=told):
            configured(REGISTRY, "audio/samples", str(tmp_path))


# -- fairseq's files -------------------------------------------------------------------------------------------------------


def test_convolutions_are_read_as_fairseq_writes_them():
    wanted = [(512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2]
    assert waves.convolutions("[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]") == wanted
    assert waves.convolutions([list(row) for row in wanted]) == wanted
    for text in ("[(512, 10)]", "__import__('os')", "[(512, 10, 5)] * 1000000000", "[]", "[(512, 10, 0)]", 3):
        with pytest.raises(ValueError, match="wanted a list of"):
            waves.convolutions(text)


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    """Its tensors would not be read, and the sizes of the published base model taken for its own."""
    save_file({"cluster_centers_": torch.zeros(3, 4)}, tmp_path / "centres.safetensors")
    with pytest.raises(ValueError, match=r"holds no encoder of wav2vec 2.0 or HuBERT: its tensors lack feature_extractor"):
        configured(REGISTRY, "audio/encoder", str(tmp_path / "centres.safetensors"))


@pytest.mark.parametrize(("use", "source"), [("audio/encoder", "preset:wav2vec2-base"), ("vision/encoder", "preset:vit-b-16")])
def test_a_layer_that_there_is_not_is_told_before_anything_is_built(use: str, source: str):
    """By its number, with those that there are."""
    for layer in (13, -14):
        with pytest.raises(ValueError, match=rf"layer is {layer}, and there are 12 layers: wanted a number from -13 to 12"):
            configured(REGISTRY, use, source, layer=layer)
    for layer in (12, -13, 0):
        configured(REGISTRY, use, source, layer=layer)
