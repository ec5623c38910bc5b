"""A stage from its data to its trained files."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from safetensors import SafetensorError

import modelgraft as mg
from modelgraft.commands import Learning, ReadBatch, Resolved, Stage, clear_asides
from modelgraft.plugin import InputError, ModelgraftError, Node, SolvedGraph, choices, option, sha256_of
from modelgraft_plugins.training import checkpoints, identity
from modelgraft_plugins.training.ahead import Ahead
from modelgraft_plugins.training.alone import alone
from modelgraft_plugins.training.asked import Asked
from modelgraft_plugins.training.checkpoints import CHECKPOINTS, Progress
from modelgraft_plugins.training.evaluating import evaluate
from modelgraft_plugins.training.events import Events
from modelgraft_plugins.training.features import Features
from modelgraft_plugins.training.forecasting import Forecast, forecast
from modelgraft_plugins.training.keeping import Kept, front_of, have_features
from modelgraft_plugins.training.measuring import measures_of
from modelgraft_plugins.training.plotting import draw
from modelgraft_plugins.training.processes import processes
from modelgraft_plugins.training.records import Group, Taken, read_data
from modelgraft_plugins.training.rows import Order, Rows, refuse_bad
from modelgraft_plugins.training.shared import Front, once
from modelgraft_plugins.training.stepping import MIXES, AgainError, NotANumberError, Step, Stepper, find_origin
from modelgraft_plugins.training.trained import trained_in, write_trained
from modelgraft_plugins.training.tuning import warmup_steps
from modelgraft_plugins.training.watching import METRICS, Pace, Table, read_table, showing

SAVE_S = 600  # so much work is lost at the most where steps are slow; of several processes none knows the clocks of the others
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what room would help


def total_steps(stage: Stage, order: Order) -> int:
    """How many updates a stage has."""
    if stage["steps"] is not None:
        return int(stage["steps"])
    return max(1, round(float(stage["epochs"]) * order.batches / int(stage["accumulate"])))


def unfrozen(solved: SolvedGraph, resolved: Resolved) -> SolvedGraph:
    """The graph whose trained nodes have weights of their own, and whose others are frozen: these pipelines may share."""

    def node(name: str, found: Node) -> Node:
        return replace(found, frozen=name not in resolved.trained)

    return replace(solved, nodes={name: node(name, found) for name, found in solved.nodes.items()})


class StageRun:
    """A stage that is trained."""

    features: Features | None = None  # what is kept of frozen parts, once it is written
    kept = Kept((), frozenset(), frozenset(), {})  # and what could be
    is_rehearsal = False  # nothing is written
    front: Front | None = None  # what stays as it is, where the variants of a sweep call it once for all
    parameters, steps_done, seconds = 0, 0, 0.0  # that are trained; of this process, without what a sweep shares
    saved_s = 0.0  # when the last checkpoint was written, by a clock that never goes back

    def __init__(self, solved: SolvedGraph, resolved: Resolved, asked: Asked, *, before: Sequence[Path] = ()) -> None:
        """before: the folders of the stages that were trained before, whose weights this one begins with."""
        self.solved, self.resolved, self.asked, self.before = solved, resolved, asked, tuple(before)
        self.stage, self.folder = resolved.stage, asked.out / resolved.stage.name
        self._refuse_halves()
        self.processes = processes(on_cpu=asked.device == "cpu")
        self.measures = measures_of(resolved, solved)
        self.data = read_data(resolved, solved, asked)
        self.total = total_steps(self.stage, self.data.order)
        valid = self.data.valid.digest if self.data.valid is not None else ""
        self.facts = identity.identity_of(resolved, solved, data=self.data.rows.digest, valid=valid, records=len(self.data.rows))
        self.facts["stage.total"] = self.total
        self.facts |= {f"before.{file.parent.name}.{name}": sha256_of(file) for file, name, _ in self.former()}
        self.facts |= {"processes": self.processes.count} if self.processes.count > 1 else {}
        self.progress = Progress(skipped=dict(self.data.rows.bad))
        self.skipped_valid = dict(self.data.valid.bad) if self.data.valid is not None else {}

    def _refuse_halves(self) -> None:
        if self.stage["precision"] == "float16" and (self.asked.device == "cpu" or not torch.cuda.is_available()):
            found = f"stage {self.stage.name} computes in float16, whose losses are scaled on a GPU, and it is trained on the CPU"
            raise InputError(f"{found}; take precision: bfloat16, which needs no scaling, or float32")

    def is_done(self) -> bool:
        """Whether the folder holds this very stage, trained to its end. Raises InputError for one that may not be written over."""
        begins_anew = self.asked.forces and not self.asked.resumes
        found = None if begins_anew else identity.read_identity(self.folder)
        has_card = (self.folder / "card.json").exists()
        self.processes.wait()  # the first one writes there soon
        if found is None:
            return False
        if not self.asked.resumes and not self.asked.forces:
            ways = f"{option('resume')} goes on with it, {option('force')} begins anew, another folder as out keeps it"
            raise InputError(f"{self.folder} holds a training already; {ways}")
        if self.asked.resumes and not self.asked.forces:
            identity.refuse_other(found, self.facts, folder=self.folder)
        return self.asked.resumes and has_card and found == self.facts

    def run(self) -> Path:
        """Train; gives the folder with the trained files. Raises InputError for records that do not fit, NotANumberError, a full disk."""
        for _ in self.course():
            pass
        return self.folder

    def course(self) -> Generator[None, None, None]:
        """Train as `run` does, and stand still behind each step, so that others may do theirs."""
        try:
            with alone(self.folder) if self.processes.is_main else nullcontext():
                self._clear_leftovers()
                yield from self._trained()
        except (OSError, SafetensorError) as error:
            found = f"{self.folder} cannot be written: {getattr(error, 'strerror', None) or error}"
            if isinstance(error, OSError) and error.errno not in FULL:
                raise InputError(f"{found}; name another folder as {option('out', 'DIR')}") from error
            raise InputError(f"{found}; make room, and {option('resume')} goes on from the last checkpoint") from error

    def _clear_leftovers(self) -> None:
        """Delete what a run that was killed has half written."""
        if self.processes.is_main:
            clear_asides(self.folder)
            clear_asides(self.folder / CHECKPOINTS)
            checkpoints.let_go(self.folder / CHECKPOINTS)

    def _trained(self) -> Iterator[None]:
        with self.opened() as stepper:
            self._begin(stepper)
            if self.progress.step < self.total:
                self.tell_forecast(stepper)
            yield
            start = self._now()
            try:
                for _ in self._loop(stepper):
                    self.seconds += self._now() - start
                    yield
                    start = self._now()
            except NotANumberError as error:
                raise self._stopped(stepper, error) from error
            except KeyboardInterrupt:
                kept = [path.name for path in checkpoints.checkpoints_in(self.folder / CHECKPOINTS)[-1:]]
                ways = f"{option('resume')} goes on from {kept[0]}" if kept else "no checkpoint is written yet; a smaller `save` keeps more"
                self.asked.note(f"{self.stage.name}: stopped behind step {self.progress.step:,}; {ways}")
                raise
            if self.processes.is_main:
                self._finish(stepper, seconds=self.seconds)
            self.processes.wait()  # the next stage begins with what was written

    def _now(self) -> float:
        """A clock that stands still while frozen parts are called for all variants of a sweep."""
        return monotonic() - (self.asked.shared.front_s if self.asked.shared is not None else 0.0)

    def rehearse(self) -> Forecast:
        """Tell what the stage will take, and change nothing."""
        self.is_rehearsal = True
        with self.opened() as stepper:
            return self.tell_forecast(stepper)

    def tell_forecast(self, stepper: Stepper) -> Forecast:
        """Count and time, and tell it."""
        found = forecast(self, stepper)
        for line in found.lines():
            self.asked.note(line)
        if self.processes.count > 1:
            self.asked.note(f"{self.stage.name}: {self.processes.count} processes train together, each on its part of every batch")
        if (rising := warmup_steps(self.stage, self.total)) > self.total:
            left = f"{self.total:,} step{'s end' if self.total > 1 else ' ends'} at {self.total / (rising + 1):.2g} of the learning rate"
            self.asked.note(f"{self.stage.name}: warmup takes {rising:,} steps: {left}; below 1 it is a share of them, and 0 is none")
        return found

    @contextmanager
    def opened(self) -> Iterator[Stepper]:
        """The stage with its weights, ready for a step."""
        AcceleratorState._reset_state(reset_partial_state=PartialState().num_processes == 1)  # one stage may compute in another way
        accelerator = Accelerator(cpu=self.asked.device == "cpu", mixed_precision=MIXES[self.stage["precision"]])
        device = self.asked.device or str(accelerator.device)
        options: dict[str, Any] = {"init": self.asked.init, "offline": self.asked.offline, "cache_bytes": 0}
        graph = unfrozen(self.solved, self.resolved)
        with mg.open(graph, backend="torch", device=device, seed=self.stage["seed"], **options) as pipeline:
            wanted = [str(ref) for ref, _ in self.resolved.losses.values()]
            have_features(self, pipeline, wanted)
            self.front = front_of(self, pipeline)
            ready = self.kept.refs if self.features is not None or self.front is not None else ()
            learning = Learning(pipeline, wanted, learners=self.resolved.learners, ready=ready)
            stepper = Stepper(learning, self.resolved, self.solved, accelerator, total=self.total)
            self.parameters = sum(one.parameter.numel() for one in stepper.trained)
            for text in learning.warnings:
                self.asked.note(text)
            self.take_over(learning)
            watched = [str(ref) for ref in self.resolved.judged]
            self.judges_kept = bool(ready) and (self.data.valid is None or self.front is not None)  # others have no features
            self.judging = Learning(pipeline, [*wanted, *watched], learners=(), ready=ready if self.judges_kept else ())
            if not self.judging.takes_ready <= set(ready):  # it looks at what is not kept
                self.judges_kept, self.judging = False, Learning(pipeline, [*wanted, *watched], learners=())
            yield stepper

    def take_over(self, learning: Learning) -> None:
        """Begin with what earlier stages have trained."""
        for file, name, kind in self.former():
            if name in learning.modules:
                checkpoints.load_into(learning.modules[name], file, is_graft=kind == "lora")

    def former(self) -> list[tuple[Path, str, str]]:
        """The files that earlier stages have trained, in their order, with node and tuning. Raises InputError for one that is gone."""
        found = [(folder / file, name, kind) for folder in self.before for name, file, kind in trained_in(folder)]
        for file, name, _ in found:
            if not file.is_file():
                way = f"put it back, or train that stage anew: {option('force')}"
                raise InputError(f"stage {self.stage.name} begins with what was trained of {name} before, and {file} is not there; {way}")
        return [one for one in found if one[1] in self.solved.nodes]

    def _begin(self, stepper: Stepper) -> None:
        newest = checkpoints.checkpoints_in(self.folder / CHECKPOINTS)
        if newest and self.asked.resumes:
            self.progress = checkpoints.restore(newest[-1], stepper)
            if self.asked.forces:  # what ended it early was of another run
                self.progress.is_done, self.progress.since = False, 0
            self.asked.note(f"{self.stage.name}: goes on behind step {self.progress.step:,} of {self.total:,}")
        self.processes.wait()
        if not (newest and self.asked.resumes) and self.processes.is_main:
            checkpoints.clear(self.folder / CHECKPOINTS)
            (self.folder / "card.json").unlink(missing_ok=True)
        if self.processes.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            identity.write_identity(self.folder, self.facts)

    # -- steps -----------------------------------------------------------------------------------------------------------

    def _loop(self, stepper: Stepper) -> Iterator[None]:
        is_main, self.saved_s = self.processes.is_main, monotonic()
        events = Events(self.folder, upto=self.progress.step) if self.asked.tensorboard and is_main else None
        table = Table(
            self.folder, self.resolved.table, upto=self.progress.step, is_written=is_main, also=events.add if events is not None else None
        )
        pace = Pace(self.total, self.progress.step)
        groups, vain = self._groups(), 0
        ahead: Ahead[Group, list[Taken]] = Ahead(lambda group: self._read_group(stepper, group.numbers), lambda: len(self.progress.skipped))
        chosen = next(groups)
        try:
            with showing(self.asked.screen if self.processes.is_main else None, pace) as show, ahead:
                while self.progress.step < self.total and not self.progress.is_done:
                    step, epoch, numbers, read = self.progress.step, chosen.epoch, chosen.numbers, ahead.take(chosen)
                    self.progress.batch += len(numbers)
                    chosen = next(groups)
                    if step + 1 < self.total:
                        ahead.begin(chosen)
                    found, records = self._update(stepper, numbers, read)
                    vain = 0 if found is not None else vain + len(numbers)
                    if vain > 2 * self.data.order.batches:  # an epoch and what another shuffles aside
                        count = len(self.data.rows)
                        there = f"of the {count:,} record{'s' * (count != 1)} of {self.data.name}"
                        raise InputError(f"{there} none fits: there is nothing to train on")
                    if found is None:
                        continue
                    self.progress.step += 1
                    pace.take(self.progress.step, found.loss, records)
                    rate = stepper.rates(step)[0]
                    row = {"step": step + 1, "epoch": epoch, "part": "train", "loss": found.loss, **found.losses}
                    table.add({**row, "norm": found.norm, "learning_rate": rate})
                    show(rate)
                    self._after(stepper, table, epoch)
                    self.steps_done += 1
                    yield
        finally:
            table.close()
            if events is not None:
                events.close()

    def _groups(self) -> Iterator[Group]:
        batches = self.data.order.from_batch(self.progress.batch)
        while True:
            chosen = list(islice(batches, self.stage["accumulate"]))
            yield Group(chosen[0][0], [self.processes.part(numbers) for _, numbers in chosen])

    def _read_group(self, stepper: Stepper, numbers: Sequence[Sequence[int]]) -> list[Taken]:
        return [self.read(stepper.learning, some, self.data.rows) for some in numbers]

    def _update(self, stepper: Stepper, numbers: Sequence[Sequence[int]], taken: Sequence[Taken]) -> tuple[Step | None, int]:
        read = [self.accepted(one, self.data.rows) for one in taken]
        if self.processes.count == 1:
            read = [one for one in read if one[0].count]
        batches, ready = [batch for batch, _ in read], [given for _, given in read]
        if not self.processes.sums([float(sum(batch.count for batch in batches))])[0]:
            return None, 0
        try:
            found = stepper.update(batches, step=self.progress.step, ready=ready)
        except NotANumberError as error:
            places = [self.data.rows.place(number) for some in numbers for number in some]
            origins = (
                find_origin(stepper, batch, step=self.progress.step, number=index, ready=ready[index])
                for index, batch in enumerate(batches)
            )
            where = next(filter(None, origins), "")
            told = f": {where} is the first that is none" if where else ""
            raise NotANumberError(f"{error}{told}, with the records {choices(places, most=6, sort=False)}") from error
        except AgainError:
            return self._update(stepper, numbers, taken)
        except ModelgraftError as error:
            self.leave_out(error, stepper.learning, [number for some in numbers for number in some], self.data.rows)
            return self._update(stepper, numbers, self._read_group(stepper, numbers))
        return found, sum(batch.count for batch in batches)

    def batch(
        self, learning: Learning, numbers: Sequence[int], rows: Rows, *, has_kept: bool = True
    ) -> tuple[ReadBatch, Mapping[Any, Any]]:
        """Some records as a batch, and what is kept of them. Raises InputError for those that cannot be read, unless they are skipped."""
        return self.accepted(self.read(learning, numbers, rows, has_kept=has_kept), rows)

    def read(self, learning: Learning, numbers: Sequence[int], rows: Rows, *, has_kept: bool = True) -> Taken:
        """Some records, without those that are left out already. Changes nothing."""
        features, skipped, shared = self.features if has_kept else None, self._skipped(rows), self.asked.shared
        out = features.bad if features is not None else {}
        numbers = [number for number in numbers if number not in out and not (skipped and rows.place(number) in skipped)]
        batch = once(shared, (id(rows), *numbers, learning.takes), lambda: learning.read(*rows.take(numbers, learning.inputs)))
        there = [number for index, number in enumerate(numbers) if index not in batch.left_out]
        if features is None or not there:
            return Taken(numbers, batch, {}, learning, has_kept)
        ready = once(shared, (id(rows), *there, features.folder, *features.refs), lambda: features.take(there))
        return Taken(numbers, batch, ready, learning, has_kept)

    def accepted(self, taken: Taken, rows: Rows) -> tuple[ReadBatch, Mapping[Any, Any]]:
        """What was read, where its bad records may be left out. Raises InputError unless they are skipped."""
        front = self.front if taken.has_kept and taken.numbers else None
        seen = front.take(rows, taken.numbers, seed=self.stage["seed"]) if front is not None else None
        refused = {index: error.unworded for index, error in taken.batch.left_out.items()} | dict(seen.refused if seen is not None else {})
        bad = {rows.place(number): why for number, why in sorted((taken.numbers[index], why) for index, why in refused.items())}
        refuse_bad(bad, data=self.data.name, skips=self.asked.skips, note=self.asked.note)
        self._skipped(rows).update(bad)
        if seen is None:
            return taken.batch, taken.ready
        return self.batch(taken.learning, taken.numbers, rows) if refused else (taken.batch, seen.values)

    def _skipped(self, rows: Rows) -> dict[str, str]:
        return self.progress.skipped if rows is self.data.rows else self.skipped_valid

    def leave_out(self, error: ModelgraftError, learning: Learning, numbers: Sequence[int], rows: Rows, *, has_kept: bool = True) -> None:
        """Find the records that a node refuses, and leave them out. Raises InputError unless they are skipped, the error for all alike."""
        bad: dict[str, str] = {}
        for number in numbers:
            batch, ready = self.batch(learning, [number], rows, has_kept=has_kept)
            try:
                if batch.count:
                    with torch.no_grad():
                        learning(batch, seed=self.stage["seed"], ready=ready)
            except ModelgraftError as wrong:
                bad[rows.place(number)] = wrong.unworded
        if not bad or (len(bad) == len(numbers) > 1 and len({*bad.values()}) == 1 and not self.asked.skips):
            raise error  # what refuses all of a batch alike is not refused for what a row holds
        refuse_bad(bad, data=self.data.name, skips=self.asked.skips, note=self.asked.note)
        self._skipped(rows).update(bad)

    def _after(self, stepper: Stepper, table: Table, epoch: int) -> None:
        """What is done behind a step now and then: an evaluation, a checkpoint."""
        step, is_last = self.progress.step, self.progress.step == self.total
        if is_last or (self.stage["evaluate"] and step % self.stage["evaluate"] == 0):
            evaluate(self, stepper, table, epoch)
        is_late = monotonic() - self.saved_s >= SAVE_S and self.processes.count == 1
        if is_last or is_late or self.progress.is_done or step % self.stage["save"] == 0:
            table.flush()
            self._save(stepper)

    def _save(self, stepper: Stepper) -> None:
        self.progress.skipped, self.saved_s = self.processes.merged(self.progress.skipped), monotonic()
        if self.processes.is_main:
            checkpoints.save(self.folder / CHECKPOINTS, self.progress, stepper)

    # -- ends ------------------------------------------------------------------------------------------------------------

    def _stopped(self, stepper: Stepper, error: NotANumberError) -> InputError:
        """Keep the weights of before the step, and say so."""
        self.progress.batch -= self.stage["accumulate"]
        self._save(stepper)
        hint = "a lower learning_rate, a longer warmup or clip may help; the weights of before this step are kept"
        kept = checkpoints.checkpoints_in(self.folder / CHECKPOINTS)[-1:]
        return NotANumberError(f"{error}\n    {hint}: {choices(map(str, kept))}")

    def _finish(self, stepper: Stepper, *, seconds: float) -> None:
        if stepper.idle and stepper.has_stepped:
            self.asked.note(f"{self.stage.name}: no gradient has reached {choices(stepper.idle, most=6)}")
        rows = read_table(self.folder / METRICS)
        losses = ["loss", *(self.resolved.losses if len(self.resolved.losses) > 1 else ())]
        judged = [*self.resolved.watched, *self.resolved.metrics]
        draw(self.folder, rows, losses=losses, judged=judged, title=f"{self.solved.name}: {self.stage.name}")
        metrics: Mapping[str, str] = rows[-1] if rows else {}
        write_trained(self, stepper, metrics=metrics, seconds=seconds)


def cleared() -> None:
    """Give cached device memory back between two stages."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
