"""Which cases of a table are left to whole runs, and which files begin."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.pace import leave_to_whole_runs, pytest_collection_modifyitems, sample


class Case:
    """A test as pytest gathers it, as far as it is asked."""

    def __init__(self, nodeid: str, *marks: Any) -> None:
        self.nodeid, self.path, self.marks = nodeid, Path(nodeid.partition("::")[0]), {mark.name: mark for mark in marks}

    def get_closest_marker(self, name: str) -> Any:
        return self.marks.get(name)

    def add_marker(self, name: str) -> None:
        self.marks[name] = getattr(pytest.mark, name).mark


def table(name: str, size: int, *marks: Any) -> list[Any]:
    return [Case(f"{name}::test_it[{number}]", *(mark.mark for mark in marks)) for number in range(size)]


def test_of_a_table_so_many_cases_are_quick_spread_with_the_first_among_them():
    items = [*table("a.py", 10, pytest.mark.quick(4)), *table("b.py", 3), *table("c.py", 2, pytest.mark.quick(5))]
    leave_to_whole_runs(items)
    assert [item.nodeid[-2] for item in items if item.get_closest_marker("slow") is None] == list("0257012" + "01")


def test_of_a_sampled_table_the_cases_that_are_named_are_run():
    """One that is asked for alone runs; a name that no case has is told."""
    told: list[Any] = []
    config: Any = SimpleNamespace(hook=SimpleNamespace(pytest_deselected=lambda items: told.extend(items)))  # noqa: PLW0108 no keyword
    sampled = pytest.mark.sampled("0", "5")
    items = [*table("a.py", 7, sampled), *table("b.py", 2)]
    sample(config, items)
    assert [item.nodeid[-2] for item in items] == list("05" + "01")
    assert [item.nodeid[-2] for item in told] == list("12346")
    alone = table("a.py", 7, sampled)[3:4]
    sample(config, alone)
    assert [item.nodeid[-2] for item in alone] == ["3"]
    with pytest.raises(pytest.UsageError, match=r"^a\.py::test_it is sampled by \['9'\]; its cases: 0, 1, 2$"):
        sample(config, table("a.py", 3, pytest.mark.sampled("0", "9")))


@pytest.mark.parametrize("is_worker", [True, False])
def test_files_with_the_most_slow_tests_begin_where_processes_share_them(is_worker):
    items = [*table("a.py", 3), *table("b.py", 1, pytest.mark.slow), *table("c.py", 2, pytest.mark.slow), *table("a.py", 1)]
    config: Any = SimpleNamespace(**({"workerinput": {}} if is_worker else {}))
    pytest_collection_modifyitems(config, items)
    assert "".join(item.nodeid[0] for item in items) == ("ccbaaaa" if is_worker else "aaabcca")
