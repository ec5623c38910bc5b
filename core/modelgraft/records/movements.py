"""Readings of movement: accelerometers, gyroscopes and their like, sampled at a steady rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.amounts import in_seconds
from modelgraft.records.imu import ImuType
from modelgraft.records.record import Record
from modelgraft.records.telling import describe

if TYPE_CHECKING:
    from pathlib import Path

    import numpy

    from modelgraft.records.opening import Say
    from modelgraft.records.record_type import Reading

RATE_HZ = 1_000_000.0  # above every sensor of movement
WANTED_READINGS = "readings of movement: a .csv with a column of times, a .npy or .json, (samples, rate_hz) or modelgraft.Imu"


@dataclass(frozen=True, slots=True, eq=False)
class Imu(Record):
    """Readings of some channels, in the units that the sensor gives.

    samples  float32[channels samples]
    rate_hz  samples per second
    names    of the channels, such as ("acc_x", "acc_y"); empty when they are not known
    """

    samples: numpy.ndarray[Any, Any]
    rate_hz: float
    names: tuple[str, ...] = ()
    called: ClassVar[str] = "readings of movement"
    endings: ClassVar[tuple[str, ...]] = ImuType.writes

    @property
    def seconds(self) -> float:
        """How long they last."""
        return float(self.samples.shape[1]) / self.rate_hz

    def brief(self) -> str:
        """How many channels for how long."""
        return f"readings of {self.samples.shape[0]} channels for {in_seconds(self.seconds)}"

    def facts(self) -> dict[str, Any]:
        """Its rate and shape."""
        channels, count = self.samples.shape
        return {"type": "imu", "rate_hz": self.rate_hz, "channels": channels, "samples": count, "names": list(self.names)}

    def save(self, target: Path, label: str, say: Say) -> None:
        """Write a table with times (.csv), everything (.json), or the samples alone (.npy), which is said."""
        import numpy

        from modelgraft.records.json_text import json_text

        if target.suffix.lower() == ".npy":
            say(f"{label}: .npy holds the samples alone; their rate is {self.rate_hz:g} Hz")
            numpy.save(target, self.samples)
        elif target.suffix.lower() == ".json":
            content = {"samples": self.samples.tolist(), "rate_hz": self.rate_hz, "names": list(self.names)}
            target.write_text(json_text(content) + "\n", encoding="utf-8")
        else:
            names = self.names or tuple(f"channel_{index}" for index in range(self.samples.shape[0]))
            times = numpy.arange(self.samples.shape[1]) / self.rate_hz
            rows = [",".join(("time_s", *names))]
            rows += [",".join(f"{number:.9g}" for number in row) for row in numpy.vstack([times, self.samples]).T]
            target.write_text("\n".join(rows) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        return f"Imu({self.samples.shape[0]} channels, {self.seconds:.2f} s, {self.rate_hz:g} Hz)"


def read(value: Any, reading: Reading) -> Imu:
    """Take a file, (samples, rate_hz), or a mapping with `file` or `samples`, and `rate_hz` and `names`."""
    from modelgraft.records.arrays import is_source, number_of, told
    from modelgraft.records.imu_files import read_imu

    if isinstance(value, Imu):
        return checked(value.samples, value.rate_hz, value.names, reading)
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "shape"):
        return checked(value[0], value[1], (), reading)
    given = told(value, reading, key="samples", known=("rate_hz", "names"))
    rate, names = number_of(given.facts, "rate_hz", reading), _names(given.facts.get("names"), reading)
    if is_source(given.value):
        found = read_imu(given.value, reading, rate_hz=rate)
        return checked(found.samples, found.rate_hz, names or found.names, reading)
    if rate is None and (isinstance(given.value, list | tuple) or hasattr(given.value, "shape")):
        raise InputError(f"{reading.label}: found {describe(given.value)} without a rate, wanted (samples, rate_hz) or modelgraft.Imu")
    return checked(given.value, rate, names, reading)


def example(index: int) -> Imu:
    """Six channels of waves, for a second and for longer."""
    import numpy

    times = numpy.arange(100 + 40 * index) / 100.0
    waves = numpy.sin(times[None] * numpy.arange(1, 7)[:, None])
    return Imu(waves.astype(numpy.float32), 100.0)


def _names(names: Any, reading: Reading) -> tuple[str, ...]:
    if names is None:
        return ()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{reading.label}: names is {names!r}; wanted: a list of texts, one for each channel")
    return tuple(names)


def checked(samples: Any, rate_hz: Any, names: tuple[str, ...], reading: Reading) -> Imu:
    """Readings in memory of their own. Raises InputError for what is none."""
    import numpy

    from modelgraft.records.arrays import array_of

    found = numpy.atleast_2d(array_of(samples, reading, WANTED_READINGS))
    if found.ndim != 2 or 0 in found.shape or found.dtype.kind not in "iuf":
        raise reading.refused(found, "float[channels samples]")
    channels, count = found.shape
    if channels > count:
        raise InputError(f"{reading.label}: found {channels} channels of {count} samples, wanted float[channels samples]: transpose them")
    if isinstance(rate_hz, bool | str | bytes) or not hasattr(rate_hz, "__float__") or not 0 < rate_hz <= RATE_HZ:
        raise InputError(f"{reading.label}: rate_hz is {rate_hz!r}; wanted: samples per second, up to {RATE_HZ:,.0f}")
    if not bool(numpy.isfinite(found).all()):
        raise InputError(f"{reading.label}: holds readings that are no finite numbers; fill what is missing first")
    if names and len(names) != channels:
        raise InputError(f"{reading.label}: found {len(names)} names for {channels} channels")
    return Imu(found.astype(numpy.float32), float(rate_hz), names)
