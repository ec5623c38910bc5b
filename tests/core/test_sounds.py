"""Sounds at the edge: whole or refused, bounded by what is decoded, the same in every form that holds them."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy
import pytest
import soundfile

from modelgraft import InputError
from modelgraft.kernel.words.ports import port
from modelgraft.records.sounds import AUDIO_VALUES, Audio, read_audio, resample
from modelgraft.records.values import read_input

RATE = 16_000
TONE = (0.4 * numpy.sin(numpy.arange(2 * RATE) / 7) + 0.1 * numpy.random.default_rng(0).standard_normal(2 * RATE)).astype(numpy.float32)
KINDS = [
    ("WAV", "PCM_16"), ("WAV", "GSM610"), ("WAV", "IMA_ADPCM"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("RF64", "PCM_16"),
    ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
    ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


def encoded(kind, subtype, samples=TONE):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=kind, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_every_kind_is_read_whole(kind, subtype):
    """Sample for sample what the decoder gives when it is asked for all at once, GSM 6.10 that cannot seek too."""
    data = encoded(kind, subtype)
    expected, rate = soundfile.read(io.BytesIO(data), frames=soundfile.info(io.BytesIO(data)).frames, dtype="float32")
    found = read_audio(data, name="x")
    assert found.sample_rate_hz == rate
    assert found.samples[0].shape == expected.shape
    assert numpy.abs(found.samples[0] - expected).max() < 1e-6  # the decoder of mp3 differs from itself by one rounding


@pytest.mark.parametrize("part", [0.97, 0.6, 0.2])
@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_a_cut_sound_of_any_kind_is_refused(kind, subtype, part):
    """Half of a recording is an error, not half a sound."""
    data = encoded(kind, subtype)
    with pytest.raises(InputError, match=r"is cut|is damaged or cut|is no sound that can be read"):
        read_audio(data[: int(len(data) * part)], name="x")


def test_an_mp3_that_states_no_length_is_heard_to_its_end():
    """A decoder guesses from the first frame, and would leave out what is beyond; all frames are counted instead."""
    data = encoded("MP3", "MPEG_LAYER_III")
    mark = data.index(b"Xing")
    bare = data[:mark] + b"Zing" + data[mark + 4 :]
    whole, found = read_audio(data, name="x").samples[0], read_audio(bare, name="x").samples[0]
    assert len(soundfile.read(io.BytesIO(bare))[0]) < len(whole)  # what the decoder makes of it
    start = int(numpy.argmax(numpy.correlate(found, whole[8_000:12_000], "valid"))) - 8_000
    assert len(found) >= len(whole)
    assert numpy.abs(found[start + 2_000 : start + 30_000] - whole[2_000:30_000]).max() < 1e-4
    with pytest.raises(InputError, match="is cut: it ends within a frame"):
        read_audio(bare[:-100], name="x")


def test_an_mp3_with_fewer_frames_than_it_states_is_cut():
    """Also when the cut lies between two frames; tags before and behind are no sound."""
    from modelgraft.records import endings

    data = encoded("MP3", "MPEG_LAYER_III")
    places, place = [], 0
    while place < len(data) and (length := endings._frame_bytes(data[place : place + 4])):
        places.append(place)
        place += length
    assert place == len(data)
    with pytest.raises(InputError, match=r"is cut: it says that it has \d+ frames, and has \d+"):
        read_audio(data[: places[-5]], name="x")
    tagged = b"ID3\x04\0\0" + bytes([0, 0, 1, 0]) + bytes(128) + data + b"TAG" + bytes(125)
    assert numpy.array_equal(read_audio(tagged, name="x").samples, read_audio(data, name="x").samples)


def test_an_ogg_without_its_last_page_is_said():
    """It ends with a whole page, so it may have been stopped: it is heard, and said."""
    data, said = encoded("OGG", "VORBIS"), []
    found = read_audio(data[: data.rindex(b"OggS")], name="x", say=said.append)
    assert found.samples.shape[1] < len(TONE)
    assert said == [f"{data.rindex(b'OggS'):,} bytes does not say where it ends: it was cut, or recording it was stopped"]


@pytest.mark.parametrize("reader", ["soundfile", "wave"])
@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("outer", [0, 0xFFFFFFFF, None])
def test_a_wav_of_a_pipe_is_heard_to_its_end(stated, outer, reader, monkeypatch):
    """What is written into a pipe cannot state its length: 0, or the most that there can be."""
    if reader == "wave":
        monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    data, said = bytearray(encoded("WAV", "PCM_16")), []
    expected = read_audio(bytes(data), name="x").samples
    start = data.index(b"data")
    data[start + 4 : start + 8] = struct.pack("<I", stated)
    if outer is not None:
        data[4:8] = struct.pack("<I", outer)
    assert numpy.array_equal(read_audio(bytes(data), name="x", say=said.append).samples, expected)
    assert said == [f"{len(data):,} bytes was written into a pipe and states no length; all to its end is heard"]


def test_an_empty_wav_with_a_chunk_behind_it_is_empty():
    """A title is no sound."""
    data = bytearray(encoded("WAV", "PCM_16", samples=TONE[:0])) + b"LIST" + struct.pack("<I", 26) + b"INFOINAM" + bytes(18)
    data[4:8] = struct.pack("<I", len(data) - 8)
    with pytest.raises(InputError, match="is empty: it holds no samples"):
        read_audio(bytes(data), name="x")


def test_what_is_decoded_is_bounded_not_what_is_stated():
    """102 bytes of flac that state 70 GiB: one error, at once, without the memory."""
    data = bytearray(encoded("FLAC", "PCM_16"))[:102]
    data[18:26] = ((655_350 << 44) | (7 << 41) | (15 << 36) | (3_599 * 655_350)).to_bytes(8, "big")
    tracemalloc.start()
    with pytest.raises(InputError, match=r"8 channels of 2,358,604,650 frames are 70\.3 GiB, more than 1\.3 GiB are not held at once"):
        read_audio(bytes(data), name="x")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_resampling_is_bounded_too():
    """Samples times channels, after as well as before."""
    slow = Audio(numpy.zeros((2, 100_000), numpy.float32), 1)
    with pytest.raises(InputError, match="a sound of 1 Hz, brought to 16000 Hz: 2 channels of 1,600,000,000 frames"):
        resample(slow, 16_000)
    assert AUDIO_VALUES == 2 * 48_000 * 3_600


@pytest.mark.parametrize(("dtype", "subtype"), [("int16", "PCM_16"), ("int32", "PCM_32"), ("uint8", "PCM_U8")])
def test_samples_of_any_type_mean_what_they_mean_in_a_wav(dtype, subtype):
    """scipy gives int16 and uint8: the sound is the one of the file, not one 32,768 times as loud."""
    from scipy.io import wavfile

    data = encoded("WAV", subtype)
    rate, samples = wavfile.read(io.BytesIO(data))
    assert samples.dtype == dtype
    found = read_input("x", port("audio"), (samples, rate)).value[0]
    assert numpy.abs(found.samples - read_audio(data, name="x").samples).max() < 1e-7


def test_remarks_about_inputs_name_them(tmp_path):
    """A file in a batch is named with its input and its place."""
    data = bytearray(encoded("WAV", "PCM_16"))
    data[data.index(b"data") + 4 :][:4] = b"\0\0\0\0"
    start = data.index(b"data")
    data[start + 4 : start + 8] = bytes(4)
    path = tmp_path / "piped.wav"
    path.write_bytes(data)
    found = read_input("voice", port("audio"), [encoded("WAV", "PCM_16"), str(path)])
    assert found.said == (f"input 'voice'[1]: '{path}' was written into a pipe and states no length; all to its end is heard",)
