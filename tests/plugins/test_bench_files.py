"""Files of results: what is written is read again as it was, whatever the file is called."""

from __future__ import annotations

import json

import pytest

from modelgraft_plugins.benching.files import read_results, write_results
from support.benched import made_results


@pytest.mark.parametrize("name", ["results.json", "results"])
def test_results_are_read_as_they_were_written(tmp_path, name):
    results = made_results({"eye": ("a", "b"), "tongue": ("c", "d")}, pruned=1, failed=1)
    file = tmp_path / name
    write_results(results, file)
    again = read_results(file)
    assert json.loads(file.read_text())["version"] == results.version
    assert [cell.values for cell in again.cells] == [cell.values for cell in results.cells]
    assert again.cells[0].ratio == results.cells[0].ratio
    assert list(again.cells[0].samples) == results.cells[0].samples
    write_results(again, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == file.read_text()
