"""How many threads whoever computes may use. Light."""

from __future__ import annotations

import os
from pathlib import Path

from modelgraft.plugin import InputError

THREADS_VARIABLE = "MODELGRAFT_THREADS"  # the one knob: threads that a node may compute with; default: the cores this process may use
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # how much of the processor a container may use: microseconds, or "max", and of how many


def threads() -> int:
    """How many threads a node computes with. Raises InputError for a setting that is no positive number."""
    chosen = os.environ.get(THREADS_VARIABLE, "")
    if not chosen:
        return cores()
    if not (chosen.isascii() and chosen.isdecimal()) or int(chosen) == 0:
        raise InputError(f"{THREADS_VARIABLE} is '{chosen}', wanted a number of threads such as 2")
    return int(chosen)


def cores() -> int:
    """How many cores this process may use at once: those it is bound to, or what its container is given of them, rounded up."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        given, period = QUOTA.read_text(encoding="ascii").split()
        return min(bound, max(1, -(-int(given) // int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return bound
