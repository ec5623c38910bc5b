"""What came of the variants of a sweep: one table for all, as a file, as a card, and on the terminal, and one drawing of their losses."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.commands import clear_asides, file_aside, in_bytes
from modelgraft_plugins.training.plotting import plot
from modelgraft_plugins.training.trained import CARD
from modelgraft_plugins.training.watching import METRICS, read_table

if TYPE_CHECKING:
    from modelgraft_plugins.training.forecasting import Forecast
    from modelgraft_plugins.training.stage import StageRun

LAST = 10  # steps whose mean is the loss of the table: one batch alone says little
FEW = 3  # evaluations that are drawn in place of steps
LONGEST = 20  # letters of a name beside the drawing


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a variant in a stage.

    loss    the mean of its last steps;  valid, best  of its last and its best evaluation;  metrics  the other numbers of the last row
    steps_s  of its own work, without what all share;  stopped  why it did; "" when it came to its end
    """

    variant: str
    stage: str
    parameters: int
    steps: int
    loss: float | None
    valid: float | None
    best: float | None
    steps_s: float | None
    stopped: str
    metrics: Mapping[str, float] = field(default_factory=dict)


def outcome_of(name: str, run: StageRun, stopped: str) -> Outcome:
    """Read what a variant has left in its folder."""
    rows = read_table(run.folder / METRICS) if (run.folder / METRICS).exists() else []
    card = json.loads((run.folder / CARD).read_text(encoding="utf-8")) if (run.folder / CARD).exists() and not stopped else {}
    train, valid = ([float(row["loss"]) for row in rows if row["part"] == part and row["loss"]] for part in ("train", "valid"))
    last = rows[-1] if rows else {}
    metrics = {key: float(last[key]) for key in (*run.resolved.losses, *run.resolved.watched) if last.get(key)}
    done, seconds = len(train), card.get("seconds") or run.seconds
    return Outcome(
        name, run.stage.name, run.parameters or sum(one["parameters"] for one in card.get("trained", {}).values()), done,
        sum(train[-LAST:]) / len(train[-LAST:]) if train else None, valid[-1] if valid else None, min(valid, default=None),
        run.steps_done / run.seconds if run.steps_done else done / seconds if seconds else None, stopped,
        metrics if len(run.resolved.losses) + len(run.resolved.watched) > 1 else {},
    )  # fmt: skip


def told_together(stage: str, found: Sequence[Forecast], *, front_s: float) -> str:
    """What the variants of a stage take together, in words. front_s: what calling the parts that all share takes in a step."""
    own, steps = sum(one.step_s for one in found), max((one.steps for one in found), default=0)
    whole = sum((one.step_s * one.steps for one in found), front_s * steps)
    apart = sum((one.step_s + front_s) * one.steps for one in found)
    return (
        f"{stage}: {len(found)} variants train {sum(one.trainable for one in found):,} parameters; optimisers and gradients "
        f"{in_bytes(sum(one.optimizer for one in found))}, activations {in_bytes(max((one.activations for one in found), default=0))} at a "
        f"time; {own + front_s:.3g} s for a step of each, {timedelta(seconds=round(whole))} in all; one after another "
        f"{timedelta(seconds=round(apart))}"
    )


HEADINGS = ("variant", "stage", "parameters", "steps", "loss", "valid", "best", "steps/s")


def table_of(outcomes: Sequence[Outcome]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The heading and the rows of the table, as texts; the variant with the least loss of its stage has a star."""
    names = list(dict.fromkeys(name for one in outcomes for name in one.metrics))
    found = []
    for one in outcomes:
        star = " *" if one is _best(outcomes, one.stage) else ""
        numbers = (one.loss, one.valid, one.best, one.steps_s, *(one.metrics.get(name) for name in names))
        texts = ("-" if number is None else f"{number:.4g}" for number in numbers)
        found.append((f"{one.variant}{star}", one.stage, f"{one.parameters:,}", f"{one.steps:,}", *texts, one.stopped))
    return (*HEADINGS, *names, "stopped"), found


def _what(sets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines that say what each variant sets."""
    told = {
        name: ", ".join(f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in found.items())
        for name, found in sets.items()
    }
    return ["What each variant sets:", "", *(f"- {name}: {text if text else 'nothing'}" for name, text in told.items())]


def _best(outcomes: Sequence[Outcome], stage: str) -> Outcome | None:
    there = [one for one in outcomes if one.stage == stage and not one.stopped and one.loss is not None]
    are_judged = all(one.best is not None for one in there)
    return min(there, key=lambda one: (one.best if are_judged else one.loss) or 0.0, default=None)


def write_report(
    out: Path, outcomes: Sequence[Outcome], folders: Mapping[str, Path], *, stage: str, sets: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write sweep.csv, sweep.md and the drawing of a stage. sets: what each variant sets."""
    clear_asides(out)
    plain = [field.name for field in fields(Outcome) if field.name != "metrics"]
    names = list(dict.fromkeys(name for one in outcomes for name in one.metrics))
    with file_aside(out / "sweep.csv") as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*plain, *names])
        writer.writerows([*(asdict(one)[key] for key in plain), *(one.metrics.get(name) for name in names)] for one in outcomes)
    head, rows = table_of(outcomes)
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (head, ["---"] * len(head), *rows)]
    about = "Variants that were trained side by side; loss is the mean of the last steps, * the least of its stage."
    with file_aside(out / "sweep.md") as aside:
        drawing = f"![losses](sweep.{stage}.svg)"
        aside.write_text("\n".join(["# Sweep", "", about, "", *lines, "", drawing, "", *_what(sets), ""]), encoding="utf-8")
    tables = {name: read_table(path / METRICS) for name, path in folders.items() if (path / METRICS).exists()}
    judged = all(sum(row["part"] == "valid" for row in rows) >= FEW for rows in tables.values())
    part = "valid" if judged else "train"
    drawn = {
        (name if len(name) <= LONGEST else f"{number}: {name[: LONGEST - 7]}..."): [
            (float(row["step"]), float(row["loss"])) for row in rows if row["part"] == part and row["loss"]
        ]
        for number, (name, rows) in enumerate(tables.items(), 1)
    }
    plot(out / f"sweep.{stage}.svg", drawn, title=f"{stage}: {'evaluations' if judged else 'losses'} of {len(drawn)} variants")
