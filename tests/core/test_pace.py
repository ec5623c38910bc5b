"""Which files begin, where several processes take one after the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from support.pace import pytest_collection_modifyitems


class Item:
    """A test as pytest gathers it, as far as it is asked."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid

    def get_closest_marker(self, name: str) -> Any:
        return None


@pytest.mark.parametrize("is_worker", [True, False])
def test_files_that_take_longest_begin_where_processes_share_them(is_worker, monkeypatch, tmp_path):
    monkeypatch.setattr("support.seconds.TABLE", tmp_path / "seconds.txt")
    (tmp_path / "seconds.txt").write_text("b.py\n  3.00 test_it\nc.py\n  2.00 test_it\n")
    items: list[Any] = [
        Item(f"{file}.py::test_it[{number}]") for file, count in (("a", 3), ("b", 1), ("c", 2), ("a", 2)) for number in range(count)
    ]
    sources = SimpleNamespace(ARGS="args")
    asked = {"ArgsSource": sources, "args_source": "args"}  # files are named: nothing is left out
    config: Any = SimpleNamespace(**asked, **({"workerinput": {}} if is_worker else {}))
    pytest_collection_modifyitems(config, items)
    assert "".join(item.nodeid[0] for item in items) == ("ccbaaaaa" if is_worker else "aaabccaa")
