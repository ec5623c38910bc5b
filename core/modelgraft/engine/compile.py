"""From a layout to one Python function: straight calls, local variables, nothing looked up by name while it runs.

    def run(given):
        v0, = given
        given.clear()
        t0 = clock()
        v1 = f0(v0)
        v0 = None
        t1 = clock()
        v2 = f1(v1)
        v1 = None
        t2 = clock()
        return (v2,), (t0, t1, t2)

A stamp ends one node, or a group of brief ones (`together.py`), and starts the next. Nothing is caught inside: a failure is
traced to its node by the line.
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
    """

    layout: Layout
    run: Callable[[list[Any]], Any]
    source: str
    lines: tuple[int, ...]
    groups: Groups

    def failure(self, error: BaseException) -> tuple[int | None, dict[int, Any]]:
        """Find the job that failed, and the values that were there, by slot. None: not inside a job."""
        trace: TracebackType | None = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != FILE:
            trace = trace.tb_next
        if trace is None:
            return None, {}
        found = trace.tb_frame.f_locals
        values = {slot: found[f"v{slot}"] for slot in range(len(self.layout.slots)) if found.get(f"v{slot}") is not None}
        job = self.lines[trace.tb_lineno] if trace.tb_lineno < len(self.lines) else -1
        return (None if job < 0 else job), values


def compile_straight(layout: Layout, calls: Sequence[Call], *, stamps: bool, groups: Groups | None = None) -> Straight:
    """Write the source of a layout and compile it.

    calls   what runs each job, in the order of the jobs
    groups  which of them are timed together; None: each is timed by itself
    """
    groups = groups or Groups.single(len(layout.jobs))
    ends = {end: number for number, end in enumerate(groups.ends, start=1)}
    text, owners = ["def run(given):"], [-1, -1]  # line 0 does not exist, line 1 is the head

    def write(line: str, job: int = -1) -> None:
        text.append(f"    {line}")
        owners.append(job)

    _write_given(layout, write)
    if stamps:
        write("t0 = clock()")
    for index, job in enumerate(layout.jobs):
        _write_job(index, job, write)
        if stamps and index + 1 in ends:
            write(f"t{ends[index + 1]} = clock()", index)
    values = _tuple(f"v{slot}" for slot in layout.wanted)
    write(f"return {values}, {_tuple(f't{index}' for index in range(len(ends) + 1))}" if stamps else f"return {values}")
    source = "\n".join(text)
    scope: dict[str, Any] = {f"f{index}": call for index, call in enumerate(calls)} | {"clock": time.perf_counter, "pick": pick}
    exec(compile(source, FILE, "exec"), scope)  # noqa: S102 made of slot numbers and port indexes only, nothing that a user wrote
    return Straight(layout, scope["run"], source, tuple(owners), groups)


def _write_given(layout: Layout, write: Callable[..., None]) -> None:
    if layout.given:
        write(f"{_tuple(f'v{slot}' for slot in range(len(layout.given)))} = given")
    write("given.clear()")


def _write_job(index: int, job: Job, write: Callable[..., None]) -> None:
    takes = ", ".join("None" if slot is None else f"v{slot}" for slot in job.takes)
    if job.sole and job.gives:
        write(f"v{job.gives[0][1]} = f{index}({takes})", index)
    elif job.sole or not job.gives:
        write(f"f{index}({takes})", index)
    else:
        write(f"r = f{index}({takes})", index)
        for port, slot in job.gives:
            write(f"v{slot} = pick(r, {port!r})", index)
        write("r = None", index)
    if job.drops:
        write(" = ".join(f"v{slot}" for slot in job.drops) + " = None", index)


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
