"""How the benchmarks measure: alternatives in turn within one process, ratios round by round, threads said and kept.

A worker process is started for every number of threads with the environment of `environment`; in it, `interleave` runs
each alternative once per round, in an order that turns round from one round to the next. A ratio is taken within each
round, so that a busy minute of the machine meets both sides; figures are medians with the lowest and highest tenth.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Sample = dict[str, float]  # figures by name: seconds, or whatever is compared
USUAL = "MODELGRAFT_BENCH_DOWNLOADS"  # the variable by which a worker finds the cache of the account
POLL_S = 0.005  # how often the memory of a process is looked at


# -- surroundings -------------------------------------------------------------------------------------------------------


def environment(threads: int, cache: Path) -> dict[str, str]:
    """The variables of a worker: so many threads for torch and ONNX Runtime, none spinning between calls, nothing from the network.

    Threads that wait by spinning (the habit of OpenMP) starve whoever else wants the core, and ratios then say nothing.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # ours is compiled once, as theirs
    return {
        **inherited,
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MODELGRAFT_THREADS": str(threads),
        "MODELGRAFT_CACHE": str(cache),
        "MODELGRAFT_BACKGROUND": "off",  # exports are tuned before what is measured begins, not beside it
        USUAL: str(usual_cache()),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
    }


def surroundings() -> str:
    """One line: when, on what, with which versions, and how busy."""
    from importlib.metadata import version

    named = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor = named[0].partition(":")[2].strip() if named else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} x {processor}, {versions}, {load}, OMP_WAIT_POLICY=PASSIVE"


def load() -> float:
    """How many processes want a core, over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def child(module: str, *words: str, threads: int, cache: Path) -> Any:
    """Run a worker of a benchmark in a process of its own; gives what it prints last, read as JSON."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads, cache), capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(lines[-1])


def usual_cache() -> Path:
    """The cache of this account, in which downloads lie, also for a worker whose own cache is another."""
    named = os.environ.get(USUAL) or os.environ.get("MODELGRAFT_CACHE")
    return Path(named or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelgraft")


def cache_within(folder: Path) -> Path:
    """A cache in `folder` for exports of its own, in which weights that were fetched before are found; gives it."""
    usual = usual_cache()
    mine = folder / "cache"
    mine.mkdir(parents=True, exist_ok=True)
    for name in ("archives", "converted"):
        if (usual / name).is_dir() and not (mine / name).exists():
            (mine / name).symlink_to(usual / name)
    return mine


# -- time ---------------------------------------------------------------------------------------------------------------


def timed(run: Callable[[], Any]) -> Sample:
    """Seconds of one call: `wall`, and `cpu` of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def interleave(
    alternatives: Mapping[str, Callable[[], Sample]], rounds: int, *, warm: int = 1, seconds: float | None = None, least: int = 3
) -> dict[str, list[Sample]]:
    """Sample every alternative once per round, after `warm` rounds that do not count.

    seconds  no round begins later than that, but `least` of them are taken whatever they cost
    """
    names, found, start = list(alternatives), {name: list[Sample]() for name in alternatives}, time.monotonic()
    for number in range(-warm, rounds):
        if seconds is not None and number >= least and time.monotonic() - start > seconds:
            break
        for name in names if number % 2 else reversed(names):
            gc.collect()
            sample = alternatives[name]()
            if number >= 0:
                found[name].append(sample)
    return found


def cpu_below() -> float:
    """CPU seconds of all processes that this one has started, and of those that they have; in steps of the system's clock, 10 ms."""
    ticks, parents = dict[int, int](), dict[int, int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        number = int(path.parent.name)
        parents[number], ticks[number] = int(fields[1]), int(fields[11]) + int(fields[12])
    below = {os.getpid()}
    while found := {number for number, parent in parents.items() if parent in below} - below:
        below |= found
    return sum(ticks[number] for number in below - {os.getpid()}) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its lowest and highest tenth."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """Of some figures, at least one."""
        ordered = sorted(figures)
        tenth = len(ordered) // 10
        return cls(statistics.median(ordered), ordered[tenth], ordered[-1 - tenth])

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio that was taken within each round: its median, lowest and highest tenth, and the 95 % interval of the median.

    least, most  the ends of the interval, by bootstrap over rounds; None where there were too few rounds for one
    """

    median: float
    low: float
    high: float
    least: float | None
    most: float | None
    n: int
    verdict: str

    @classmethod
    def of(cls, over: Sequence[float], under: Sequence[float]) -> Ratio:
        """Of one figure of two alternatives, in the order of the rounds."""
        from modelgraft_plugins.intervals import ratio_of_rounds

        spread = Spread.of(one / other for one, other in zip(over, under, strict=True))
        found = ratio_of_rounds(over, under)
        return cls(spread.median, spread.low, spread.high, found.low, found.high, found.n, found.verdict)


def compared(over: Sequence[Sample], under: Sequence[Sample], figure: str) -> Ratio:
    """One figure of two alternatives, divided within each round, with its interval."""
    return Ratio.of([one[figure] for one in over], [one[figure] for one in under])


def spread_of(samples: Sequence[Sample], figure: str, *, times: float = 1.0) -> Spread:
    """One figure of an alternative, in another unit."""
    return Spread.of(one[figure] * times for one in samples)


def side_by_side(ours: Sequence[Sample], theirs: Sequence[Sample]) -> dict[str, Any]:
    """What a table says of a graph beside another's own call: milliseconds of both, ratios of ours to theirs, and how many rounds."""
    return {
        "theirs_ms": spread_of(theirs, "wall", times=1000),
        "ours_ms": spread_of(ours, "wall", times=1000),
        "wall": compared(ours, theirs, "wall"),
        "cpu": compared(ours, theirs, "cpu"),
        "rounds": len(ours),
    }


def ratio(over: Sequence[Sample], under: Sequence[Sample], figure: str) -> Spread:
    """One figure of two alternatives, divided within each round."""
    return Spread.of(one[figure] / other[figure] for one, other in zip(over, under, strict=True))


# -- memory -------------------------------------------------------------------------------------------------------------


def with_peaks(run: Callable[[], Any]) -> Sample:
    """Most MB that this process held, from its start to the end of `run`.

    peak       of all pages, those mapped from files included (what the system calls VmHWM)
    anonymous  of pages that belong to no file and cannot simply be dropped, while `run` ran
    """
    most, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            most[0] = max(most[0], status_mb("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    run()
    over.set()
    watcher.join()
    return {"peak": status_mb("VmHWM"), "anonymous": most[0]}


def lowered_peak() -> float:
    """Let the peak of memory begin at what is held now, and give that in MB (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status_mb("VmRSS")


def peak_mb() -> float:
    """The most MB that this process held since it began, or since `lowered_peak`."""
    return status_mb("VmHWM")


def status_mb(field: str) -> float:
    """A figure of this process as the system keeps it, such as VmHWM, in MB of 2**20 bytes."""
    line = next(line for line in _lines("/proc/self/status") if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []


# -- tables -------------------------------------------------------------------------------------------------------------


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    for first, *rest in (headings, *rows):
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
