"""A training from its graph to its trained files: every stage that is asked for, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modelgraft as mg
from modelgraft.commands import given_over
from modelgraft.plugin import GraphError, InputError, SolvedGraph, choices, home_read, nearest
from modelgraft_plugins.training.asked import Asked
from modelgraft_plugins.training.chosen import chosen_stages, stage_run
from modelgraft_plugins.training.events import require_tensorboard
from modelgraft_plugins.training.forecasting import Forecast
from modelgraft_plugins.training.processes import processes
from modelgraft_plugins.training.stage import cleared
from modelgraft_plugins.training.sweep_report import Outcome
from modelgraft_plugins.training.sweeping import Sweep
from modelgraft_plugins.training.variants import variants_of

FLAGS = ("data", "valid", "columns", "steps", "epochs", "batch", "learning_rate", "seed", "precision", "features")  # of a stage


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gave.

    folder     of each stage, by its name: its trained files, card, table and drawing
    forecasts  of a dry run: what each stage would take
    table      of a sweep: what came of each variant in each stage; folders and forecasts are then those of VARIANT/STAGE
    """

    folder: Mapping[str, Path]
    forecasts: Mapping[str, Forecast] = field(default_factory=dict)
    table: Sequence[Outcome] = ()

    @property
    def last(self) -> Path:
        """The folder of the last stage."""
        return list(self.folder.values())[-1]


def train(  # noqa: PLR0913 each is an option of the command
    graph: Any,  # Any: what `modelgraft.check` takes
    *,
    out: str | Path,
    stage: str | int | None = None,
    sweep: Any = None,  # Any: words, the name of a file, or axes
    resume: bool = False,
    force: bool = False,
    skip_bad: bool = False,
    dry_run: bool = False,
    tensorboard: bool = False,
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
    sweep    variants that are trained side by side, each in a folder of its own: axes by name, or what `--sweep` takes
    resume   go on after a run that was stopped; stages that are done are left alone
    force    begin anew in a folder that holds a training, or go on although graph or data are others
    skip_bad leave records out that do not fit
    dry_run  count and time, tell it, and train nothing: `forecasts` says what was found
    tensorboard  write events for it beside the table of each stage
    note     hears what is told, a text at a time
    flags    go over what the stages say: data, valid, columns, steps, epochs, batch, learning_rate, seed, precision

    Raises GraphError for a graph that cannot be trained, InputError for data that do not fit and losses that are no numbers.
    """
    if unknown := sorted(set(flags) - set(FLAGS)):
        raise InputError(f"train has no option '{unknown[0]}'; it has: {choices(FLAGS)}. {nearest(unknown[0], FLAGS)}".rstrip())
    if not str(out).strip():
        raise InputError("out is empty; name the folder that trained files go to")
    loaded = mg.load(graph, params=params) if isinstance(graph, str | Path) else graph
    if tensorboard:
        require_tensorboard()
    is_main = processes(on_cpu=device == "cpu").is_main
    asked = Asked(
        out=home_read(out), device=device, init=init, resumes=resume, forces=force, skips=skip_bad, offline=offline,
        note=note if note is not None and is_main else (lambda _text: None), screen=screen, tensorboard=tensorboard,
    )  # fmt: skip
    given = {key: value for key, value in flags.items() if value is not None}
    if sweep is not None:
        return _swept(loaded, sweep, asked, stage=stage, flags=given, is_dry=dry_run)
    solved = mg.check(given_over(loaded.spec, given) if isinstance(loaded, mg.Graph) else loaded, offline=offline)
    folders: dict[str, Path] = {}
    forecasts: dict[str, Forecast] = {}
    for one in chosen_stages(solved, stage, given):
        run = stage_run(solved, one, asked)
        if dry_run:
            forecasts[one.name] = run.rehearse()
        else:
            folders[one.name] = run.folder if run.is_done() else run.run()
        cleared()
    return Trained(folders, forecasts)


def _swept(graph: Any, sweep: Any, asked: Asked, *, stage: str | int | None, flags: Mapping[str, Any], is_dry: bool) -> Trained:
    if not isinstance(graph, mg.Graph):
        raise InputError("variants are made before a graph is checked: give train the graph as it was loaded, or its file")
    variants = variants_of(sweep, list(graph.spec.nodes))
    solved: dict[str, SolvedGraph] = {}
    wrong: list[str] = []
    for one in variants:
        try:
            varied = graph.with_params(one.settings) if one.settings else graph
            solved[one.name] = mg.check(given_over(varied.spec, {**flags, **one.flags}), offline=asked.offline)
        except GraphError as error:
            wrong.append(f"{one.name}: {error.unworded}")
    if wrong:
        raise InputError("\n".join([f"{len(wrong)} of {len(variants)} variants cannot be trained", *wrong]))
    sets = {one.name: one.sets for one in variants}
    found = Sweep(solved, {one.name: {**flags, **one.flags} for one in variants}, asked, stage=stage, sets=sets)
    if is_dry:
        return Trained({}, found.rehearse())
    return Trained(found.run(), table=found.outcomes)
