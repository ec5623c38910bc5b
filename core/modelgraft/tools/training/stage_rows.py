"""What holds for a stage, and where each value comes from: for `modelgraft explain GRAPH training.STAGE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelgraft.kernel.words.errors import Collector
from modelgraft.kernel.words.graph import Origin, SolvedGraph, Value
from modelgraft.tools.training.resolving import resolve_stage
from modelgraft.tools.training.stage_words import STAGE_KEYS
from modelgraft.tools.training.stages import Stage, plain, read_training

StageValue = tuple[str, Any, Origin]


def told_of_training(solved: SolvedGraph) -> Iterator[StageValue]:
    """(key, value, origin) of every value of every stage, below `STAGE.`; what is trained as it was found. The graph was checked."""
    training = read_training(solved.graph, Collector())
    for stage in training.stages if training is not None else ():
        for key, value, origin in _of_stage(solved, stage):
            yield f"{stage.name}.{key}", value, origin


def _of_stage(solved: SolvedGraph, stage: Stage) -> Iterator[StageValue]:
    for key in STAGE_KEYS:
        entries = stage.entries(key)
        if entries is None:
            if key in stage.values or stage[key] is not None:
                yield key, stage[key], stage.origin(key)
            continue
        for name, value in entries.items():
            yield f"{key}.{name}", _short(value), value.origin
    found = resolve_stage(solved, stage, Collector())
    for name, tuning in found.trained.items() if found is not None else ():
        if stage.entries("train") is None:
            yield f"train.{name}", tuning.kind, Origin("solved", None, "it has weights, is not frozen, and a loss depends on it")
        if stage.of_node("learning_rate", name) is None:
            yield f"learning_rate.{name}", tuning.rate, Origin("default")


def _short(value: Value) -> Any:
    found = plain(value)
    return found["tune"] if isinstance(found, Mapping) and not found.get("parts") else found
