"""What a stage gives on records that it is not trained on: its losses and watched numbers, the best of them, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelgraft.plugin import ModelgraftError

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
    weights = {name: weight for name, (_, weight) in run.resolved.losses.items()}
    loss = sum(found[name] * weight for name, weight in weights.items())
    table.add({"step": run.progress.step, "epoch": epoch, "part": "valid", "loss": loss, **found})
    if not math.isfinite(loss):
        run.asked.note(f"{run.stage.name}: the evaluation at step {run.progress.step:,} gives no number")
    if math.isfinite(loss) and (run.progress.best is None or loss < run.progress.best):
        run.progress.best, run.progress.best_step, run.progress.since = loss, run.progress.step, 0
    else:
        run.progress.since += 1
    patience = run.stage["patience"]
    run.progress.is_done = patience is not None and run.progress.since >= patience


def evaluation(run: StageRun, stepper: Stepper, rows: Rows, numbers: Sequence[int]) -> dict[str, float]:
    """The mean of each loss and watched number over records, in the mode of use."""
    modes = {module: module.training for one in stepper.modules.values() for module in one.modules()}
    for module in modes:
        module.training = False
    sums: dict[str, float] = {}
    count = 0
    names = {
        **{name: str(ref) for name, (ref, _) in run.resolved.losses.items()},
        **{n: str(r) for n, r in run.resolved.watched.items()},
    }
    try:
        for start in range(0, len(numbers), run.stage["batch"]):
            some = numbers[start : start + run.stage["batch"]]
            batch, ready = run.batch(run.judging, some, rows, has_kept=run.judges_kept)
            try:
                found = run.judging(batch, seed=run.stage["seed"], ready=ready) if batch.count else {}
            except ModelgraftError as error:
                run.leave_out(error, run.judging, some, rows, has_kept=run.judges_kept)
                batch, ready = run.batch(run.judging, some, rows, has_kept=run.judges_kept)
                found = run.judging(batch, seed=run.stage["seed"], ready=ready) if batch.count else {}
            for name, port in names.items() if found else ():
                sums[name] = sums.get(name, 0.0) + float(found[port].float().mean()) * batch.count
            count += batch.count
    finally:
        for module, is_training in modes.items():
            module.training = is_training
    return {name: total / max(1, count) for name, total in sums.items()}
