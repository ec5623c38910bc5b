"""Frames of videos: decoded within bounds, evenly thinned where there are too many, and written.

Animations (GIF, WebP, PNG) are read by Pillow, films by PyAV (the extra `video`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import InputError
from modelgraft.records import pictures
from modelgraft.records.film_endings import cut_of
from modelgraft.records.opening import FileOrBytes, Say, open_named, reason, unreadable
from modelgraft.records.video import STILLS
from modelgraft.records.videos import UNTIMED_HZ, WANTED_FILM, Video

if TYPE_CHECKING:
    from modelgraft.records.record_type import Reading

VIDEO_SECONDS = 3_600.0  # decoding more takes minutes
VIDEO_BYTES = 2**30  # of decoded frames: 170 of 1080 lines, 7,000 of 224 x 224
GIF_STEP_MS = 10  # what the times of a GIF are counted in
LOST_SHARE = 0.9  # of the length that a film states: what ends before has lost frames, and not only rounded times
STILL_MS = 100  # how long browsers show a frame that states no time
# Containers that hold their own pictures: a playlist, a list of pieces or a session would have its decoder open other files and addresses.
ALONE = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,wav,mp3,flac",
    "protocol_whitelist": "none",
}
Timed = tuple[float, Any]  # (seconds from the beginning, uint8[height width 3])


@dataclass(frozen=True, slots=True)
class FrameCut:
    """What a user wants of a video.

    rate_hz  of pictures without times;  start_s, end_s  the part that is wanted;  most  frames, evenly spread over it
    """

    rate_hz: float | None = None
    start_s: float = 0.0
    end_s: float = float("inf")
    most: int | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any], reading: Reading) -> FrameCut:
        """Read what is told beside a file. Raises InputError for what is no number."""
        from modelgraft.records.arrays import number_of

        start, most = facts.get("start_s"), facts.get("most_frames")
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise InputError(f"{reading.label}: most_frames is {most!r}; wanted: a whole number above 0")
        begin = 0.0 if not start else number_of(facts, "start_s", reading) or 0.0
        end = number_of(facts, "end_s", reading) or float("inf")
        if end <= begin:
            raise InputError(f"{reading.label}: start_s is {begin:g} and end_s {end:g}; wanted: an end after the start")
        return cls(number_of(facts, "rate_hz", reading), begin, end, most)

    def rate(self, reading: Reading) -> float:
        """The rate of frames that state no time."""
        if self.rate_hz is None:
            reading.tell(f'its pictures state no times; they are taken as {UNTIMED_HZ:g} a second; {{"rate_hz": ...}} says otherwise')
        return self.rate_hz or UNTIMED_HZ

    def applied(self, video: Video) -> Video:
        """The frames that are wanted of a video in memory."""
        import numpy

        times = numpy.asarray(video.times_s)
        chosen = numpy.flatnonzero((times >= self.start_s) & (times < self.end_s))
        if self.most is not None and len(chosen) > self.most:
            chosen = chosen[numpy.linspace(0, len(chosen) - 1, self.most).round().astype(int)]
        if len(chosen) == len(times):
            return video
        return Video(video.frames[chosen], video.rate_hz * len(chosen) / len(times), times[chosen]) if len(chosen) else video


# -- from files ---------------------------------------------------------------------------------------------------------


def read_video(source: FileOrBytes, cut: FrameCut, reading: Reading) -> Video:
    """Decode a video from a file or its bytes.

    Raises InputError for no such file, no video, a damaged, cut or empty one, one beyond VIDEO_SECONDS, and where PyAV is missing.
    """
    label, stream = open_named(source, name=reading.label, wanted=WANTED_FILM, find=reading.find)
    label = f"{reading.label}: {label}"
    with stream:
        if refused := cut_of(stream):
            raise InputError(f"{label} {refused}; save it again from its original")
        head = stream.read(16)
        stream.seek(0)
        is_animation = head[:4] == b"GIF8" or head[8:12] == b"WEBP" or head[:4] == b"\x89PNG"
        frames = _of_animation(stream, label) if is_animation else _of_film(stream, label, reading)
        try:
            return _gathered(frames, cut, label, reading)
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"{label} does not fit into the memory of this machine: cut it into pieces") from error
        except Exception as error:
            raise InputError(f"{label} is damaged or cut: {_why(error)}; save it again from its original") from error


def _gathered(frames: Iterable[Timed], cut: FrameCut, label: str, reading: Reading) -> Video:
    """The frames that are wanted; every other one is dropped, again and again, while they are more than VIDEO_BYTES."""
    import numpy

    kept: list[Timed] = []
    step, seen, last = 1, 0, 0.0
    for time, frame in frames:
        if time > VIDEO_SECONDS:
            raise InputError(f"{label} lasts more than {VIDEO_SECONDS / 3600:.0f} hour; cut it into pieces")
        if kept and frame.shape != kept[0][1].shape:
            raise InputError(f"{label} changes its size from {_size(kept[0][1])} to {_size(frame)}; save it again in one")
        if time >= cut.end_s:
            break
        if time < cut.start_s:
            continue
        if seen % step == 0:
            kept.append((time, frame))
        seen, last = seen + 1, time
        if len(kept) * frame.nbytes > VIDEO_BYTES and len(kept) > 1:
            kept, step = kept[::2], step * 2
    if not kept:
        raise InputError(f"{label} has no frames{f' from {cut.start_s:g} s on' if cut.start_s else ''}; wanted: at least one")
    if step > 1:
        reading.tell(f"of {seen:,} frames {len(kept):,} are seen, evenly spread: all of them do not fit into {VIDEO_BYTES / 2**30:g} GiB")
    times = numpy.array([time for time, _ in kept])
    spent = last - kept[0][0]
    rate = cut.rate_hz or ((seen - 1) / spent if spent > 0 else 1.0)
    return FrameCut(most=cut.most).applied(Video(numpy.stack([frame for _, frame in kept]), rate / step, times))


def _why(error: Exception) -> str:
    """What a decoder says, without its numbers and what it was called with."""
    return str(getattr(error, "strerror", None) or reason(error))


def _size(frame: Any) -> str:
    return f"{frame.shape[1]} x {frame.shape[0]}"


def _of_animation(stream: IO[bytes], label: str) -> Iterator[Timed]:
    """The frames of a GIF, WebP or PNG, on white. Raises InputError for a picture that does not move."""
    import numpy

    picture = pictures.opened(stream, label)
    count = int(getattr(picture, "n_frames", 1))
    if count == 1 and picture.format != "GIF":
        raise InputError(f"{label} is a picture that does not move, wanted {WANTED_FILM}: [picture] is a video of one")
    time_ms = 0.0
    for index in range(count):
        picture.seek(index)
        yield time_ms / 1000.0, numpy.array(pictures.on_white(picture))
        time_ms += float(picture.info.get("duration") or STILL_MS)


def _of_film(stream: IO[bytes], label: str, reading: Reading) -> Iterator[Timed]:
    """The frames of a film, upright, decoded one after another. Tells of those that a decoder has made up where data are damaged."""
    try:
        import av
    except ImportError as error:
        raise InputError(f"{label} is none of gif, webp and png; films need PyAV: pip install 'modelgraft[video]'") from error
    import numpy

    try:
        container = av.open(stream, mode="r", options=ALONE)
    except Exception as error:
        found = unreadable(stream, _why(error))
        raise InputError(f"{label} is no video that can be read ({found}); wanted: mp4, mov, mkv, webm, avi, gif, webp") from error
    with container:
        film = _pictures_of(container, label)
        first, step, time, made_up = None, 1.0 / float(film.average_rate or UNTIMED_HZ), 0.0, 0
        try:
            for index, frame in enumerate(container.decode(film)):
                time = frame.time if frame.time is not None else index * step
                first = time if first is None else first
                made_up += frame.is_corrupt
                yield time - first, numpy.rot90(frame.to_ndarray(format="rgb24"), k=(getattr(frame, "rotation", 0) or 0) // 90)
            if (stated := _stated_s(container, film)) is not None and time + step < LOST_SHARE * stated:
                reading.tell(f"its pictures end after {time + step:.1f} s, and it says that it lasts {stated:.1f} s: the rest is damaged")
        finally:
            if made_up:
                are = "frame is" if made_up == 1 else "frames are"
                reading.tell(
                    f"at least {made_up} {are} damaged, and the decoder has filled in what is missing; save it again from its original"
                )


def _pictures_of(container: Any, label: str) -> Any:  # Any: PyAV has no complete types
    """The pictures in an opened film. Raises InputError where there are none, too many of them, or too large ones."""
    import av

    if not container.streams.video:
        raise InputError(f"{label} holds no pictures, only sound; wanted {WANTED_FILM}")
    film = container.streams.video[0]
    hours = (container.duration or 0) / av.time_base / 3600
    if hours * 3600 > VIDEO_SECONDS:
        raise InputError(f"{label} lasts {hours:.1f} hours; at most 1 hour is read: cut it into pieces")
    pictures.check_pixels(film.width, film.height, label)
    film.thread_type = "AUTO"
    return film


def _stated_s(container: Any, film: Any) -> float | None:
    """How long the pictures of a film last, as it says; None where it does not say it of the pictures alone."""
    import av

    if film.duration is not None and film.time_base is not None:
        return float(film.duration * film.time_base)
    is_alone = len(container.streams) == 1 and container.duration is not None
    return container.duration / av.time_base if is_alone else None


# -- from pictures ------------------------------------------------------------------------------------------------------


def pictures_in(folder: Path, reading: Reading) -> list[str]:
    """The pictures of a folder in the order of the numbers in their names. Raises InputError when there are none."""
    found = [entry for entry in folder.iterdir() if entry.suffix.lower() in STILLS and not entry.name.startswith(".") and entry.is_file()]
    if not found:
        raise InputError(f"{reading.label}: the folder '{folder}' holds no pictures; wanted: frames that end in {', '.join(STILLS)}")
    return [str(entry) for entry in sorted(found, key=lambda entry: _by_numbers(entry.name))]


def _by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(piece) if piece.isdigit() else -1, piece) for piece in re.split(r"([0-9]+)", name)]


def of_pictures(values: Sequence[Any], cut: FrameCut, reading: Reading) -> Video:
    """A video of pictures of one size. Raises InputError for none, and for what is no picture."""
    import numpy

    if not values:
        raise InputError(f"{reading.label}: the list of pictures is empty; wanted: at least one")
    rate = cut.rate(reading)

    def frames() -> Iterator[Timed]:
        for index, value in enumerate(values):
            one = reading.within(f"{reading.label} frame {index}")
            picture = pictures.eight_bits(pictures.raster_of(value, one, "a picture: a file name, bytes or a Pillow picture"), one.label)
            yield index / rate, numpy.array(pictures.on_white(picture))

    return _gathered(frames(), FrameCut(rate, cut.start_s, cut.end_s, cut.most), reading.label, reading)


# -- to files -----------------------------------------------------------------------------------------------------------


def write_video(video: Video, target: Path, label: str, say: Say) -> None:
    """Write a film or an animation. Raises InputError where PyAV is missing for a film."""
    if target.suffix.lower() == ".mp4":
        _write_film(video, target, label)
        return
    from PIL import Image

    frames = [Image.fromarray(frame) for frame in video.frames]
    assert video.times_s is not None, "a video makes up its times when it is made"
    begins = video.times_s.tolist()
    times = [*begins, begins[-1] + 1.0 / video.rate_hz]
    is_gif = target.suffix.lower() == ".gif"
    spans = [max(1.0, 1000.0 * (after - before)) for before, after in pairwise(times)]
    if is_gif:
        say(f"{label}: a gif has 256 colours in a frame and times in steps of {GIF_STEP_MS} ms; .webp and .mp4 have all")
        spans = [max(GIF_STEP_MS, round(span / GIF_STEP_MS) * GIF_STEP_MS) for span in spans]
    options: dict[str, Any] = {} if is_gif else {"lossless": True}
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=[round(span) for span in spans], loop=0, **options)


def _write_film(video: Video, target: Path, label: str) -> None:
    """H.264; sizes that are odd have a colour for each pixel, since colours are shared by two otherwise."""
    try:
        import av
    except ImportError as error:
        raise InputError(f"{label}: films need PyAV: pip install 'modelgraft[video]'; .gif and .webp do not") from error
    from fractions import Fraction

    _, height, width, _ = video.frames.shape
    with av.open(str(target), mode="w", format="mp4") as container:
        film = container.add_stream("libx264", rate=Fraction(video.rate_hz).limit_denominator(1001))
        film.width, film.height = width, height
        film.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        for frame in video.frames:
            container.mux(film.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(film.encode())
