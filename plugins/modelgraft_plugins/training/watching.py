"""What is seen of a training: a table of its steps, a bar, and a drawing of its losses."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from modelgraft.commands import file_aside

if TYPE_CHECKING:
    from modelgraft.commands import Screen

METRICS = "metrics.csv"
EVERY_S = 10.0  # between two plain lines where there is no terminal


class Table:
    """metrics.csv: a row for each step, and for each evaluation. Nothing of a clock stands in it: a resumed run writes the same."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        *,
        upto: int,
        is_written: bool = True,
        also: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """upto: the steps that are done; rows behind them are of a run that was killed. also: hears every row."""
        self._also = also
        self._file: TextIO = io.StringIO()  # of a process that does not write
        self.path, self.columns = folder / METRICS, ("step", "epoch", "part", "loss", *names, "norm", "learning_rate")
        if not is_written:
            return
        kept = [row for row in read_table(self.path) if int(row["step"]) <= upto] if self.path.exists() and upto else []
        with file_aside(self.path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)
        self._file = self.path.open("a", encoding="utf-8", newline="", buffering=1)  # each row at once: steps may take long

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a row; what it does not name stays empty."""
        if self._also is not None:
            self._also(values)
        line = io.StringIO()
        csv.DictWriter(line, self.columns, lineterminator="\n").writerow({key: _short(value) for key, value in values.items()})
        self._file.write(line.getvalue())

    def flush(self) -> None:
        """Send the rows off, with a checkpoint."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; a half row at its end, of a run that was killed, is none."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row.get("step") or "").isdigit() and None not in row.values()]


def _short(value: Any) -> Any:
    return f"{value:.7g}" if isinstance(value, float) else value


class Pace:
    """How far a stage is and how fast it goes."""

    def __init__(self, total: int, done: int, clock: Callable[[], float] = monotonic) -> None:
        self.total, self.done, self._from, self._clock = total, done, done, clock
        self._start = clock()
        self.loss: float | None = None
        self.records = 0

    def take(self, done: int, loss: float, records: int) -> None:
        """Hear of a step."""
        self.done, self.loss = done, loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        self.records += records

    def words(self, rate: float) -> str:
        """Such as `step 12 of 40, loss 0.53, rate 1e-03, 34.1 records a second, 0:00:08 left`."""
        spent = max(self._clock() - self._start, 1e-9)
        each = spent / max(1, self.done - self._from)
        left = timedelta(seconds=round(each * (self.total - self.done)))
        told = (
            ""
            if self.loss is None
            else f", loss {self.loss:.4g}, rate {rate:.3g}, {self.records / spent:,.1f} records a second, {left} left"
        )
        return f"step {self.done:,} of {self.total:,}{told}"


@contextmanager
def showing(screen: Screen | None, pace: Pace) -> Iterator[Callable[[float], None]]:
    """Give a function that is told the learning rate after each step, and shows how far it is."""
    if screen is None:
        yield lambda _rate: None
    elif not screen.err.isatty():
        yield _telling(screen, pace)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        columns = (SpinnerColumn(), BarColumn(24), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(file=screen.err), transient=True) as bar:
            task = bar.add_task(pace.words(0.0), total=pace.total, completed=pace.done)
            yield lambda rate: bar.update(task, completed=pace.done, description=pace.words(rate))


def _telling(screen: Screen, pace: Pace) -> Callable[[float], None]:
    last = monotonic()

    def tell(rate: float) -> None:
        nonlocal last
        if (now := monotonic()) - last >= EVERY_S and pace.done < pace.total:
            last = now
            screen.note(pace.words(rate))

    return tell
