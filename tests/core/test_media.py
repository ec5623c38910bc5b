"""Pictures and sounds as users have them: good, odd and hostile."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from pathlib import Path

import numpy
import pytest
import skimage
from PIL import Image

from modelgraft import InputError
from modelgraft.records.pictures import read_picture
from modelgraft.records.sounds import AUDIO_SECONDS, Audio, read_audio, resample
from modelgraft.records.writing import check_writable, write_value

PHOTO = Path(skimage.__file__).parent / "data" / "chelsea.png"


def wav_bytes(samples, rate=16_000, *, channels=1, frames=None):
    """A PCM wav; `frames` overrides the count that the header states."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(numpy.asarray(samples, "<i2").tobytes())
    data = bytearray(buffer.getvalue())
    if frames is not None:
        data[40:44] = struct.pack("<I", frames * 2 * channels)
        data[4:8] = struct.pack("<I", 36 + frames * 2 * channels)
    return bytes(data)


def test_a_photograph_keeps_every_pixel():
    """Decoding gives what Pillow gives."""
    assert numpy.array_equal(numpy.asarray(read_picture(PHOTO, name="input 'image'")), numpy.asarray(Image.open(PHOTO)))


def test_a_picture_is_turned_upright():
    """EXIF orientation 6 means: turn by 90 degrees."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    assert read_picture(buffer.getvalue(), name="x").size == (20, 40)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "I;16"])
def test_the_mode_of_a_picture_is_kept(mode):
    """Grey, transparent, palette and 16-bit pictures are read as they are; what an input of pictures takes is values.py's affair."""
    buffer = io.BytesIO()
    Image.new(mode, (7, 5)).save(buffer, "PNG")
    assert read_picture(buffer.getvalue(), name="x").mode == mode


def test_no_picture_is_said_in_one_sentence(tmp_path):
    """Text in a .png is named with what was wanted."""
    path = tmp_path / "cat.png"
    path.write_text("I am a cat.")
    with pytest.raises(InputError, match=r"input 'image': '.*cat\.png' is no picture that can be read .*; wanted: png, jpeg"):
        read_picture(path, name="input 'image'")


def test_an_empty_file_is_called_empty(tmp_path):
    """Of any medium, in place of what a decoder says of it."""
    for read, name in ((read_picture, "x.png"), (read_audio, "x.wav")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match=r"can be read \(it is empty\); wanted"):
            read(tmp_path / name, name="x")


