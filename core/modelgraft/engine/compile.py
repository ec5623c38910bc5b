"""From a layout to one Python function: straight calls, local variables, nothing looked up by name while it runs.

    def run(given):
        v0, = given
        given.clear()
        t0 = clock()
        v0 = f0(v0)
        t1 = clock()
        v0 = f1(v0)
        t2 = clock()
        return (v0,), (t0, t1, t2)

A value that nobody reads any more gives its place to the one that was made of it, or to None. A stamp ends one node, or a group of
brief ones (`together.py`), and starts the next. Nothing is caught inside: a failure is traced to its node by the line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from modelgraft.engine.backend import Call
from modelgraft.engine.layout import Job, Layout
from modelgraft.engine.together import Groups

FILE = "<modelgraft plan>"


@dataclass(frozen=True, slots=True)
class Straight:
    """A compiled layout.

    run     takes the list of given values, which it empties; gives the wanted values and, with stamps, the clock
            before the first and after each group of jobs
    groups  which jobs are timed together
    lines   the job of each line of the source (-1: none), by line number
    lives   of each slot its local, the line that fills it, and the line that fills it anew, behind all where none does
    """

    layout: Layout
    run: Callable[[list[Any]], Any]
    source: str
    lines: tuple[int, ...]
    lives: tuple[tuple[str, int, int], ...]
    groups: Groups

    def failure(self, error: BaseException) -> tuple[int | None, dict[int, Any]]:
        """Find the job that failed, and the values that were there, by slot. None: not inside a job."""
        trace: TracebackType | None = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != FILE:
            trace = trace.tb_next
        if trace is None:
            return None, {}
        found, line = trace.tb_frame.f_locals, trace.tb_lineno
        there = [(slot, name) for slot, (name, first, last) in enumerate(self.lives) if first < line <= last]
        job = self.lines[line] if line < len(self.lines) else -1
        return (None if job < 0 else job), {slot: found[name] for slot, name in there if found.get(name) is not None}


def compile_straight(layout: Layout, calls: Sequence[Call], *, stamps: bool, groups: Groups | None = None) -> Straight:
    """Write the source of a layout and compile it.

    calls   what runs each job, in the order of the jobs
    groups  which of them are timed together; None: each is timed by itself
    """
    groups = groups or Groups.single(len(layout.jobs))
    ends = {end: number for number, end in enumerate(groups.ends, start=1)}
    code = _Code(layout)
    if stamps:
        code.write("t0 = clock()")
    for index, job in enumerate(layout.jobs):
        code.write_job(index, job)
        if stamps and index + 1 in ends:
            code.write(f"t{ends[index + 1]} = clock()", index)
    values = _tuple(code.locals[slot] for slot in layout.wanted)
    code.write(f"return {values}, {_tuple(f't{index}' for index in range(len(ends) + 1))}" if stamps else f"return {values}")
    source = "\n".join(code.text)
    scope: dict[str, Any] = {f"f{index}": call for index, call in enumerate(calls)} | {"clock": time.perf_counter, "pick": pick}
    exec(compile(source, FILE, "exec"), scope)  # noqa: S102 made of slot numbers and port indexes only, nothing that a user wrote
    return Straight(layout, scope["run"], source, tuple(code.owners), code.lives(), groups)


class _Code:
    """The source of a layout while it is written."""

    def __init__(self, layout: Layout) -> None:
        self.text, self.owners = ["def run(given):"], [-1, -1]  # line 0 does not exist, line 1 is the head
        self.count = len(layout.jobs)
        self.locals = [f"v{slot}" for slot in range(len(layout.slots))]
        self.filled, self.emptied = dict.fromkeys(range(len(layout.given)), 0), dict[int, int]()  # slots, by line
        if layout.given:
            self.write(f"{_tuple(self.locals[: len(layout.given)])} = given")
        self.write("given.clear()")

    def write(self, line: str, job: int = -1) -> None:
        self.text.append(f"    {line}")
        self.owners.append(job)

    def write_job(self, index: int, job: Job) -> None:
        takes, drops = ", ".join("None" if slot is None else self.locals[slot] for slot in job.takes), list(job.drops)
        line = len(self.text) + 1
        self.filled.update((slot, line) for _, slot in job.gives)
        if job.sole and job.gives:
            slot = job.gives[0][1]
            if drops:
                self.emptied[drops[0]] = line
                self.locals[slot] = self.locals[drops.pop(0)]
            self.write(f"{self.locals[slot]} = f{index}({takes})", index)
        elif job.sole or not job.gives:
            self.write(f"f{index}({takes})", index)
        else:
            self.write(f"r = f{index}({takes})", index)
            for port, slot in job.gives:
                self.write(f"{self.locals[slot]} = pick(r, {port!r})", index)
            self.write("r = None", index)
        if drops and index + 1 < self.count:  # what the last job leaves is freed with the call
            self.write(" = ".join(self.locals[slot] for slot in drops) + " = None", index)

    def lives(self) -> tuple[tuple[str, int, int], ...]:
        """See Straight."""
        behind = len(self.owners)
        return tuple((name, self.filled.get(slot, behind), self.emptied.get(slot, behind)) for slot, name in enumerate(self.locals))


def pick(result: Any, port: str) -> Any:
    """One output of what a node with several gave. Raises TypeError or LookupError that says what it gave instead."""
    if not isinstance(result, Mapping):
        raise TypeError(f"it gave a {type(result).__name__}, wanted a mapping by output port")
    if port not in result:
        raise LookupError(f"it gave no '{port}'; it gave: {', '.join(map(str, result))}")
    return result[port]


def _tuple(names: Any) -> str:
    listed = list(names)
    return f"({', '.join(listed)}{',' if len(listed) == 1 else ''})"
