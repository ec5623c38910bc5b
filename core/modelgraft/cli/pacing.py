"""How far a long row of records is, on stderr: one line that moves on a terminal, a plain line every so often elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from modelgraft.cli.screen import Screen
from modelgraft.data.naming import Note
from modelgraft.records.readers import for_command

if TYPE_CHECKING:
    from rich.console import RenderableType

Count = Callable[[int, int], None]  # takes how many records are done, and how many of them failed
EVERY_S = 10.0  # between two plain lines: there may be hours of them
SAMPLE_S = 1.0  # between two samples of how far it is; records of a batch come all at once
SAMPLES = 61  # a rate is made of the last ones


class Pace:
    """How many are done, and how fast it goes.

    total  how many there are; None where nobody knows
    done   those that were there before: they say nothing of how fast it goes
    """

    def __init__(self, total: int | None, done: int = 0, failed: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done, self.failed, self.clock = total, done, failed, clock
        self._samples = deque[tuple[float, int]](maxlen=SAMPLES)

    def take(self, done: int, failed: int) -> None:
        """Hear how far it is. What passes before the first record, such as loading, is no part of the rate."""
        self.done, self.failed = done, failed
        now = self.clock()
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_S:
            self._samples.append((now, done))

    @property
    def rate(self) -> float:
        """Records in a second of late; 0 while that is not known."""
        if len(self._samples) < 2:
            return 0.0
        (start, before), (end, done) = self._samples[0], self._samples[-1]
        return (done - before) / (end - start)

    def words(self) -> str:
        """Such as `12 of 40 records, 1 failed, 3.4 a second, 0:00:08 left`."""
        is_known = self.total is not None and self.done <= self.total
        found = [f"{self.done:,} of {self.total:,} records" if is_known else f"{self.done:,} records"]
        if self.failed:
            found.append(f"{self.failed:,} failed")
        if rate := self.rate:
            found.append(f"{rate:,.1f} a second" if rate >= 1 else f"{1 / rate:,.1f} s each")
            if self.total is not None and is_known:
                found.append(f"{timedelta(seconds=round((self.total - self.done) / rate))} left")
        return ", ".join(found)


@contextmanager
def counting(screen: Screen, pace: Pace, *, is_on: bool) -> Iterator[tuple[Count, Note]]:
    """Give a function that takes how far it is, and one that says something beside it, while the block lasts."""
    if not is_on:
        yield pace.take, screen.note
    elif screen.err.isatty():
        with _moving(screen, pace) as say:
            yield pace.take, say
    else:
        yield _telling(screen, pace), screen.note


def _telling(screen: Screen, pace: Pace) -> Count:
    """A plain line every so often; none at the end, where the command says what came of all."""
    last = pace.clock()

    def take(done: int, failed: int) -> None:
        nonlocal last
        pace.take(done, failed)
        if (now := pace.clock()) - last >= EVERY_S and done != pace.total:
            last = now
            screen.note(pace.words())

    return take


@contextmanager
def _moving(screen: Screen, pace: Pace) -> Iterator[Note]:
    """One line that moves, and goes away at the end; gives what says something above it."""
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    console, spinner = Console(file=screen.err), Spinner("dots")

    def line() -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=pace.total, completed=pace.done, width=24, pulse=pace.total is None)
        grid.add_row(spinner, bar, Text(pace.words(), no_wrap=True, overflow="ellipsis"))
        return grid

    with Live(get_renderable=line, console=console, transient=True, refresh_per_second=5):
        yield lambda text: console.print(Text(for_command(text)), soft_wrap=True)
