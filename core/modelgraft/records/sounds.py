"""Sounds: from files into records, whole or not at all.

What bounds a sound is what is decoded of it, not what its header states. A file that ends before its end is refused.
"""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from modelgraft.kernel.words.errors import InputError
from modelgraft.records import endings
from modelgraft.records.amounts import in_seconds
from modelgraft.records.opening import FileOrBytes, FindFile, Say, open_named, plain_path, reason, silent, unreadable
from modelgraft.records.record import Record, Sight

if TYPE_CHECKING:
    import numpy

AUDIO_SECONDS = 3_600  # an hour at 16 kHz is 230 MB of float32
AUDIO_VALUES = 345_600_000  # samples times channels: that hour in stereo at 48 kHz, 1.4 GB of float32
AUDIO_RATE_HZ = 1_000_000  # above every recorder: to resample from a false rate would fill the memory
AUDIO_LOUDEST = 100.0  # 40 dB above full scale, which no recording reaches: such samples are counts of an integer type
OPEN_FRAMES = 2**60  # what libsndfile says where a file states no length
LONGEST_S = 60.0  # of a sound on a page
MP3_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # of its three generations
BLOCK_FRAMES = 65_536  # read at a time: enough to be fast, little beside the whole
FULL_SCALE = {"int8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}  # what 1.0 is, as in a wav of that width


@dataclass(frozen=True, slots=True, eq=False)
class Audio(Record):
    """A sound.

    samples         float32[channels frames], in -1..1
    sample_rate_hz  frames per second
    """

    samples: numpy.ndarray[Any, Any]
    sample_rate_hz: int
    called: ClassVar[str] = "a sound"
    endings: ClassVar[tuple[str, ...]] = (".wav",)

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(self.samples.shape[-1]) / self.sample_rate_hz

    def brief(self) -> str:
        """Its length."""
        return f"sound of {in_seconds(self.seconds)}"

    def facts(self) -> dict[str, Any]:
        """Its rate and shape."""
        channels, frames = self.samples.shape
        return {"type": "audio", "sample_rate_hz": self.sample_rate_hz, "channels": channels, "frames": frames}

    def sight(self) -> Sight:
        """The beginning of it, to listen to."""
        stream = io.BytesIO()
        write_wave(Audio(self.samples[:, : int(LONGEST_S * self.sample_rate_hz)], self.sample_rate_hz), stream)
        cut = f", the first {LONGEST_S:g} s of it" if self.seconds > LONGEST_S else ""
        return Sight(f"{self.brief()} at {self.sample_rate_hz:,} Hz{cut}", "audio/wav", stream.getvalue())

    def whole_sight(self) -> Sight:
        """All of it, to listen to: as MP3 where the library for it is installed and knows its rate, as WAV elsewhere."""
        stream = io.BytesIO()
        if write_mp3(self, stream):
            return Sight(self.brief(), "audio/mpeg", stream.getvalue())
        write_wave(self, stream)
        return Sight(self.brief(), "audio/wav", stream.getvalue())

    def save(self, target: Path, label: str, say: Say) -> None:
        """Write 16-bit PCM; what is beyond full scale is cut, and that is said."""
        loudest = float(abs(self.samples).max(initial=0.0))
        if not math.isfinite(loudest):
            raise InputError(f"{label}: the sound holds samples that are no finite numbers, which no wav can hold")
        if loudest > 1:
            say(f"{label}: samples up to {loudest:.3g} are cut to 1, the most that a wav of 16 bits holds")
        write_wave(self, target)

    def __repr__(self) -> str:
        return f"Audio({self.samples.shape[0]} channels, {self.seconds:.2f} s, {self.sample_rate_hz} Hz)"


def read_audio(source: FileOrBytes, *, name: str, say: Say = silent, find: FindFile = plain_path) -> Audio:
    """Decode a sound from a file or from its bytes: WAV always, FLAC, OGG and MP3 where `soundfile` is installed.

    say  takes what is read though it is not quite in order, such as a wav that was written into a pipe and states no length
    Raises InputError for no such file, no sound, an empty, damaged or cut one, one beyond AUDIO_SECONDS or AUDIO_VALUES.
    """
    label, stream = open_named(source, name=name, wanted="a sound", find=find)
    with stream:
        ending = endings.look(stream)
        if ending.refused:
            raise InputError(f"{name}: {label} {ending.refused}; save it again from its original")
        audio = _decode(stream if ending.patched is None else io.BytesIO(ending.patched), label, name)
    if ending.odd:
        say(f"{label} {ending.odd}")
    return checked_sound(audio, f"{name}: {label}")


def write_wave(audio: Audio, target: Path | IO[bytes]) -> None:
    """Write 16-bit PCM; samples outside -1..1 are clipped."""
    import numpy

    pcm = (numpy.clip(audio.samples, -1.0, 1.0) * 32767.0).round().astype("<i2")
    with wave.open(str(target) if isinstance(target, Path) else target, "wb") as sound:
        sound.setnchannels(pcm.shape[0])
        sound.setsampwidth(2)
        sound.setframerate(audio.sample_rate_hz)
        sound.writeframes(pcm.T.tobytes())


def write_mp3(audio: Audio, target: IO[bytes]) -> bool:
    """Write an MP3 and say whether that was possible: it takes soundfile, one channel or two, and a rate that MP3 knows."""
    channels = audio.samples.shape[0]
    if channels > 2 or audio.sample_rate_hz not in MP3_RATES_HZ:
        return False
    try:
        import soundfile

        soundfile.write(target, audio.samples.clip(-1.0, 1.0).T, audio.sample_rate_hz, format="MP3")
    except (ImportError, OSError, ValueError, RuntimeError):  # no library, or one without MP3
        target.seek(0)
        target.truncate()
        return False
    return True


def checked_sound(audio: Audio, label: str) -> Audio:
    """The sound itself when it is one. Raises InputError for other shapes, types, rates, and numbers that are no samples."""
    import numpy

    found = audio.samples
    if not isinstance(found, numpy.ndarray) or found.ndim != 2 or 0 in found.shape or found.dtype != numpy.float32:
        is_array = hasattr(found, "dtype") and hasattr(found, "shape")
        what = f"{found.dtype}[{' '.join(map(str, found.shape))}]" if is_array else f"a {type(found).__name__}"
        raise InputError(f"{label}: found samples {what}, wanted float32[channels frames] of numpy with at least one frame")
    _check_rate(audio.sample_rate_hz, label)
    channels, frames = found.shape
    if channels > frames:
        raise InputError(f"{label}: found {channels} channels of {frames} frames, wanted samples float32[channels frames]: transpose them")
    loudest = float(max(found.max(), -found.min()))  # NaN in any sample is NaN in both
    if not math.isfinite(loudest):
        raise InputError(f"{label}: holds samples that are no finite numbers; write it again as plain wav")
    if loudest > AUDIO_LOUDEST:
        raise InputError(f"{label}: holds samples up to {loudest:.6g}, wanted -1..1: divide them by what full scale is, such as 32768")
    return audio


def sound_of_array(samples: Any, rate: Any, label: str) -> Audio:
    """A sound of samples in any of the types that wav files have; integers are scaled as they are there."""
    import numpy

    array = numpy.atleast_2d(numpy.asarray(samples))
    if array.dtype.name in FULL_SCALE:
        array = (array / FULL_SCALE[array.dtype.name]).astype(numpy.float32)
    elif array.dtype == numpy.uint8:
        array = ((array.astype(numpy.float32)) - 128.0) / 128.0
    elif array.dtype.kind != "f":
        found = f"{array.dtype}[{' '.join(map(str, array.shape))}]"
        raise InputError(f"{label}: found samples {found}, wanted floats in -1..1, or int16, int32, int8 or uint8 as a wav has them")
    _check_rate(rate, label)
    return checked_sound(Audio(numpy.array(array, numpy.float32, order="C"), int(rate)), label)


def _check_rate(rate: Any, label: str) -> None:
    is_whole = not isinstance(rate, bool | str | bytes) and hasattr(rate, "__index__")
    if not is_whole or not 0 < rate <= AUDIO_RATE_HZ:
        shown = f"{int(rate):,}" if is_whole else repr(rate)
        raise InputError(f"{label} states a sample rate of {shown} Hz; wanted: a whole number, 1 to {AUDIO_RATE_HZ:,} Hz")


# -- decoding -----------------------------------------------------------------------------------------------------------


def _decode(stream: IO[bytes], label: str, name: str) -> Audio:
    try:
        import soundfile  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return _read_wave(stream, label, name)
    try:
        sound = soundfile.SoundFile(stream)
    except Exception as error:
        found = unreadable(stream, reason(error))
        raise InputError(f"{name}: {label} is no sound that can be read ({found}); wanted: wav, flac, ogg, mp3") from error
    with sound:
        if sound.frames >= OPEN_FRAMES:
            raise InputError(f"{name}: {label} ({sound.format}) was written into a pipe and states no length; write it again into a file")
        is_exact = sound.format != "MP3"  # whose length is a guess where no header states it
        _check_length(sound.frames if is_exact else 1, int(sound.samplerate), int(sound.channels), label, name)
        kind = f"{sound.format}, {sound.subtype}"
        try:
            samples = _gathered(_blocks(sound, label, name), int(sound.channels))
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"{name}: {label} does not fit into the memory of this machine: cut it into pieces") from error
        except Exception as error:
            raise InputError(f"{name}: {label} ({kind}) is damaged or cut: {reason(error)}; save it again from its original") from error
        if is_exact and samples.shape[1] < sound.frames:
            found = f"it says that it has {sound.frames:,} frames, and has {samples.shape[1]:,}"
            raise InputError(f"{name}: {label} is cut: {found}; save it again from its original")
    if samples.shape[1] == 0:
        raise InputError(f"{name}: {label} is empty: it holds no samples")
    return Audio(samples, int(sound.samplerate))


