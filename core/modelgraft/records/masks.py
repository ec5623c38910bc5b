"""Masks: for each pixel of a picture, whether it belongs to something. A tensor of truth values is a port `mask[batch ...]`, not this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.mask import MaskType
from modelgraft.records.record import Record, Sight

if TYPE_CHECKING:
    from pathlib import Path

    import numpy

    from modelgraft.records.opening import Say
    from modelgraft.records.record_type import Reading

WANTED = "a mask: a black and white picture, a .npy of truth values, or bool[height width]"


@dataclass(frozen=True, slots=True, eq=False)
class Mask(Record):
    """Some pixels of a picture.

    pixels  bool[height width]
    """

    pixels: numpy.ndarray[Any, Any]
    called: ClassVar[str] = "a mask"
    endings: ClassVar[tuple[str, ...]] = MaskType.writes

    def brief(self) -> str:
        """Its size."""
        return f"mask {self.pixels.shape[1]} x {self.pixels.shape[0]}"

    def facts(self) -> dict[str, Any]:
        """Its size, and how many pixels are in it."""
        height, width = self.pixels.shape
        return {"type": "mask", "width": width, "height": height, "pixels": int(self.pixels.sum())}

    def sight(self) -> Sight:
        """White on black."""
        from modelgraft.records.arrays import grey_png

        return Sight(self.brief(), "image/png", grey_png(self.pixels.astype("float32")))

    def save(self, target: Path, label: str, say: Say) -> None:  # noqa: ARG002 nothing is lost
        """Write a black and white picture (.png), or truth values (.npy)."""
        import numpy

        if target.suffix.lower() == ".npy":
            numpy.save(target, self.pixels)
            return
        from PIL import Image

        Image.fromarray(self.pixels.astype(numpy.uint8) * numpy.uint8(255)).save(target)

    def __repr__(self) -> str:
        return f"Mask({self.pixels.shape[1]} x {self.pixels.shape[0]})"


def read(value: Any, reading: Reading) -> Mask:
    """Take a picture of two shades, or truth values."""
    import numpy

    from modelgraft.records.arrays import array_of, array_or_picture

    if isinstance(value, Mask):
        found = array_of(value.pixels, reading, WANTED)
    else:
        found, picture = array_or_picture(value, reading, WANTED)
        if picture is not None and (picture.mode.startswith("I") or picture.mode == "F"):
            raise reading.refused(numpy.asarray(picture), WANTED)
        if picture is not None:
            found = numpy.asarray(picture.convert("L"))
    if found.ndim != 2 or 0 in found.shape:
        raise reading.refused(found, "bool[height width]")
    if found.dtype.kind == "b":
        return Mask(found)
    shades = numpy.unique(found)
    if len(shades) > 2 or not set(shades.tolist()) <= {0, 1, 255}:
        raise InputError(f"{reading.label}: holds {len(shades)} shades, wanted black and white: (array > 127) makes a mask of grey")
    return Mask(found != 0)


def example(index: int) -> Mask:
    """Two stripes of unlike sizes."""
    import numpy

    height, width = ((31, 21), (23, 37))[index % 2]
    return Mask(numpy.arange(height * width).reshape(height, width) % 5 < 2)
