"""The stages of a graph that are asked for, each ready to be trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.commands import Collector, Stage, Training, read_training, resolve_stage
from modelgraft.plugin import InputError, SolvedGraph, choices, nearest
from modelgraft_plugins.training.asked import Asked
from modelgraft_plugins.training.stage import StageRun


def chosen_stages(solved: SolvedGraph, stage: str | int | None, flags: Mapping[str, Any]) -> list[Stage]:
    """The stages that are asked for, with what the caller gives. Raises InputError for one that is not there."""
    training = training_of(solved)
    every = [one.with_(**flags) for one in training.stages]
    if stage is None:
        return every
    found = training.stage(str(stage))
    if found is None:
        names = [one.name for one in training.stages]
        raise InputError(f"the graph has no stage '{stage}'; it has: {choices(names, sort=False)}. {nearest(str(stage), names)}".rstrip())
    return [one for one in every if one.name == found.name]


def training_of(solved: SolvedGraph) -> Training:
    """How a graph is trained; where it does not say, one stage of all defaults."""
    collector = Collector()
    found = read_training(solved.graph, collector)
    collector.finish()
    if found is not None:
        return found
    place = next(iter(solved.nodes.values())).place
    return Training((Stage("train", place, {}),), place)


def stage_run(solved: SolvedGraph, stage: Stage, asked: Asked) -> StageRun:
    """A stage ready to be trained, behind those before it whose trained files are in the folder. Raises GraphError."""
    collector = Collector()
    resolved = resolve_stage(solved, stage, collector)
    collector.finish()
    assert resolved is not None, "a stage without problems was resolved"
    names = [one.name for one in training_of(solved).stages]
    before = [asked.out / name for name in names[: names.index(stage.name)] if (asked.out / name / "card.json").exists()]
    return StageRun(solved, resolved, asked, before=before)
