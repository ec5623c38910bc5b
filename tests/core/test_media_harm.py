"""Sounds of any rate and number of channels, empty and silent ones; films with damaged frames: heard or seen whole, told, or refused."""

from __future__ import annotations

import io

import numpy as np
import pytest

import modelgraft as mg
from modelgraft.records.audio import AudioType
from modelgraft.records.record_type import Reading
from modelgraft.records.video import VideoType
from modelgraft.testing import open_node
from modelgraft_plugins.audio import Preprocess


def heard(content, said=None):
    return AudioType().read(content, Reading("input 'audio'", (said if said is not None else []).append))


def written(samples, rate, kind, subtype):
    soundfile = pytest.importorskip("soundfile", reason="it writes every kind of sound")
    stream = io.BytesIO()
    soundfile.write(stream, samples.T, rate, format=kind, subtype=subtype)
    return stream.getvalue()


# -- sounds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [100, 5_512, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_a_sound_of_any_rate_and_number_of_channels_is_heard_whole(rate, channels):
    """Every sample of every channel, to the last bit of its kind."""
    samples = np.random.default_rng(channels).uniform(-1, 1, (channels, 237)).astype(np.float32)
    for kind, subtype, atol in (("WAV", "FLOAT", 0), ("WAV", "PCM_16", 2**-15), ("FLAC", "PCM_24", 2**-23), ("AIFF", "PCM_32", 2**-30)):
        if kind == "FLAC" and rate in (5_512,):
            continue  # its header has no place for such rates in small files
        found = heard(written(samples, rate, kind, subtype))
        assert (found.sample_rate_hz, found.samples.shape, found.samples.dtype) == (rate, samples.shape, np.float32)
        np.testing.assert_allclose(found.samples, samples, atol=atol, rtol=0)


@pytest.mark.parametrize("rate", [100, 8_000, 16_000, 44_100, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_sound_is_prepared_for_an_encoder(rate, channels):
    """Whatever its rate, without a number that is none; silence too."""
    prepare = open_node(Preprocess)
    for scale in (0.5, 0.0):
        samples = (scale * np.random.default_rng(1).uniform(-1, 1, (channels, rate))).astype(np.float32)
        found = prepare([mg.Audio(samples, rate)])
        features = found if not isinstance(found, dict) else next(iter(found.values()))
        assert np.isfinite(np.asarray(features)).all()


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF"])
def test_a_sound_without_samples_is_refused(kind, channels):
    with pytest.raises(mg.InputError, match=r"input 'audio': .*(no samples|empty)"):
        heard(written(np.zeros((channels, 0), np.float32), 16_000, kind, "PCM_16"))


def test_a_silent_sound_is_a_sound():
    found = heard(written(np.zeros((2, 50), np.float32), 8_000, "WAV", "PCM_16"))
    assert not found.samples.any()
    assert found.samples.shape == (2, 50)


# -- films --------------------------------------------------------------------------------------------------------------


def film(container, codec):
    """Two seconds of a pattern that moves, with noise, so that every frame has its own data."""
    av = pytest.importorskip("av", reason="films are read by PyAV")
    stream, noise = io.BytesIO(), np.random.default_rng(0)
    with av.open(stream, "w", format=container) as out:
        track = out.add_stream(codec, rate=12)
        track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
        for index in range(24):
            pattern = np.roll(np.arange(96 * 64 * 3).reshape(64, 96, 3) * 7 % 256, index * 5, 1)
            frame = (pattern // 2 + noise.integers(0, 127, (64, 96, 3))).astype(np.uint8)
            out.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(track.encode())
    return stream.getvalue()


def harmed(whole, place, length):
    found = bytearray(whole)
    start = int(len(found) * place)
    found[start : start + length] = bytes(byte ^ 0xA5 for byte in found[start : start + length])
    return bytes(found)


def seen(content):
    said = []
    return VideoType().read(content, Reading("input 'video'", said.append)), said


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")])
def test_a_whole_film_says_nothing(container, codec):
    found, said = seen(film(container, codec))
    assert (len(found.frames), said) == (24, [])


def test_frames_that_a_decoder_has_made_up_are_told():
    """It goes on behind them, and the user hears of it."""
    found, said = seen(harmed(film("avi", "mpeg4"), 0.5, 40))
    assert len(found.frames) == 24
    assert len(said) == 1
    assert said[0].startswith("input 'video': at least 1 frame is damaged, and the decoder has filled in what is missing")


def test_frames_that_are_lost_are_told():
    """A container that cannot go on ends early: its length is compared with what it says."""
    found, said = seen(harmed(film("webm", "libvpx"), 0.3, 800))
    assert len(found.frames) < 20
    assert "its pictures end after" in said[0]
    assert "it says that it lasts 2.0 s" in said[0]


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_a_film_that_cannot_be_decoded_is_one_error(place):
    """Or, where the threads of the decoder get over it, one sentence: which of both, lies with how they meet."""
    try:
        _, said = seen(harmed(film("mp4", "libx264"), place, 800))
    except mg.InputError as error:
        assert "is damaged or cut" in str(error)  # noqa: PT017 the other way is a sentence
    else:
        assert "damaged" in said[0]
