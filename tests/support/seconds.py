"""What tests take of a processor: measured while they run, and kept in `tests/seconds.txt` for `choosing.py`, by function; cases of one
that are marked as slow are one of their own.

    make seconds        runs all tests, and writes the file anew

Seconds of a processor, user and system, of the process that runs a test and of the processes that it started and waited for: they
depend on the machine, but hardly on what else it does. What fixtures of a whole module or session take counts to no test.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

TABLE = Path(__file__).parents[1] / "seconds.txt"
LEAST = 0.05  # seconds: what takes less is not in the file
SHORT = 0.02  # seconds of a test that is not in it


def read(lines: Iterable[str]) -> dict[str, float]:
    """Function -> mean seconds of one of its cases: names of files, and below each `seconds name`, with `slow` behind those that are."""
    found, file = {}, ""
    for line in lines:
        if line.startswith(" "):
            seconds, _, name = line.strip().partition(" ")
            found[f"{file}::{name}"] = float(seconds)
        elif not line.startswith("#"):
            file = line.strip()
    return found


def written(means: Mapping[str, float]) -> str:
    """What `read` reads."""
    by_file = defaultdict(list)
    for function, seconds in sorted(means.items()):
        if seconds >= LEAST:
            file, _, name = function.partition("::")
            by_file[file].append(f"  {seconds:.2f} {name}")
    return "# seconds of a processor that a case takes, in the mean; `make seconds` writes it\n" + "".join(
        f"{file}\n" + "".join(f"{line}\n" for line in lines) for file, lines in by_file.items()
    )


def means_of(lines: Iterable[str]) -> dict[str, float]:
    """The same, from what `Clock` noted: a line for each test, seconds, function, its case, apart by tabs."""
    noted = defaultdict(list)
    for line in lines:
        seconds, function, _ = line.split("\t", 2)
        noted[function].append(float(seconds))
    return {function: sum(each) / len(each) for function, each in noted.items()}


def function_of(nodeid: str, *, slow: bool) -> str:
    """What a test is a case of."""
    return nodeid.partition("[")[0] + (" slow" if slow else "")


def spent() -> float:
    """Seconds of a processor until now, by this process and by those that it waited for."""
    return sum(os.times()[:4])


class Clock:
    """Notes the seconds of each test in a file, one process after another."""

    def __init__(self, path: Path) -> None:
        self.path, self.shared = path, 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        begun, self.shared = spent(), 0.0
        found = yield
        seconds = max(0.0, spent() - begun - self.shared)
        with self.path.open("a", encoding="utf-8") as file:
            function = function_of(item.nodeid, slow=item.get_closest_marker("slow") is not None)
            file.write(f"{seconds:.3f}\t{function}\t{item.nodeid.partition('[')[2]}\n")
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        begun, before = spent(), self.shared
        found = yield
        if fixturedef.scope != "function":
            self.shared = before + spent() - begun
        return found


def main(noted: str) -> None:
    """Write the table of what was noted."""
    TABLE.write_text(written(means_of(Path(noted).read_text(encoding="utf-8").splitlines())), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
