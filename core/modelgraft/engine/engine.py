"""Runs one layout: as straight code on the calling thread, or in lanes, whichever pays.

A chain is straight code. Where jobs could run side by side, the first run goes in lanes and measures; when all that could
be saved is less than threads cost, the layout becomes straight code. A straight run that turns out slow goes back. Jobs
that fill the CPU with threads of their own may gain nothing side by side: there, one straight run is tried and compared.
Straight code times each node by itself first, and then those together that take next to no time (`together.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import inf
from time import perf_counter
from typing import Any, NoReturn

from modelgraft.engine.backend import Call
from modelgraft.engine.compile import Straight, compile_straight
from modelgraft.engine.layout import Job, Layout
from modelgraft.engine.result import Span, Timeline
from modelgraft.engine.run import Run
from modelgraft.engine.scheduler import Crew, Ran, Stopped, run_in_lanes
from modelgraft.engine.together import Groups
from modelgraft.engine.turns import Turn, in_turn
from modelgraft.kernel.words.errors import Cancelled, GraphError, InputError, NodeError, NodeTimeout, PluginError
from modelgraft.kernel.words.guard import is_heard, said

WORTH_S = 200e-6  # what a run in lanes costs at least: waking threads and waiting for them
WORTH_PER_JOB_S = 20e-6  # and for each job: locks, and handing it to a thread
SLOW_S = 2e-3  # a straight run that takes longer is looked at again
TRIAL_AFTER = 2  # runs in lanes before straight code is tried beside them; the first one also warms up
TRIVIAL_S = 200e-6  # nodes that take longer are checked at every run: the check costs them less than 1 %
SINGLY = 3  # straight runs in which each node is timed by itself, before brief ones are timed together
LONGER, LONGER_S = 1.5, 20e-6  # a run is long that takes so many times what is known, and so much beside
LONG, LONG_ENOUGH = 10, 30  # three long runs near each other, not one that the system held up: nodes are timed by themselves again

NO_TIMELINE = Timeline()

Outcome = tuple[tuple[Any, ...], Timeline]


def _shared(_job: Job) -> Turn | None:
    return None


class Engine:
    """A layout with the calls of its jobs.

    bind     gives what runs a job, with or without the check of what it gives
    turn     gives where runs wait that need a job at the same time, or None
    limits   the most seconds each job may take, None for no limit: with a limit, jobs always run in lanes
    timings  keep when each job ran
    spent    the seconds by node that a run took beside the work of its nodes, to be left out of what is learnt; emptied here
    """

    def __init__(
        self,
        layout: Layout,
        *,
        bind: Callable[[Job, bool], Call],
        limits: Sequence[float | None],
        timings: bool,
        spent: dict[str, float] | None = None,
        turn: Callable[[Job], Turn | None] = _shared,
    ) -> None:
        self._spent = {} if spent is None else spent
        self.layout, self._bind, self._limits, self._timings = layout, bind, tuple(limits), timings
        self.inputs = tuple(ref.port for ref in layout.given if ref.is_input)  # of the graph, that it starts with
        self._names = [(job.name, job.step.node.component.id) for job in layout.jobs]
        self._can_overlap = not layout.is_chain()
        self._must_watch = any(limit is not None for limit in limits)
        self._seconds: list[float] | None = None  # how long each job takes, once known
        self._calls: list[Call] = [bind(job, True) for job in layout.jobs]
        self._turns = [turn(job) for job in layout.jobs]
        self._learning = threading.Lock()  # several runs may measure at once
        self._fast: Straight | None = None
        self._worth = WORTH_S + WORTH_PER_JOB_S * len(layout.jobs)
        self._slow = SLOW_S
        self._lane_runs, self._lane_seconds = 0, inf  # since the engine last went to lanes; the shortest of them
        self._to_beat: float | None = None  # the next straight run is a trial: how long lanes took
        self._is_tried = False
        self._singly, self._briefest = 0, tuple[float, ...]()  # runs to come in which nodes are timed by themselves; what they found
        self._usual_s, self._long = inf, 0  # the most that a run usually takes; how often it took longer of late
        self._single: Straight | None = None  # the straight code that times each node by itself

    def run(self, given: list[Any], crew: Crew, run: Run) -> Outcome:
        """Run; the list of given values is emptied. Raises NodeError, NodeTimeout or Cancelled with the partial outputs."""
        fast = self._fast
        if fast is None or run.limit_s is not None:
            return self._run_and_measure(given, crew, run)
        start = 0.0 if self._timings else perf_counter()
        try:
            found = fast.run(given)
        except BaseException as error:  # noqa: BLE001 nodes may raise anything
            self._fail(self._failure_of(fast, error), error)
        if not self._timings:
            self._judge(None, perf_counter() - start)
            return found, NO_TIMELINE
        values, stamps = found
        took = stamps[-1] - stamps[0]
        if self._singly or self._long or took > self._usual_s:
            self._time_singly(fast, stamps, is_long=took > self._usual_s)
        if took > self._slow:
            self._judge((fast, stamps), took)
        return values, Timeline(self._names, stamps, fast.groups)

    # -- deciding -------------------------------------------------------------------------------------------------------

    def _judge(self, timed: tuple[Straight, Sequence[float]] | None, took: float) -> None:
        """Look again whether lanes pay, after a straight run that was slow.

        timed  the code that ran, and its stamps
        """
        if took > self._slow and self._can_overlap:
            with self._learning:
                self._look_again(None if timed is None else timed[0].groups.spread(timed[1]), took)

    def _time_singly(self, ran: Straight, stamps: Sequence[float], *, is_long: bool) -> None:
        """Time each node by itself for some runs, and then brief ones together; again when runs take longer than was known."""
        with self._learning:
            if self._fast is not ran:  # another run was faster
                return
            if not self._singly:
                self._long = self._long + LONG if is_long else self._long - 1
                if self._long >= LONG_ENOUGH:
                    self._begin_straight()
                return
            seconds = tuple(end - start for start, end in pairwise(stamps))
            self._briefest = tuple(map(min, seconds, self._briefest)) if self._briefest else seconds
            self._singly -= 1
            groups = Groups.of(self._briefest)
            if not self._singly and len(groups.ends) < len(seconds):
                self._usual_s = LONGER * sum(self._briefest) + LONGER_S
                self._fast = self._straight(self._calls, stamps=True, groups=groups)

    def _begin_straight(self) -> None:
        """Run as straight code from now on, with each node timed by itself in the first runs."""
        if self._single is None:
            self._single = self._straight(self._calls, stamps=self._timings)
        self._fast = self._single
        self._singly, self._briefest, self._usual_s, self._long = SINGLY if self._timings else 0, (), inf, 0

    def _run_and_measure(self, given: list[Any], crew: Crew, run: Run) -> Outcome:
        if self._can_overlap or self._must_watch or run.limit_s is not None:
            start = perf_counter()
            ran = self._run_lanes(given, crew, run)
            seconds = [ran.stamps[index][1] - ran.stamps[index][0] for index in range(len(self.layout.jobs))]
            with self._learning:
                self._lane_runs, self._lane_seconds = self._lane_runs + 1, min(self._lane_seconds, perf_counter() - start)
                self._learn(seconds)
            return ran.values, self._timeline(ran)
        straight = self._straight(self._calls, stamps=True)
        try:
            values, stamps = straight.run(given)
        except BaseException as error:  # noqa: BLE001 nodes may raise anything
            self._fail(self._failure_of(straight, error), error)
        with self._learning:
            self._learn([end - start for start, end in pairwise(stamps)])
        return values, Timeline(self._names, stamps) if self._timings else NO_TIMELINE

    def _straight(self, calls: Sequence[Call], *, stamps: bool, groups: Groups | None = None) -> Straight:
        waiting = [in_turn(call, job, turn) for call, job, turn in zip(calls, self.layout.jobs, self._turns, strict=True)]
        return compile_straight(self.layout, waiting, stamps=stamps, groups=groups)

    def _learn(self, seconds: list[float]) -> None:
        """Take the times of a run; the least that was seen counts, because a first run also warms up."""
        if self._spent:
            seconds = [max(0.0, took - self._spent.get(name, 0.0)) for (name, _), took in zip(self._names, seconds, strict=True)]
            self._spent.clear()
        known = self._seconds
        self._seconds = seconds if known is None else [min(pair) for pair in zip(known, seconds, strict=True)]
        if self._must_watch or (self._pays(self._seconds) and not self._is_worth_a_trial(self._seconds)):
            return
        self._calls = [self._bind(job, spent > TRIVIAL_S) for job, spent in zip(self.layout.jobs, self._seconds, strict=True)]
        self._single = None
        self._begin_straight()

    def _pays(self, seconds: Sequence[float]) -> bool:
        return self._can_overlap and self.layout.gain(seconds) > self._worth

    def _is_worth_a_trial(self, seconds: Sequence[float]) -> bool:
        """Say whether to try straight code although lanes should pay: once, when all they could save is on the CPU's cores."""
        if self._is_tried or self._lane_runs < TRIAL_AFTER or self.layout.gain(seconds, alone=("cuda", "cpu")) > self._worth:
            return False
        self._is_tried, self._to_beat, self._slow = True, self._lane_seconds, 0.0
        return True

    def _look_again(self, stamps: Sequence[float] | None, seconds: float) -> None:
        """Go back to lanes when a slow straight run shows, or may hide, that running side by side pays."""
        self._slow = max(SLOW_S, 2 * seconds)  # as slow as this is no news any more
        to_beat, self._to_beat = self._to_beat, None
        if to_beat is not None and seconds <= to_beat:
            return
        if to_beat is None and stamps is not None and not self._pays([end - start for start, end in pairwise(stamps)]):
            return
        self._lane_runs, self._lane_seconds = 0, inf
        self._seconds, self._fast = None, None
        self._calls = [self._bind(job, True) for job in self.layout.jobs]

    # -- lanes ----------------------------------------------------------------------------------------------------------

    def _run_lanes(self, given: list[Any], crew: Crew, run: Run) -> Ran:
        try:
            return run_in_lanes(self.layout, self._calls, given, crew=crew, run=run, limits=self._limits, turns=self._turns)
        except Stopped as stopped:
            run.left = tuple(self.layout.jobs[index].name for index in stopped.abandoned)
            self._fail(self._stopped_error(stopped, run), stopped.cause)

    def _timeline(self, ran: Ran) -> Timeline:
        if not self._timings:
            return NO_TIMELINE
        order = sorted(ran.stamps.items(), key=lambda item: item[1][0])
        return Timeline(spans=tuple(Span(*self._names[index], start, end, thread) for index, (start, end, thread) in order))

    # -- failures -------------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException, cause: BaseException | None) -> NoReturn:
        if error is cause:
            raise error
        raise error from cause

    def _failure_of(self, straight: Straight, error: BaseException) -> BaseException:
        job, values = straight.failure(error)
        produced = {slot: value for slot, value in values.items() if slot >= len(self.layout.given)}
        return self._error(job, error, produced)

    def _stopped_error(self, stopped: Stopped, run: Run) -> BaseException:
        still = f"; still running in foreign code, left behind: {', '.join(run.left)}" if run.left else ""
        if stopped.cause is not None:
            return self._error(stopped.job, stopped.cause, stopped.ready, still)
        name, component = self._names[stopped.job] if stopped.job is not None else ("", "")
        if stopped.is_of_run:
            where = f", while node '{name}' ({component}) ran" if name else ""
            text = f"the run took longer than its limit of {run.limit_s:g} s{where}{still}"
        else:
            text = f"node '{name}' ({component}) took longer than its limit of {self._limits[stopped.job or 0]:g} s{still}"
        return NodeTimeout(text, node=name, component=component, outputs=self._named(stopped.ready))

    def _error(self, job: int | None, error: BaseException, ready: dict[int, Any], still: str = "") -> BaseException:
        """The one error of a run: names the node and carries what was ready; errors about sources and plugins stay as they are."""
        name, component = self._names[job] if job is not None else ("", "")
        outputs = self._named(ready)
        if is_heard(error):
            where = f" while node '{name}' ran" if name else ""
            return Cancelled(f"stopped by the user{where}{still}", node=name, component=component, outputs=outputs)
        if isinstance(error, GraphError | PluginError):
            return error
        if isinstance(error, InputError) and job is not None:
            return self._refused(job, error, outputs, still)
        if isinstance(error, NodeError):
            kind = next(
                kind for kind in (NodeTimeout, Cancelled, NodeError) if isinstance(error, kind)
            )  # a plugin's own may take other words
            return kind(f"{said(error)}{still}", node=error.node or name, component=error.component or component, outputs=outputs)
        plugin = self.layout.jobs[job].step.node.component.plugin if job is not None else ""
        by = f", plugin '{plugin}'" if plugin else ""
        text = said(error).removeprefix(f"{name}: ")  # what names its node itself would name it twice
        return NodeError(f"node '{name}' ({component}{by}) failed: {text}{still}", node=name, component=component, outputs=outputs)

    def _refused(self, job: int, error: InputError, outputs: Mapping[str, Any], still: str) -> InputError:
        """A value that a node refused is a value all the same: the error says in which node, and where that stands."""
        (name, component), place, text = self._names[job], self.layout.jobs[job].step.node.place, said(error)
        where = f"{name} ({place.short})" if place is not None else name
        bare = text.removeprefix(f"{name}: ").removeprefix(f"{component}: ")
        named = text if text.startswith(f"{name}.") else f"{where}: {bare}"
        return InputError(f"{named}{still}", node=name, component=component, place=place, outputs=outputs)

    def _named(self, values: dict[int, Any]) -> dict[str, Any]:
        return {str(self.layout.slots[slot]): value for slot, value in sorted(values.items())}
