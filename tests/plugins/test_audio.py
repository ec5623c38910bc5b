"""Features and encoder against transformers, on sounds of every rate and number of channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from modelgraft import Audio, InputError
from modelgraft.engine.run import NodeRuntime
from modelgraft.testing import conform, open_node
from modelgraft_plugins.audio import Encoder, Preprocess
from support.sounds import heard, tone

TINY = {"hidden_size": 12, "intermediate_size": 22, "num_hidden_layers": 3, "num_attention_heads": 3, "mels": 7, "positions": 11}


def listen(config, sounds):
    """Run the preprocessing on a batch; gives the features and the warnings."""
    trial, said = open_node(Preprocess, config), list[str]()
    trial.loaded.bind(NodeRuntime("ear", "audio/preprocess", emit=lambda kind, **facts: said.append(facts["text"])))
    return trial(sounds)["features"], said


def test_features_equal_those_of_transformers():
    """On unequal sounds of one batch, at the numbers of Whisper and at smaller ones: to the last bit of what it computes in float64, and
    as near to what it has by torch as float32 is."""
    sounds = [tone(0.7), tone(1.3, hertz=97.0)]
    for config, theirs in (
        ({}, WhisperFeatureExtractor()),
        ({"mels": 40, "chunk_s": 2, "hop_length": 80}, WhisperFeatureExtractor(feature_size=40, chunk_length=2, hop_length=80)),
    ):
        found, said = listen(config, sounds)
        rows, told = [sound.samples[0] for sound in sounds], {"sampling_rate": 16_000, "return_tensors": "np"}
        assert np.array_equal(found.numpy(), heard(theirs, rows, **told).input_features)
        np.testing.assert_allclose(found.numpy(), theirs(rows, **told).input_features, rtol=0, atol=1e-4)
        assert not said


def test_other_rates_and_channels_are_brought_to_the_one_that_is_heard_and_it_is_said():
    """A stereo sound of 44.1 kHz has the spectrum of the same sound at 16 kHz, and both changes are told."""
    found, said = listen({"chunk_s": 2}, [tone(1.0, rate=44_100, channels=2)])
    wanted, _ = listen({"chunk_s": 2}, [Audio(tone(1.0).samples * 0.875, 16_000)])  # the mean of 1 and 0.75
    loud = wanted > wanted.max() - 1.0  # log10 units over 4: what lies 40 dB lower is rounding
    torch.testing.assert_close(found[loud], wanted[loud], rtol=0, atol=0.02)
    assert said == ["2 channels were mixed into one", "the sound was resampled from 44100 Hz to 16000 Hz"]


def test_a_sound_longer_than_the_window_is_refused_or_cut_and_it_is_said():
    """Nothing is dropped in silence."""
    with pytest.raises(InputError, match=r"the sound lasts 3\.5 s and 2 s are heard at once; cut it into pieces, or set `longer: cut`"):
        listen({"chunk_s": 2}, [tone(3.5)])
    found, said = listen({"chunk_s": 2, "longer": "cut"}, [tone(3.5)])
    wanted, _ = listen({"chunk_s": 2}, [Audio(tone(3.5).samples[:, :32_000], 16_000)])
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert said == ["the sound lasts 3.5 s; only the first 2 s are heard"]


def test_sounds_that_cannot_be_heard_are_refused():
    """Empty ones, and ones with numbers that are none."""
    with pytest.raises(InputError, match="the sound is empty: it holds no samples"):
        listen({}, [Audio(np.zeros((1, 0), np.float32), 16_000)])
    with pytest.raises(InputError, match="samples that are no finite numbers"):
        listen({}, [Audio(np.array([[0.0, np.nan]], np.float32), 16_000)])


def test_vectors_equal_those_of_transformers():
    """The encoder gives what the whole model of transformers gives, with the same random tensors."""
    torch.manual_seed(2)
    config = WhisperConfig(
        d_model=12, encoder_ffn_dim=22, encoder_layers=3, encoder_attention_heads=3, num_mel_bins=7, max_source_positions=11,
        decoder_layers=1, decoder_attention_heads=3, vocab_size=17,
        pad_token_id=0, bos_token_id=0, eos_token_id=1, decoder_start_token_id=2,
    )  # fmt: skip
    whole = WhisperModel(config).eval()
    for parameter in whole.parameters():
        parameter.data.normal_(0.0, 0.3)
    state = {f"tower.{name}": tensor for name, tensor in whole.encoder.state_dict().items()}
    features = torch.randn(2, 7, 22)
    with torch.inference_mode():
        wanted = whole.encoder(features).last_hidden_state
    torch.testing.assert_close(open_node(Encoder, TINY, state=state)(features)["tokens"], wanted, rtol=0, atol=1e-6)


def test_the_encoder_keeps_its_declaration():
    """Ports, batch, parameters, state."""
    conform(Encoder, TINY)


def test_published_numbers_count_to_the_unit():
    """Whisper tiny's encoder, built by transformers without memory, has as many parameters as the formula says."""
    with torch.device("meta"):
        wanted = WhisperModel(WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)).encoder
    assert Encoder().parameters() == sum(parameter.numel() for parameter in wanted.parameters())
