"""The work of imu/preprocess: readings of a sensor become a signal of six rows and a fixed number of steps."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from modelgraft.plugin import Imu, InputError, LoadContext, NodeRuntime, choices
from modelgraft_plugins.embedding.preparing import ROWS

if TYPE_CHECKING:
    from modelgraft_plugins.embedding.preparing import Movement

Signal = np.ndarray[Any, np.dtype[np.float32]]

GRAVITY = 9.80665  # m/s^2, standard gravity
MOST_ACCELERATION = 2_000.0  # m/s^2: 200 g, the most that sensors for bodies measure
MOST_ROTATION = 100.0  # rad/s: consumer sensors end at 2,000 degrees a second, 35 rad/s
ACCELERATION, ROTATION = (
    r"(?:lin(?:ear)?_?)?acc(?:el(?:eration|erometer)?)?",
    r"gyr(?:o(?:scope)?)?|ang(?:ular)?_?vel(?:ocity)?|rot(?:ation)?",
)


def load(config: Movement, _context: LoadContext) -> Mover:
    """Make the function from readings to float32[batch rows steps]."""
    return Mover(config)


class Mover:
    """Prepares readings, and says what it changed about them."""

    def __init__(self, config: Movement) -> None:
        self.config = config
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, imu: list[Imu]) -> Tensor:
        """Prepare a batch. Raises InputError for other channels, for units that cannot be, and for readings that end before `start_s`."""
        return torch.from_numpy(np.stack([self._prepared(record) for record in imu]))

    def _prepared(self, imu: Imu) -> Signal:
        """One recording as float32[rows steps]."""
        config = self.config
        if config.start_s >= imu.seconds:
            raise InputError(f"imu/preprocess: start_s is {config.start_s:g}, and the readings last {imu.seconds:.3g} s")
        rest = imu.seconds - config.start_s
        if rest < config.window_s * (1 - 1e-6):
            self._say(f"the readings last {rest:.3g} s of {config.window_s:g} s; behind them stand zeros")
        elif rest > config.window_s * (1 + 1e-6):
            self._say(f"of {imu.seconds:.3g} s of readings {config.window_s:g} s are taken, from {config.start_s:g} s on")
        return resampled(self._in_units(imu.samples[_order(imu)]), imu.rate_hz, config)

    def _in_units(self, rows: Signal) -> Signal:
        """In m/s^2 and rad/s. Raises InputError for readings that no sensor gives in these units."""
        config = self.config
        factors = [GRAVITY if config.acceleration == "g" else 1.0] * 3 + [math.pi / 180 if config.rotation == "deg/s" else 1.0] * 3
        found: Signal = rows * np.array(factors, np.float32)[:, None]
        fast, turning = float(np.abs(found[:3]).max()), float(np.abs(found[3:]).max())
        if fast > MOST_ACCELERATION:
            way = "give m/s^2 or g, no counts of the sensor"
            raise InputError(f"imu/preprocess: accelerations reach {fast:.4g} m/s^2, beyond {MOST_ACCELERATION:,.0f}: {way}")
        if turning > MOST_ROTATION:
            way = (
                "set rotation: deg/s where they are degrees"
                if config.rotation == "rad/s"
                else "give degrees a second, no counts of the sensor"
            )
            raise InputError(f"imu/preprocess: rotations reach {turning:.4g} rad/s, beyond {MOST_ROTATION:,.0f}: {way}")
        return found

    def _say(self, text: str) -> None:
        if self.runtime is not None:
            self.runtime.emit("warning", text=text)


def resampled(rows: Signal, rate_hz: float, config: Movement) -> Signal:
    """float32[rows readings] -> float32[rows steps]: means where the sensor is faster, else straight lines; zeros behind the end.

    Step k lies at start_s + k * window_s / steps. A mean is the integral of the straight lines over one step, divided by its time.
    """
    assert config.steps is not None, "a graph is solved before it is loaded"
    step_s = config.window_s / config.steps
    times = np.arange(rows.shape[1]) / rate_hz
    begins = config.start_s + np.arange(config.steps) * step_s
    if 1 / rate_hz >= step_s:
        found = np.stack([np.interp(begins, times, row) for row in rows])
    else:
        edges = np.append(begins, begins[-1] + step_s)
        found = np.stack([np.diff(_integral(edges, times, row.astype(np.float64))) / step_s for row in rows])
    found[:, begins >= rows.shape[1] / rate_hz] = 0.0
    return found.astype(np.float32)


def _integral(places: np.ndarray[Any, Any], times: np.ndarray[Any, Any], row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The area below straight lines between readings, from the first of them to each place; beyond the last it is level."""
    step = times[1] - times[0]
    areas = np.append(0.0, np.cumsum((row[1:] + row[:-1]) / 2 * step))
    index = np.minimum((places / step).astype(int), len(row) - 1)
    beyond = places - times[index]
    slope = np.append(np.diff(row), 0.0)[index] / step
    return np.asarray(areas[index] + row[index] * beyond + slope * beyond**2 / 2)


def _order(imu: Imu) -> list[int]:
    """The channels in the order of the rows. Raises InputError that names what is there and what is lacking."""
    wanted = f"wanted {', '.join(ROWS)}"
    if not imu.names:
        if imu.samples.shape[0] != len(ROWS):
            raise InputError(f"imu/preprocess: found {imu.samples.shape[0]} channels without names, {wanted}: name them, or give these six")
        return list(range(len(ROWS)))
    found = {row: index for index, name in enumerate(imu.names) if (row := _row(name)) is not None}
    if lacking := [row for row in ROWS if row not in found]:
        raise InputError(f"imu/preprocess: found the channels {choices(imu.names, sort=False)}, {wanted}; there is no {', '.join(lacking)}")
    return [found[row] for row in ROWS]


def _row(name: str) -> str | None:
    """The row that a channel is by its name; None where it is none of them, such as a compass."""
    plain = re.sub(r"[\[(].*?[\])]", "", name.lower()).strip().replace(" ", "_").replace(".", "_").replace("-", "_")
    for kind, pattern in (("acc", ACCELERATION), ("gyro", ROTATION)):
        if (match := re.fullmatch(rf"(?:{pattern})_?([xyz])", plain)) is not None:
            return f"{kind}_{match[1]}"
    return None