def _blocks(sound: Any, label: str, name: str) -> Iterator[Any]:
    """The frames of an opened file, some at a time: so also kinds that cannot seek are read, and none beyond the bounds."""
    frames = 0
    while True:
        block = sound.read(frames=BLOCK_FRAMES, dtype="float32", always_2d=True)
        frames += len(block)
        if len(block):
            _check_length(frames, int(sound.samplerate), int(sound.channels), label, name)
            yield block
        if len(block) < BLOCK_FRAMES:
            return


def _gathered(blocks: Iterator[Any], channels: int) -> Any:
    """Blocks float32[frames channels] as one float32[channels frames]."""
    import numpy

    there = list(blocks)
    samples = numpy.empty((channels, sum(map(len, there))), numpy.float32)
    place = samples.shape[1]
    while there:  # from the end, so that each block is freed when it was copied
        block = there.pop()
        place -= len(block)
        samples[:, place : place + len(block)] = block.T
    return samples


def _read_wave(stream: IO[bytes], label: str, name: str) -> Audio:
    """Read PCM WAV with the standard library."""
    import numpy

    try:
        with wave.open(stream) as sound:
            width, channels, rate = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
            _check_length(sound.getnframes(), rate, channels, label, name)
            data = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError, RuntimeError, ValueError) as error:
        hint = "install soundfile (pip install 'modelgraft[audio]') for flac, ogg, mp3 and other kinds of wav"
        raise InputError(f"{name}: {label} is no PCM wav file ({reason(error)}); {hint}") from error
    if width not in (1, 2, 4):
        raise InputError(f"{name}: {label} has {8 * width}-bit samples; without soundfile only 8, 16 and 32 bit can be read")
    kind = {1: "u1", 2: "<i2", 4: "<i4"}[width]
    whole = len(data) // (width * channels) * width * channels
    raw = numpy.frombuffer(data[:whole], kind).reshape(-1, channels).T.astype(numpy.float32)
    if raw.shape[1] == 0:
        raise InputError(f"{name}: {label} is empty: it holds no samples")
    return Audio((raw - 128.0) / 128.0 if width == 1 else raw / float(2 ** (8 * width - 1)), rate)


