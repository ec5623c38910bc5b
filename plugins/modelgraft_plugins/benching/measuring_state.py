"""What is known while a bench goes on: of each cell, and of all of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from modelgraft import InputError
from modelgraft.commands import in_seconds
from modelgraft.plugin import option
from modelgraft_plugins.benching.accounting import Account
from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.hosts import CellFailed, Hosts
from modelgraft_plugins.benching.measuring_figures import spread
from modelgraft_plugins.benching.outcomes import Answers
from modelgraft_plugins.benching.results import Cell, Method, Quality, Reason, RecordFailure, Sample, Starts
from modelgraft_plugins.benching.starting import Started

Tell = Callable[[str], None]
Done = Callable[[Cell], None]

FEWEST_ROUNDS = 6  # of which an interval can be made
EVERY_S = 2.0  # between two things that are told of how far a bench is
STILL_S = 15.0  # between two words about one thing that goes on
LAST = 5  # runs of which the median is what the next will take


class Judge(Protocol):
    """Scores what cells answer."""

    def __call__(
        self, cell: str, answers: Answers, failed: Mapping[int, object], *, media: Sequence[str]
    ) -> tuple[Sequence[Quality], Mapping[str, str]]:
        """The quality of a cell, and of figures that could not be taken why; the first that is judged is what the others differ from.

        failed  the records that it has no answer to;  media  the inputs by which records may belong together
        """
        ...


@dataclass(slots=True)
class Telling:
    """Tells how far a bench is, and leaves out what comes too soon after the last, unless it must be told."""

    tell: Tell
    last: float = 0.0

    def __call__(self, text: str, *, is_needed: bool = False) -> None:
        """Tell something."""
        now = time.monotonic()
        if is_needed or now - self.last >= EVERY_S:
            self.tell(text)
            self.last = now

    @contextlib.contextmanager
    def while_it_goes_on(self, text: str) -> Iterator[None]:
        """Tell something, and again, with how long it has taken, for as long as the block takes: an export takes minutes."""
        self(text)
        began, over = time.monotonic(), threading.Event()

        def tell() -> None:
            while not over.wait(STILL_S):
                self(f"{text}; {in_seconds(time.monotonic() - began)} so far", is_needed=True)

        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@dataclass(slots=True)
class Under:
    """A cell that is being measured.

    found    what is known of it;  failed  by record;  walls  of untimed runs of whole batches, in their order
    writes   the node that writes text;  tokens  by record, how many it wrote;  media  the inputs that are pictures
    tried    how many rounds it ran in;  strikes  in how many of them it failed;  reasons  why it is left out
    is_done  an earlier bench measured it, and nothing needs it again
    """

    wanted: WantedCell
    found: Cell
    samples: list[Sample] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    started: Started = field(default_factory=Started)
    failed: dict[int, RecordFailure] = field(default_factory=dict)
    walls: list[float] = field(default_factory=list)
    writes: str = ""
    tokens: dict[int, int] = field(default_factory=dict)
    media: Sequence[str] = ()
    warm_ups: int = 0
    tried: int = 0
    strikes: int = 0
    is_done: bool = False
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, wanted: WantedCell, kept: Cell | None) -> Under:
        """A cell to begin with, or to go on with."""
        if kept is None or kept.state in ("pruned", "failed"):
            return cls(wanted, wanted.planned)
        found = replace(kept, id=wanted.id, command=wanted.command, values=wanted.values)
        under = cls(wanted, found, samples=list(kept.samples), tried=len(kept.samples), is_done=kept.state == "measured")
        if kept.shares is not None:
            under.account.merge(kept.shares, len(kept.samples))
        return under

    @property
    def id(self) -> str:
        """The id of the cell."""
        return self.wanted.id

    @property
    def typical_s(self) -> float:
        """How long a run takes, from the last ones."""
        last = sorted([*self.walls, *(sample.wall_s for sample in self.samples)][-LAST:])
        return last[len(last) // 2] if last else 0.0

    def unfinished(self) -> Cell:
        """The cell as it is now, without what is made of all its samples."""
        found, started = self.found, self.started
        cold, warm = (spread(seconds, seed=0) for seconds in (started.cold, started.warm))
        memory = replace(found.memory, resident=started.resident or found.memory.resident, device=started.device or found.memory.device)
        return replace(
            found,
            state="failed" if self.reasons else "unfinished",
            reasons=self.reasons,
            samples=tuple(self.samples),
            shares=self.account.shares(),
            warm_ups=self.warm_ups or found.warm_ups,
            failures=tuple(self.failed[record] for record in sorted(self.failed)),
            start=Starts(cold=cold or found.start.cold, warm=warm or found.start.warm),
            memory=memory,
        )


@dataclass(slots=True)
class Bench:
    """All cells, and what is done to each of them.

    folder  for what only the bench needs;  count  of records;  first  the cell whose answers the others are compared with
    rounds  how many were run, those of an earlier bench included;  stopped_by  why there are no more
    """

    folder: Path
    count: int
    method: Method
    hosts: Hosts
    tell: Telling
    done: Done
    judge: Judge | None = None
    under: list[Under] = field(default_factory=list)
    first: Under | None = None
    began: float = field(default_factory=time.monotonic)
    rounds: int = 0
    stopped_by: str = ""

    @property
    def spent_s(self) -> float:
        """Seconds since the bench began."""
        return time.monotonic() - self.began

    def alive(self) -> list[Under]:
        """The cells that are measured now, and did not fail."""
        return [one for one in self.under if not one.reasons and not one.is_done]

    def each(self, doing: str, work: Callable[[Under], None], cells: Sequence[Under] | None = None) -> None:
        """Do something with every cell that is still there; one that fails is told, and the others go on."""
        alive = self.alive() if cells is None else cells
        for number, one in enumerate(alive, 1):
            if self.method.budget_s is not None and self.spent_s > self.method.budget_s and number > 1:
                raise self.too_small(sum(other.typical_s for other in self.alive()), f"{doing} {number - 1} of {len(alive)} cells")
            try:
                with self.tell.while_it_goes_on(f"{doing}: {one.id}, {number} of {len(alive)}"):
                    work(one)
            except CellFailed as failure:
                self.fail(one, failure.reasons)

    def too_small(self, round_s: float, doing: str) -> InputError:
        """What is said of a budget that has no room for a round.

        round_s  what one takes, as far as that is known;  doing  what its time went into
        """
        assert self.method.budget_s is not None, "there is a budget"
        count = len(self.alive())
        text = (
            f"the budget of {in_seconds(self.method.budget_s)} is too small for one round: {doing} took {in_seconds(self.spent_s)}, "
            f"and a round of {count} cell{'s' * (count != 1)} takes about {in_seconds(round_s)}; "
            f"{FEWEST_ROUNDS} rounds need more than {in_seconds(self.spent_s + FEWEST_ROUNDS * round_s)}"
        )
        way_out = f"; {option('cold', '0')} leaves out the fresh processes" if self.method.cold else "; fewer cells or records take less"
        return InputError(text + way_out)

    def fail(self, one: Under, reasons: Sequence[Reason]) -> None:
        """Leave a cell out from here on, and say why."""
        one.reasons = tuple(reasons)
        self.tell(f"{one.id} failed: {reasons[0].text}", is_needed=True)
        self.hosts.close(one.wanted)
        self.done(one.unfinished())

    def ask_run(self, one: Under, records: Sequence[int]) -> Mapping[str, Any]:
        """Run a cell on some records by the clock."""
        found: Mapping[str, Any] = self.hosts.ask(one.wanted, "run", records=list(records), writes=one.writes)
        return found

    def answers_of(self, one: Under) -> Path:
        """Where the answers of a cell are kept."""
        return self.folder / f"answers {self.under.index(one)}"
