"""Readings of movement: accelerometers, gyroscopes and their like, sampled at a steady rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgraft.records.record_type import Reading, RecordType

if TYPE_CHECKING:
    from modelgraft.records.movements import Imu


class ImuType(RecordType):
    """Readings of movement: `modelgraft.Imu`."""

    name, meaning = "imu", "readings of accelerometer, gyroscope and the like, with their rate"
    reads = (".csv", ".tsv", ".json", ".npy", ".npz")
    writes = (".csv", ".json", ".npy")
    colour = ("#65a30d", "#a9d65a")

    def read(self, value: Any, reading: Reading) -> Imu:
        """Take a file, (samples, rate_hz), or a mapping with `file` or `samples`, and `rate_hz` and `names`."""
        from modelgraft.records.movements import read

        return read(value, reading)

    def accepts(self, value: Any) -> bool:
        """Readings."""
        from modelgraft.records.movements import Imu

        return isinstance(value, Imu)

    def example(self, index: int) -> Imu:
        """Six channels of waves, for a second and for longer."""
        from modelgraft.records.movements import example

        return example(index)
