"""Event files that TensorBoard shows, by the tracker of accelerate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import TensorBoardTracker
from accelerate.utils import is_tensorboard_available

from modelgraft.plugin import InputError

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Raise InputError where nothing writes event files."""
    if not is_tensorboard_available():
        found = "events for TensorBoard are written by tensorboardX or tensorboard, and neither is here"
        raise InputError(f"{found}: pip install 'modelgraft[tensorboard]'")


class Events:
    """The numbers of steps and evaluations as `train/loss`, `valid/loss` and so on, in a folder of their own."""

    def __init__(self, folder: Path, *, upto: int) -> None:
        """upto: the steps that are done; what a run that was killed has written behind them is no longer shown."""
        require_tensorboard()
        self._tracker = TensorBoardTracker(FOLDER, folder, purge_step=upto + 1)
        self._tracker.start()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of a row of the table."""
        part, step = row["part"], int(row["step"])
        numbers = {f"{part}/{key}": value for key, value in row.items() if isinstance(value, float) and math.isfinite(value)}
        self._tracker.log(numbers, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._tracker.finish()