def test_a_cut_picture_is_called_damaged(tmp_path):
    """Half of a photograph is an error, not half a picture."""
    path = tmp_path / "half.png"
    path.write_bytes(PHOTO.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"half\.png' is damaged"):
        read_picture(path, name="x")


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    """A file of a few bytes that states 50,000 x 50,000 pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    with pytest.raises(InputError, match=r"has 50000 x 50000 pixels, more than 100,000,000; make it smaller first"):
        read_picture(bomb, name="x")


def test_a_format_that_starts_other_programs_is_not_opened():
    """PostScript would run an interpreter."""
    with pytest.raises(InputError, match="is no picture"):
        read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", name="x")


def test_a_missing_file_names_a_near_one(tmp_path):
    """A slip of the finger is shown."""
    (tmp_path / "kitten.png").touch()
    with pytest.raises(InputError, match=r"there is no file '.*kiten\.png'; wanted: a picture\. Did you mean '.*[/\\]kitten\.png'\?"):
        read_picture(tmp_path / "kiten.png", name="x")
    with pytest.raises(InputError, match="cannot be read"):
        read_picture(tmp_path, name="x")


def test_a_sound_is_read_in_units_of_one(tmp_path):
    """16-bit samples become float32 in -1..1, one row per channel."""
    samples = numpy.array([[0, 16384], [-32768, 32767], [8192, -8192]])
    sound = read_audio(wav_bytes(samples, 8000, channels=2), name="x")
    assert sound.sample_rate_hz == 8000
    assert numpy.array_equal(sound.samples, samples.T.astype(numpy.float32) / 32768)


@pytest.mark.parametrize("reader", ["soundfile", "wave"])
def test_the_standard_library_reads_what_soundfile_reads(reader, monkeypatch):
    """Without soundfile, plain wav gives the same samples."""
    if reader == "wave":
        monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    sound = read_audio(wav_bytes([1, -2, 3]), name="x")
    assert sound.samples.dtype == numpy.float32
    assert numpy.array_equal(sound.samples, numpy.array([[1, -2, 3]], numpy.float32) / 32768)


def test_without_soundfile_another_format_says_what_to_install(monkeypatch):
    """FLAC needs the extra."""
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(InputError, match=r"install soundfile \(pip install 'modelgraft\[audio\]'\)"):
        read_audio(b"fLaC" + bytes(100), name="x")


@pytest.mark.parametrize("reader", ["soundfile", "wave"])
def test_an_empty_sound_is_refused(reader, monkeypatch):
    """No samples, no answer."""
    if reader == "wave":
        monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(InputError, match="is empty: it holds no samples"):
        read_audio(wav_bytes([]), name="x")


def test_a_sound_of_three_hours_is_refused(tmp_path):
    """The limit is found in the header: nothing of the file is decoded."""
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(wav_bytes([0], 8000, frames=3 * 3600 * 8000))
        file.truncate(44 + 2 * 3 * 3600 * 8000)
    with pytest.raises(InputError, match=r"lasts 3\.0 hours; at most 1 hour is read at once: cut it into pieces"):
        read_audio(path, name="x")
    assert AUDIO_SECONDS == 3600


def test_no_sound_is_said_in_one_sentence():
    """Garbage is named."""
    with pytest.raises(InputError, match="is no sound that can be read"):
        read_audio(b"RIFF....", name="x")


def test_resampling_keeps_a_tone_in_place():
    """A 440 Hz tone at 44.1 kHz is a 440 Hz tone at 16 kHz: equal to the tone computed there, away from the ends."""
    time = numpy.arange(44_100) / 44_100
    tone = Audio(numpy.sin(2 * numpy.pi * 440 * time)[None].astype(numpy.float32), 44_100)
    got = resample(tone, 16_000)
    expected = numpy.sin(2 * numpy.pi * 440 * numpy.arange(16_000) / 16_000)
    assert got.sample_rate_hz == 16_000
    assert got.samples.shape == (1, 16_000)
    assert numpy.abs(got.samples[0] - expected)[200:-200].max() < 2e-3
    assert resample(got, 16_000) is got


def test_outputs_come_back_from_their_files(tmp_path):
    """What is written is read again: a picture, a sound, a text, plain values."""
    picture = Image.open(PHOTO)
    write_value(picture, tmp_path / "cat.png")
    assert numpy.array_equal(numpy.asarray(Image.open(tmp_path / "cat.png")), numpy.asarray(picture))
    sound = Audio(numpy.array([[0.0, 0.5, -1.0]], numpy.float32), 24_000)
    write_value(sound, tmp_path / "a.wav")
    assert numpy.abs(read_audio(tmp_path / "a.wav", name="x").samples - sound.samples).max() < 1e-4
    write_value("café", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "café\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.wav", "cat.png"]


def test_tensors_come_back_from_their_files(tmp_path):
    """npy and safetensors hold every element."""
    import torch
    from safetensors.torch import load_file

    tensor = torch.randn(2, 3)
    write_value(tensor, tmp_path / "t.npy")
    assert numpy.array_equal(numpy.load(tmp_path / "t.npy"), tensor.numpy())
    write_value(tensor, tmp_path / "t.safetensors")
    assert torch.equal(load_file(tmp_path / "t.safetensors")["value"], tensor)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    """Nothing half-written, nothing lost."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    class Broken:
        def getbands(self):
            return ("R",)

        def save(self, target):
            Path(target).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        write_value(Broken(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_path_is_judged_before_the_work(tmp_path):
    """No such folder, a folder, a suffix that does not fit."""
    with pytest.raises(InputError, match="there is no folder"):
        check_writable(tmp_path / "no" / "a.txt")
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match=r"a sound goes into a file that ends in \.wav"):
        write_value(Audio(numpy.zeros((1, 4), numpy.float32), 8000), tmp_path / "a.mp3")


def test_a_cut_sound_is_refused_and_one_from_a_pipe_is_not():
    """Half of a recording is an error, not half a sound; a recorder that writes into a pipe cannot know the length."""
    whole = wav_bytes(numpy.arange(2000))
    with pytest.raises(InputError, match=r"input 'audio': .* is cut: it says that it has 4,044 bytes, and has 3,000"):
        read_audio(whole[:3000], name="input 'audio'")
    piped = whole[:4] + b"\xff\xff\xff\xff" + whole[8:]
    assert read_audio(piped, name="input 'audio'").samples.shape == (1, 2000)


def test_a_false_sample_rate_is_refused():
    """To resample from 2 GHz would take hundreds of gigabytes."""
    with pytest.raises(InputError, match=r"states a sample rate of 2,000,000,011 Hz; wanted: 1 to 1,000,000 Hz"):
        read_audio(wav_bytes(numpy.arange(9), 2_000_000_011), name="input 'audio'")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that looks writable and is not")
def test_a_folder_that_only_looks_writable_is_an_error_of_the_user():
    """What the system refuses is told in its words."""
    with pytest.raises(InputError, match=r"output '/proc/x\.txt' cannot be written: "):
        write_value("text", Path("/proc/x.txt"))
