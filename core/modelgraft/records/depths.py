"""Distances from a camera. Files follow REP 118 of ROS: 16-bit pictures hold millimetres, 0 where nothing was measured; floats hold metres.

https://www.ros.org/reps/rep-0118.html; RealSense, Kinect and ScanNet write the same. TUM writes 5000 counts a metre: `"unit": 0.0002`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.depth import DepthType
from modelgraft.records.record import Record, Sight

if TYPE_CHECKING:
    from pathlib import Path

    import numpy

    from modelgraft.records.opening import Say
    from modelgraft.records.record_type import Reading

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}  # metres in each
WANTED = "a depth map: a .png of 16 bits in millimetres, a .npy of floats in metres, or modelgraft.Depth"


@dataclass(frozen=True, slots=True, eq=False)
class Depth(Record):
    """Distances, seen as a picture.

    metres    float32[height width]; NaN where nothing was measured
    focal_px  focal length of the camera in pixels, for who needs disparities; None when it is not known
    """

    metres: numpy.ndarray[Any, Any]
    focal_px: float | None = None
    gaps: ClassVar[bool] = True
    called: ClassVar[str] = "a depth map"
    endings: ClassVar[tuple[str, ...]] = DepthType.writes

    def brief(self) -> str:
        """Its size."""
        return f"depth map {self.metres.shape[1]} x {self.metres.shape[0]}"

    def facts(self) -> dict[str, Any]:
        """Its size, and how near and far it sees."""
        import numpy

        there = self.metres[numpy.isfinite(self.metres)]
        near, far = (float(there.min()), float(there.max())) if there.size else (None, None)
        height, width = self.metres.shape
        return {"type": "depth", "width": width, "height": height, "nearest_m": near, "farthest_m": far}

    def sight(self) -> Sight:
        """Grey, far is white."""
        from modelgraft.records.arrays import grey_png

        return Sight(self.brief(), "image/png", grey_png(self.metres))

    def save(self, target: Path, label: str, say: Say) -> None:
        """Write millimetres of 16 bits (.png), or metres (.npy); what is beyond 65.535 m is cut in the first, and that is said."""
        import numpy

        if target.suffix.lower() == ".npy":
            numpy.save(target, self.metres)
            return
        from PIL import Image

        counts = numpy.nan_to_num(self.metres * 1000.0, nan=0.0).round()
        if counts.max(initial=0.0) > 65_535:
            say(f"{label}: distances up to {float(numpy.nanmax(self.metres)):.4g} m are cut to 65.535 m; .npy holds all")
        Image.fromarray(counts.clip(0, 65_535).astype(numpy.uint16)).save(target)

    def __repr__(self) -> str:
        return f"Depth({self.metres.shape[1]} x {self.metres.shape[0]})"


def read(value: Any, reading: Reading) -> Depth:
    """Take a picture of 16 bits, floats, or a mapping with `file` or `metres`, and `unit` and `focal_px`."""
    from modelgraft.records.arrays import array_or_picture, number_of, told

    if isinstance(value, Depth):
        return _checked(value.metres, value.focal_px, reading)
    given = told(value, reading, key="metres", known=("unit", "focal_px"))
    if isinstance(given.value, Depth):
        raise reading.refused(given.value, WANTED)
    array, picture = array_or_picture(given.value, reading, WANTED)
    if picture is not None:
        array = _of_picture(picture, reading)
    return _checked(_in_metres(array, given.facts.get("unit"), reading), number_of(given.facts, "focal_px", reading), reading)


def example(index: int) -> Depth:
    """Two slopes of unlike sizes."""
    import numpy

    height, width = ((31, 21), (23, 37))[index % 2]
    return Depth(numpy.linspace(0.5, 4.0, height * width, dtype=numpy.float32).reshape(height, width))


def _of_picture(picture: Any, reading: Reading) -> Any:
    import numpy

    if picture.mode.startswith("I") or picture.mode == "F":
        return numpy.asarray(picture)
    bits = "8 bits, which say" if picture.mode == "L" else f"mode {picture.mode}, which says"
    raise InputError(f"{reading.label}: found a picture of {bits} no distances, wanted {WANTED}")


def _in_metres(array: Any, unit: Any, reading: Reading) -> Any:
    """Floats in metres of counts in a unit, 0 of which is no measurement, or of floats."""
    import numpy

    is_counted = array.dtype.kind in "iu"
    if array.dtype.kind == "b" or array.dtype.itemsize == 1:
        raise reading.refused(array, f"{WANTED}: numbers of 8 bits say no distances")
    if unit is None:
        scale = UNITS["mm"] if is_counted else UNITS["m"]
    elif isinstance(unit, str) and unit in UNITS:
        scale = UNITS[unit]
    elif isinstance(unit, int | float) and not isinstance(unit, bool) and 0 < unit < float("inf"):
        scale = float(unit)
    else:
        raise InputError(f"{reading.label}: unit is {unit!r}; wanted: {', '.join(UNITS)}, or the metres that 1 stands for, such as 0.0002")
    metres = (array.astype(numpy.float64) * scale).astype(numpy.float32)
    return numpy.where(array == 0, numpy.float32("nan"), metres) if is_counted else metres


def _checked(metres: Any, focal_px: float | None, reading: Reading) -> Depth:
    import numpy

    from modelgraft.records.arrays import array_of

    found = array_of(metres, reading, WANTED)
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind != "f":
        raise reading.refused(found, "float[height width] in metres")
    if bool((found < 0).any()) or bool(numpy.isinf(found).any()):
        raise InputError(f"{reading.label}: holds distances below 0 or infinite; wanted: metres, NaN where nothing was measured")
    return Depth(found.astype(numpy.float32), focal_px)
