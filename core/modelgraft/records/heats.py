"""Temperatures, seen as a picture.

Files of 16 bits hold hundredths of a kelvin, as radiometric cameras of FLIR write them (Lepton Engineering Datasheet, "TLinear", 0.01 K);
floats hold degrees Celsius; 8 bits hold brightness alone, as data sets for detection do (LLVIP, KAIST), of which nobody knows the degrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.record import Record, Sight
from modelgraft.records.thermal import ThermalType

if TYPE_CHECKING:
    from pathlib import Path

    import numpy

    from modelgraft.records.opening import Say
    from modelgraft.records.record_type import Reading

KELVIN = 273.15  # of 0 degrees Celsius
CENTI = 100.0  # counts in a kelvin
UNITS = ("celsius", "kelvin", "centikelvin", "relative")
WANTED = "a thermal picture: a .png of 16 bits in hundredths of a kelvin or of 8 bits, a .npy of degrees, or modelgraft.Thermal"


@dataclass(frozen=True, slots=True, eq=False)
class Thermal(Record):
    """Temperatures, or where only their order is known, brightness.

    values  float32[height width]; NaN where nothing was measured
    unit    "celsius"; or "relative": 0..1, the coldest to the warmest that the camera showed
    """

    values: numpy.ndarray[Any, Any]
    unit: str = "celsius"
    gaps: ClassVar[bool] = True
    called: ClassVar[str] = "a thermal picture"
    endings: ClassVar[tuple[str, ...]] = ThermalType.writes

    def brief(self) -> str:
        """Its size."""
        return f"thermal picture {self.values.shape[1]} x {self.values.shape[0]}"

    def facts(self) -> dict[str, Any]:
        """Its size, its unit, and what it lies between."""
        import numpy

        there = self.values[numpy.isfinite(self.values)]
        low, high = (float(there.min()), float(there.max())) if there.size else (None, None)
        height, width = self.values.shape
        return {"type": "thermal", "width": width, "height": height, "unit": self.unit, "lowest": low, "highest": high}

    def sight(self) -> Sight:
        """Grey, warm is white."""
        from modelgraft.records.arrays import grey_png

        return Sight(self.brief(), "image/png", grey_png(self.values))

    def save(self, target: Path, label: str, say: Say) -> None:
        """Write hundredths of a kelvin of 16 bits, brightness of 8 (.png), or the values (.npy)."""
        import numpy

        if target.suffix.lower() == ".npy":
            numpy.save(target, self.values)
            return
        from PIL import Image

        known = numpy.nan_to_num(self.values, nan=-KELVIN if self.unit == "celsius" else 0.0)
        counts, most = ((known + KELVIN) * CENTI, 65_535) if self.unit == "celsius" else (known * 255.0, 255)
        if counts.max(initial=0.0) > most:
            say(f"{label}: what is above {most / CENTI - KELVIN:.4g} degrees is cut to that; .npy holds all")
        Image.fromarray(counts.round().clip(0, most).astype(numpy.uint16 if most > 255 else numpy.uint8)).save(target)

    def __repr__(self) -> str:
        return f"Thermal({self.values.shape[1]} x {self.values.shape[0]}, {self.unit})"


def read(value: Any, reading: Reading) -> Thermal:
    """Take a picture of 16 or 8 bits, floats, or a mapping with `file` or `values`, and `unit`."""
    from modelgraft.records.arrays import array_or_picture, told

    if isinstance(value, Thermal):
        return _in_unit(value.values, value.unit, reading)
    given = told(value, reading, key="values", known=("unit",))
    array, picture = array_or_picture(given.value, reading, WANTED)
    if picture is not None:
        array = _of_picture(picture, reading)
    return _in_unit(array, given.facts.get("unit"), reading)


def example(index: int) -> Thermal:
    """Two slopes of unlike sizes."""
    import numpy

    height, width = ((31, 21), (23, 37))[index % 2]
    return Thermal(numpy.linspace(-5.0, 40.0, height * width, dtype=numpy.float32).reshape(height, width))


def _of_picture(picture: Any, reading: Reading) -> Any:
    """Counts of 16 bits, floats, or grey of 8 bits; colours only where all three are the same grey, as a JPEG of one has them."""
    import numpy

    if picture.mode.startswith("I") or picture.mode in ("F", "L"):
        return numpy.asarray(picture)
    array = numpy.asarray(picture.convert("RGB"))
    if int(numpy.ptp(array.astype(numpy.int16), axis=2).max()) > 2:  # what the rounding of JPEG makes of grey
        raise InputError(f"{reading.label}: found a picture in colours, which tell no temperatures: give the one that the camera measured")
    return array[..., 0]


def _in_unit(array: Any, unit: Any, reading: Reading) -> Thermal:
    """Degrees Celsius of counts or floats; brightness of 8 bits."""
    import numpy

    from modelgraft.records.arrays import array_of

    found = array_of(array, reading, WANTED)
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind == "b":
        raise reading.refused(found, "float[height width], in degrees Celsius")
    if unit is None:
        unit = "celsius" if found.dtype.kind == "f" else "relative" if found.dtype.itemsize == 1 else "centikelvin"
    if unit not in UNITS:
        raise InputError(f"{reading.label}: unit is {unit!r}; wanted one of: {', '.join(UNITS)}")
    if unit == "relative" and found.dtype.kind != "f":
        found = found / float(numpy.iinfo(found.dtype).max)
    degrees = found.astype(numpy.float64)
    if unit in ("kelvin", "centikelvin"):
        missing = (found == 0) & (unit == "centikelvin")
        degrees = numpy.where(missing, numpy.nan, degrees / (CENTI if unit == "centikelvin" else 1.0) - KELVIN)
    if unit == "relative" and bool(((degrees < 0) | (degrees > 1)).any()):
        raise InputError(f"{reading.label}: holds brightness beyond 0..1; wanted: 0 for the coldest, 1 for the warmest")
    if unit != "relative" and bool(((degrees < -KELVIN) | numpy.isinf(degrees)).any()):
        raise InputError(f"{reading.label}: holds temperatures below {-KELVIN} degrees Celsius or infinite; NaN is what was not measured")
    return Thermal(degrees.astype(numpy.float32), "relative" if unit == "relative" else "celsius")
