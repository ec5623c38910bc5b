"""Variants of a training side by side: each does a step in turn, on records and frozen parts that are read and run once for all.

What a variant ends at is what it would end at alone, to the bit: they share what is read, never what is drawn or changed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from modelgraft.plugin import InputError, SolvedGraph, choices
from modelgraft_plugins.training.asked import Asked
from modelgraft_plugins.training.chosen import chosen_stages, stage_run
from modelgraft_plugins.training.forecasting import Forecast
from modelgraft_plugins.training.processes import processes
from modelgraft_plugins.training.shared import Shared
from modelgraft_plugins.training.stage import StageRun, cleared
from modelgraft_plugins.training.stepping import NotANumberError
from modelgraft_plugins.training.sweep_report import Outcome, outcome_of, told_together, write_report
from modelgraft_plugins.training.watching import Pace, showing


class Sweep:
    """Variants that are trained side by side, stage by stage.

    outcomes  what came of each, in the order of the stages
    """

    def __init__(
        self,
        graphs: Mapping[str, SolvedGraph],
        flags: Mapping[str, Mapping[str, Any]],
        asked: Asked,
        *,
        stage: str | int | None,
        sets: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Raises GraphError and InputError for what cannot be trained.

        flags  keys of stages, by variant;  sets  what each variant sets, for the report
        """
        self.graphs, self.asked, self._sets = graphs, asked, sets
        self.outcomes: list[Outcome] = []
        self._stages = {name: {one.name: one for one in chosen_stages(graph, stage, flags[name])} for name, graph in graphs.items()}
        self._fallen: dict[str, str] = {}  # variants that stopped, and why
        self._told = set[str]()

    def run(self) -> dict[str, Path]:
        """Train; gives the folders by VARIANT/STAGE. Raises InputError when none is left, and what a training raises otherwise."""
        folders: dict[str, Path] = {}
        for stage in self._names():
            runs = dict(self._runs(stage))
            left = {name: run for name, run in runs.items() if not run.is_done()}
            self._train(stage, left)
            folders |= {f"{name}/{stage}": run.folder for name, run in runs.items() if name not in self._fallen}
            self.outcomes += [outcome_of(name, run, self._fallen.get(name, "")) for name, run in runs.items()]
            if processes(on_cpu=self.asked.device == "cpu").is_main:
                folders_of = {name: run.folder for name, run in runs.items()}
                write_report(self.asked.out, self.outcomes, folders_of, stage=stage, sets=self._sets)
            cleared()
            if len(self._fallen) == len(self.graphs):
                raise InputError(f"none of the {len(self.graphs)} variants is left: {self.asked.out / 'sweep.md'} says why each stopped")
        return folders

    def rehearse(self) -> dict[str, Forecast]:
        """Tell what each variant will take, and all together; changes nothing."""
        found: dict[str, Forecast] = {}
        for stage in self._names():
            shared, forecasts = Shared(), list[Forecast]()
            for name, run in self._runs(stage, shared):
                forecasts.append(run.rehearse())
                found[f"{name}/{stage}"] = forecasts[-1]
            self.asked.note(told_together(stage, forecasts, front_s=shared.front_s / max(1, shared.calls)))
            cleared()
        return found

    def _names(self) -> list[str]:
        return list(dict.fromkeys(stage for stages in self._stages.values() for stage in stages))

    def _runs(self, stage: str, shared: Shared | None = None) -> Iterator[tuple[str, StageRun]]:
        shared = shared or Shared()
        for name, graph in self.graphs.items():
            if name in self._fallen or stage not in self._stages[name]:
                continue
            asked = replace(self.asked, out=self.asked.out / name, home=self.asked.out, shared=shared, screen=None, note=self._noting(name))
            yield name, stage_run(graph, self._stages[name][stage], asked)

    def _noting(self, name: str) -> Any:
        """What a variant tells; what another one told before, such as a warning, is not told again."""

        def note(text: str) -> None:
            if text not in self._told:
                self._told.add(text)
                self.asked.note(f"{name}: {text}")

        return note

    def _train(self, stage: str, runs: Mapping[str, StageRun]) -> None:
        going = {name: run.course() for name, run in runs.items()}
        pace = SweepPace(runs)
        with ExitStack() as stack, showing(self.asked.screen, pace) as show:
            for course in going.values():
                stack.callback(course.close)
            while going:
                for name in list(going):
                    if not self._goes_on(name, going[name], stage):
                        del going[name]
                pace.look(going)
                show(0.0)

    def _goes_on(self, name: str, course: Generator[None, None, None], stage: str) -> bool:
        try:
            next(course)
        except StopIteration:
            return False
        except NotANumberError as error:
            self._fallen[name] = error.unworded.partition("\n")[0]
            self.asked.note(f"{name}: {stage} stops, and the others go on: {error.unworded}")
            return False
        return True


class SweepPace(Pace):
    """How far all variants of a stage are."""

    def __init__(self, runs: Mapping[str, StageRun]) -> None:
        self._runs, self._going = runs, list(runs)
        super().__init__(sum(run.total for run in runs.values()), 0)

    def look(self, going: Mapping[str, Any]) -> None:
        """Hear which variants go on."""
        self._going = list(going)
        self.done = sum(run.progress.step if name in going else run.total for name, run in self._runs.items())

    def words(self, rate: float) -> str:  # noqa: ARG002 each variant has its own
        """Such as `step 12 of 40, 3 of 4 variants, 0:00:08 left`."""
        spent, done = max(self._clock() - self._start, 1e-9), max(1, self.done)
        left = timedelta(seconds=round(spent / done * (self.total - self.done)))
        at = min((self._runs[name].progress.step for name in self._going), default=0)
        most = max((run.total for run in self._runs.values()), default=0)
        told = f", {left} left" if self.done else ""
        return f"step {at:,} of {most:,}, {choices(self._going, most=6)} go on{told}"
