"""What `training:` says of a graph: its words, how they are read, and what is wrong with them before anything loads."""

from __future__ import annotations

from modelgraft.tools.training.resolving import Resolved, Tuning, resolve_stage, training_problems, training_warnings
from modelgraft.tools.training.stages import Stage, Training, given_over, read_training

__all__ = [
    "Resolved",
    "Stage",
    "Training",
    "Tuning",
    "given_over",
    "read_training",
    "resolve_stage",
    "training_problems",
    "training_warnings",
]
