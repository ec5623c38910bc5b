"""A training from its graph to its trained files: every stage that is asked for, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modelgraft as mg
from modelgraft.commands import Collector, Stage, Training, read_training, resolve_stage
from modelgraft.plugin import InputError, SolvedGraph, choices, nearest
from modelgraft_plugins.training.forecasting import Forecast
from modelgraft_plugins.training.stage import Asked, StageRun, cleared

FLAGS = ("data", "valid", "columns", "steps", "epochs", "batch", "learning_rate", "seed", "precision", "features")  # of a stage


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gave.

    folder     of each stage, by its name: its trained files, card, table and drawing
    forecasts  of a dry run: what each stage would take
    """

    folder: Mapping[str, Path]
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)

    @property
    def last(self) -> Path:
        """The folder of the last stage."""
        return list(self.folder.values())[-1]


def train(  # noqa: PLR0913 each is an option of the command
    graph: Any,  # Any: what `modelgraft.check` takes
    *,
    out: str | Path,
    stage: str | int | None = None,
    resume: bool = False,
    force: bool = False,
    skip_bad: bool = False,
    dry_run: bool = False,
    device: str | None = None,
    init: str | None = None,
    offline: bool = False,
    note: Any = None,
    screen: Any = None,
    params: Mapping[str, Any] | None = None,
    **flags: Any,  # data, valid, steps, epochs, batch, ...: they go over what the stages say
) -> Trained:
    """Train the stages of a graph; each begins with what the one before has trained. See docs/training.md.

    out      the folder that is written to, with one inside for each stage
    stage    the only one, by its name or number from 1 on; None: all
    resume   go on after a run that was stopped; stages that are done are left alone
    force    begin anew in a folder that holds a training, or go on although graph or data are others
    skip_bad leave records out that do not fit
    dry_run  count and time, tell it, and train nothing: `forecasts` says what was found
    note     hears what is told, a text at a time
    flags    go over what the stages say: data, valid, columns, steps, epochs, batch, learning_rate, seed, precision

    Raises GraphError for a graph that cannot be trained, InputError for data that do not fit and losses that are no numbers.
    """
    if unknown := sorted(set(flags) - set(FLAGS)):
        raise InputError(f"train has no option '{unknown[0]}'; it has: {choices(FLAGS)}. {nearest(unknown[0], FLAGS)}".rstrip())
    if not str(out).strip():
        raise InputError("out is empty; name the folder that trained files go to")
    loaded = mg.load(graph, params=params) if isinstance(graph, str | Path) else graph
    solved = mg.check(loaded, offline=offline)
    asked = Asked(
        out=Path(out).expanduser(), device=device, init=init, resumes=resume, forces=force, skips=skip_bad, offline=offline,
        note=note or (lambda _text: None), screen=screen,
    )  # fmt: skip
    chosen = chosen_stages(solved, stage, {key: value for key, value in flags.items() if value is not None})
    folders: dict[str, Path] = {}
    forecasts: dict[str, Forecast] = {}
    for one in chosen:
        run = stage_run(solved, one, asked)
        if dry_run:
            forecasts[one.name] = run.rehearse()
        else:
            folders[one.name] = run.folder if run.is_done() else run.run()
        cleared()
    return Trained(folders, forecasts)


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
