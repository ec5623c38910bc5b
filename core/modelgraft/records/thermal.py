"""Temperatures, seen as a picture.

Files of 16 bits hold hundredths of a kelvin, as radiometric cameras of FLIR write them (Lepton Engineering Datasheet, "TLinear", 0.01 K);
floats hold degrees Celsius; 8 bits hold brightness alone, as data sets for detection do (LLVIP, KAIST), of which nobody knows the degrees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgraft.records.record_type import Reading, RecordType

if TYPE_CHECKING:
    from modelgraft.records.heats import Thermal


class ThermalType(RecordType):
    """A picture of temperatures: `modelgraft.Thermal`."""

    name, meaning = "thermal", "a picture of temperatures, in degrees Celsius or as brightness alone"
    reads = (".png", ".npy", ".tif", ".tiff", ".pgm", ".jpg", ".jpeg")
    writes = (".png", ".npy")
    colour = ("#be123c", "#ff7d9b")

    def read(self, value: Any, reading: Reading) -> Thermal:
        """Take a picture of 16 or 8 bits, floats, or a mapping with `file` or `values`, and `unit`."""
        from modelgraft.records.heats import read

        return read(value, reading)

    def accepts(self, value: Any) -> bool:
        """Thermal pictures."""
        from modelgraft.records.heats import Thermal

        return isinstance(value, Thermal)

    def example(self, index: int) -> Thermal:
        """Two slopes of unlike sizes."""
        from modelgraft.records.heats import example

        return example(index)
