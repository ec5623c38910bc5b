"""What a stage gives on records that it is not trained on: its losses and watched numbers, the best of them, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.commands import Batch
from modelgraft.plugin import ModelgraftError
from modelgraft_plugins.training import checkpoints
from modelgraft_plugins.training.checkpoints import CHECKPOINTS
from modelgraft_plugins.training.measuring import Looks

if TYPE_CHECKING:
    from modelgraft_plugins.training.rows import Rows
    from modelgraft_plugins.training.stage import StageRun
    from modelgraft_plugins.training.stepping import Stepper
    from modelgraft_plugins.training.watching import Table


def evaluate(run: StageRun, stepper: Stepper, table: Table, epoch: int) -> None:
    """Judge the weights as they are, write it into the table, and note whether they are the best."""
    rows, numbers = run.data.evaluated
    if not len(numbers):
        return
    found = evaluation(run, stepper, rows, numbers)
    there = {name: weight for name, (_, weight) in run.resolved.losses.items() if name in found}
    found["loss"] = sum(found[name] * weight for name, weight in there.items()) if there else math.nan
    table.add({**found, "step": run.progress.step, "epoch": epoch, "part": "valid"})
    name, better = run.resolved.best
    figure, sign = found.get(name, math.nan), 1 if better == "lower" else -1
    if not math.isfinite(figure):
        run.asked.note(f"{run.stage.name}: the evaluation at step {run.progress.step:,} gives no number")
    if math.isfinite(figure) and (run.progress.best is None or sign * figure < sign * run.progress.best):
        run.progress.best, run.progress.best_step, run.progress.since = figure, run.progress.step, 0
        if run.stage["best"] is not None and run.processes.is_main:
            checkpoints.save_best(run.folder / CHECKPOINTS, stepper)
    else:
        run.progress.since += 1
    patience = run.stage["patience"]
    run.progress.is_done = patience is not None and run.progress.since >= patience
    if run.progress.is_done and run.progress.step < run.total:
        told = f"{name} is no better than at step {run.progress.best_step:,}, and `patience` is {patience:,}"
        run.asked.note(f"{run.stage.name}: ends behind step {run.progress.step:,} of {run.total:,}: {told}")


def evaluation(run: StageRun, stepper: Stepper, rows: Rows, numbers: Sequence[int]) -> dict[str, float]:
    """The mean of each loss and watched number over records, and the figures of metrics over all of them, in the mode of use.

    A mean is that over the records that have the number; what none has is left out. Of several processes each judges some of the batches,
    and all have the figures of all.
    """
    modes = {module: module.training for one in stepper.modules.values() for module in one.modules()}
    for module in modes:
        module.training = False
    looks = Looks(run.measures, rows)

    def tell(text: str) -> None:
        run.asked.note(f"{run.stage.name}: step {run.progress.step:,}: {text}")

    names = {
        **{name: str(ref) for name, (ref, _) in run.resolved.losses.items()},
        **{n: str(r) for n, r in run.resolved.watched.items()},
    }
    sums, counts = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    try:
        for start in run.processes.part(range(0, len(numbers), run.stage["batch"])):
            some = numbers[start : start + run.stage["batch"]]
            try:
                found, there = _judged(run, some, rows)
            except ModelgraftError as error:
                run.leave_out(error, run.judging, some, rows, has_kept=run.judges_kept)
                found, there = _judged(run, some, rows)
            if not there:
                continue
            for name, port in names.items():
                values = Batch.of(found[port]).value  # None: by a route, which no record of these went
                sums[name] += 0.0 if values is None else float(values.float().sum())
                counts[name] += 0 if values is None else values.numel()
            looks.add(start, found, there)
    finally:
        for module, is_training in modes.items():
            module.training = is_training
    totals = run.processes.sums([*sums.values(), *counts.values()])
    means = {name: total / count for name, total, count in zip(names, totals, totals[len(names) :], strict=False) if count}
    return {**means, **looks.of_all(run.processes).figures(tell)}


def _judged(run: StageRun, some: Sequence[int], rows: Rows) -> tuple[Mapping[str, Any], list[int]]:
    """What the judging nodes give of some records, by port, and the numbers of those that it is of."""
    taken = run.read(run.judging, some, rows, has_kept=run.judges_kept)
    batch, ready = run.accepted(taken, rows)
    there = [number for index, number in enumerate(taken.numbers) if index not in batch.left_out]
    return (run.judging(batch, seed=run.stage["seed"], ready=ready) if there else {}), there
