"""Videos: pictures one after another, each with its time."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.amounts import in_seconds
from modelgraft.records.homes import home_read
from modelgraft.records.record import Record, Sight
from modelgraft.records.video import VideoType

if TYPE_CHECKING:
    import numpy

    from modelgraft.records.opening import Say
    from modelgraft.records.record_type import Reading

UNTIMED_HZ = 25.0  # of pictures that nobody gave a rate, as ffmpeg takes them (its demuxer image2); it is told
SHOWN_FRAMES, SHOWN_PX = 16, 256  # on a page
WANTED_FILM = "a video: a file, a folder or a list of pictures, (frames, rate_hz) or modelgraft.Video"


@dataclass(frozen=True, slots=True, eq=False)
class Video(Record):
    """Frames of one size, in the order of time. Made without times, they are evenly spaced.

    frames   uint8[frames height width 3], red, green and blue
    rate_hz  frames per second, on average
    times_s  float64[frames]: seconds from the beginning of the video at which each is shown, rising
    """

    frames: numpy.ndarray[Any, Any]
    rate_hz: float
    times_s: numpy.ndarray[Any, Any] | None = None
    called: ClassVar[str] = "a video"
    endings: ClassVar[tuple[str, ...]] = VideoType.writes

    def __post_init__(self) -> None:
        if self.times_s is None:
            import numpy

            object.__setattr__(self, "times_s", numpy.arange(len(self.frames)) / self.rate_hz)

    @property
    def seconds(self) -> float:
        """How long the frames last, the last one as long as the mean."""
        return len(self.frames) / self.rate_hz

    def brief(self) -> str:
        """How many frames of which size, for how long."""
        count, height, width, _ = self.frames.shape
        return f"video of {count} frames {width} x {height}, {in_seconds(self.seconds)}"

    def facts(self) -> dict[str, Any]:
        """Its size and rate."""
        count, height, width, _ = self.frames.shape
        return {"type": "video", "frames": count, "width": width, "height": height, "rate_hz": self.rate_hz, "seconds": self.seconds}

    def sight(self) -> Sight:
        """Some of its frames, made small, one after another."""
        import numpy
        from PIL import Image

        stream, chosen = io.BytesIO(), numpy.linspace(0, len(self.frames) - 1, min(SHOWN_FRAMES, len(self.frames))).round().astype(int)
        small = [Image.fromarray(self.frames[index]) for index in chosen]
        for picture in small:
            picture.thumbnail((SHOWN_PX, SHOWN_PX))
        pace_ms = max(20, round(1000 * self.seconds / len(small)))
        small[0].save(stream, "GIF", save_all=True, append_images=small[1:], duration=pace_ms, loop=0)
        return Sight(self.brief(), "image/gif", stream.getvalue())

    def whole_sight(self) -> Sight:
        """All of it: as a film where PyAV is installed, as an animation elsewhere."""
        from importlib.util import find_spec

        from modelgraft.records.enclosing import saved

        is_film = find_spec("av") is not None
        return Sight(self.brief(), "video/mp4" if is_film else "image/webp", saved(self, ".mp4" if is_film else ".webp"))

    def save(self, target: Path, label: str, say: Say) -> None:
        """Write a film (.mp4, needs PyAV), exact pictures (.webp) or 256 colours (.gif)."""
        from modelgraft.records.frames import write_video

        write_video(self, target, label, say)

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        return f"Video({count} frames, {width} x {height}, {self.rate_hz:g} Hz)"


def read(value: Any, reading: Reading) -> Video:
    """Take a file, pictures, or a mapping with `file` or `frames`, and `rate_hz`, `start_s`, `end_s`, `most_frames`."""
    from modelgraft.records import frames
    from modelgraft.records.arrays import is_source, told

    if isinstance(value, Video):
        return checked(value.frames, value.rate_hz, value.times_s, reading)
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "shape") and not hasattr(value[1], "shape"):
        return checked(value[0], value[1], None, reading)
    given = told(value, reading, key="frames", known=("rate_hz", "start_s", "end_s", "most_frames"))
    cut = frames.FrameCut.of(given.facts, reading)
    if isinstance(given.value, str | os.PathLike) and (folder := home_read(given.value)).is_dir():
        return frames.of_pictures(frames.pictures_in(folder, reading), cut, reading)
    if is_source(given.value):
        return frames.read_video(given.value, cut, reading)
    if isinstance(given.value, list | tuple):
        return frames.of_pictures(given.value, cut, reading)
    if hasattr(given.value, "shape"):
        return cut.applied(checked(given.value, cut.rate(reading), None, reading))
    raise reading.refused(value, WANTED_FILM)


def example(index: int) -> Video:
    """A shade that wanders, for 5 frames and for 7, of unlike sizes."""
    import numpy

    count, height, width = ((5, 31, 21), (7, 23, 37))[index % 2]
    return Video((numpy.arange(count * height * width * 3) % 251).astype(numpy.uint8).reshape(count, height, width, 3), 8.0)


def checked(frames: Any, rate_hz: Any, times_s: Any, reading: Reading) -> Video:
    """A video in memory of its own. Raises InputError for other shapes and types, and times that do not rise."""
    import numpy

    array = numpy.asarray(frames.detach().cpu() if hasattr(frames, "detach") else frames)
    if array.ndim != 4 or array.shape[3] != 3 or 0 in array.shape or array.dtype != numpy.uint8:
        channels = "; channels come last: array.transpose(0, 2, 3, 1)" if array.ndim == 4 and array.shape[1] == 3 else ""
        floats = "; floats in 0..1 are (array * 255).round().astype('uint8')" if array.dtype.kind == "f" and not channels else ""
        found = f"found {array.dtype}[{' '.join(map(str, array.shape))}]"
        raise InputError(f"{reading.label}: {found}, wanted uint8[frames height width 3]{channels}{floats}")
    if isinstance(rate_hz, bool | str | bytes) or not hasattr(rate_hz, "__float__") or not 0 < rate_hz < float("inf"):
        raise InputError(f"{reading.label}: rate_hz is {rate_hz!r}; wanted: frames per second, above 0")
    times = None if times_s is None else numpy.array(times_s, numpy.float64)
    if times is not None:
        rises = times.shape == array.shape[:1] and bool(numpy.isfinite(times).all()) and bool((numpy.diff(times) > 0).all())
        if not rises:
            raise InputError(f"{reading.label}: found times for {times.size} of {len(array)} frames, wanted one for each, rising")
    return Video(numpy.array(array, order="C"), float(rate_hz), times)
