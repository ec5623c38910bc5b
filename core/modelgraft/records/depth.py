"""Distances from a camera. Files follow REP 118 of ROS: 16-bit pictures hold millimetres, 0 where nothing was measured; floats hold metres.

https://www.ros.org/reps/rep-0118.html; RealSense, Kinect and ScanNet write the same. TUM writes 5000 counts a metre: `"unit": 0.0002`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgraft.records.record_type import Reading, RecordType

if TYPE_CHECKING:
    from modelgraft.records.depths import Depth


class DepthType(RecordType):
    """A map of distances: `modelgraft.Depth`."""

    name, meaning = "depth", "a picture of distances, in metres"
    reads = (".png", ".npy", ".tif", ".tiff", ".pgm")
    writes = (".png", ".npy")
    colour = ("#0e7490", "#4fc3dc")

    def read(self, value: Any, reading: Reading) -> Depth:
        """Take a picture of 16 bits, floats, or a mapping with `file` or `metres`, and `unit` and `focal_px`."""
        from modelgraft.records.depths import read

        return read(value, reading)

    def accepts(self, value: Any) -> bool:
        """Depth maps."""
        from modelgraft.records.depths import Depth

        return isinstance(value, Depth)

    def example(self, index: int) -> Depth:
        """Two slopes of unlike sizes."""
        from modelgraft.records.depths import example

        return example(index)
