"""Videos: pictures one after another, each with its time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.records.image import PICTURE_ENDINGS as PICTURES
from modelgraft.records.owning import is_array, is_picture
from modelgraft.records.record_type import Reading, RecordType

if TYPE_CHECKING:
    from modelgraft.records.videos import Video

FILM_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".gif", ".webp", ".apng")
STILLS = tuple(ending for ending in PICTURES if ending not in FILM_ENDINGS)


class VideoType(RecordType):
    """Frames with their times: `modelgraft.Video`."""

    name, meaning = "video", "a sequence of pictures with their times"
    reads = FILM_ENDINGS
    writes = (".mp4", ".gif", ".webp")
    colour = ("#7c3aed", "#b794ff")

    def read(self, value: Any, reading: Reading) -> Video:
        """Take a file, pictures, or a mapping with `file` or `frames`, and `rate_hz`, `start_s`, `end_s`, `most_frames`."""
        from modelgraft.records.videos import read

        return read(value, reading)

    def accepts(self, value: Any) -> bool:
        """Videos."""
        from modelgraft.records.videos import Video

        return isinstance(value, Video)

    def example(self, index: int) -> Video:
        """A shade that wanders, for 5 frames and for 7, of unlike sizes."""
        from modelgraft.records.videos import example

        return example(index)

    def is_batch(self, value: list[Any]) -> bool:
        """A list of pictures is one video; of anything else, several."""
        return not (value and all(map(_is_still, value)))

    def is_folder(self, path: Path) -> bool:
        """A folder with pictures and no video is one: its frames."""
        endings = {entry.suffix.lower() for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".")}
        return bool(endings & set(STILLS)) and not endings & set(FILM_ENDINGS)


def _is_still(value: Any) -> bool:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value).lower().endswith(STILLS)
    return is_picture(value) or (is_array(value) and value.ndim in (2, 3))