def _check_length(frames: int, rate: int, channels: int, label: str, name: str) -> None:
    if not 0 < rate <= AUDIO_RATE_HZ:
        raise InputError(f"{name}: {label} states a sample rate of {rate:,} Hz; wanted: 1 to {AUDIO_RATE_HZ:,} Hz")
    if frames == 0:
        raise InputError(f"{name}: {label} is empty: it holds no samples")
    if frames / rate > AUDIO_SECONDS:
        most = f"at most {AUDIO_SECONDS / 3600:.0f} hour is read at once: cut it into pieces"
        raise InputError(f"{name}: {label} lasts {frames / rate / 3600:.1f} hours; {most}")
    _check_values(frames, channels, f"{name}: {label}")


def _check_values(frames: float, channels: int, label: str) -> None:
    if frames * channels > AUDIO_VALUES:
        found = f"{channels} channels of {frames:,.0f} frames are {frames * channels * 4 / 2**30:,.1f} GiB"
        raise InputError(f"{label}: {found}, more than {AUDIO_VALUES * 4 / 2**30:.1f} GiB are not held at once: cut it into pieces")


def resample(audio: Audio, rate_hz: int) -> Audio:
    """Bring a sound to another sample rate by polyphase filtering; the same object when it has it already.

    Raises InputError when scipy, which filters, is not installed, and when the result would be beyond AUDIO_VALUES.
    """
    import numpy

    if audio.sample_rate_hz == rate_hz:
        return audio
    channels, frames = audio.samples.shape
    change = f"a sound of {audio.sample_rate_hz} Hz, brought to {rate_hz} Hz"
    _check_rate(audio.sample_rate_hz, change)
    _check_values(frames * rate_hz / audio.sample_rate_hz, channels, change)
    try:
        from scipy.signal import resample_poly  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise InputError(
            f"a sound of {audio.sample_rate_hz} Hz must be brought to {rate_hz} Hz, which needs scipy: pip install 'modelgraft[audio]'"
        ) from error
    common = math.gcd(audio.sample_rate_hz, rate_hz)
    samples = resample_poly(audio.samples, rate_hz // common, audio.sample_rate_hz // common, axis=-1)
    return Audio(numpy.ascontiguousarray(samples, dtype=numpy.float32), rate_hz)
