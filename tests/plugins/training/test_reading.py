"""How records come to a step: numbers are read once, the next batch while a step runs, and nobody sees a difference."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import modelgraft as mg
from modelgraft.data.datasets import DataRow, Dataset
from modelgraft.engine.learning import Learning
from modelgraft_plugins.training import mapped
from modelgraft_plugins.training.ahead import Ahead
from modelgraft_plugins.training.rows import read_rows
from support.learners import write_graph


def test_numbers_of_one_shape_lie_in_a_column_and_others_are_read_as_before(tmp_path):
    """A batch of them is what the pipeline reads; in a batch with another shape, or an integer among floats, each is read by itself."""
    graph = write_graph(tmp_path)
    solved = mg.check(mg.load(graph))
    lines = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    lines[3]["x"], lines[5]["x"] = [[1, 2, 3, 4, 5]], [[1.0, 2.0]]
    dataset = Dataset((), lambda: iter(DataRow(f"d:{number}", number, line) for number, line in enumerate(lines)), "same")
    rows = read_rows(dataset, {"x": "x", "y": "y"}, solved.inputs)
    with mg.open(graph) as pipeline:
        learning = Learning(pipeline, ["apart"], learners=())
        for numbers in ([4, 0, 3], [12, 7, 7], [6]):
            records, whole = rows.take(numbers, learning.inputs)
            assert (records, set(whole)) == ([{}] * len(numbers), {"x", "y"})
            wanted = learning.read([lines[number] for number in numbers]).values
            torch.testing.assert_close(learning.read(records, whole).values, wanted, rtol=0, atol=0)
        records, whole = rows.take([4, 5], learning.inputs)
        assert set(whole) == {"y"}
        found, wanted = learning.read(records, whole), learning.read([lines[4], lines[5]])
    assert found.left_out.keys() == wanted.left_out.keys() == {1}
    assert all("input 'x'" in str(one.left_out[1]) and "an axis is 2 long, not 5" in str(one.left_out[1]) for one in (found, wanted))
    torch.testing.assert_close(found.values, wanted.values, rtol=0, atol=0)


def test_what_is_read_ahead_is_as_if_it_were_read_when_it_is_taken():
    """It is read in another thread; again where what it depends on has changed; an error is raised where it is taken, or never."""
    threads, left_out = list[str](), set[int]()

    def read(numbers: list[int]) -> list[int]:
        threads.append(threading.current_thread().name)
        if -1 in numbers:
            raise ValueError("-1 cannot be read")
        return [number for number in numbers if number not in left_out]

    with Ahead(read, lambda: len(left_out)) as ahead:
        ahead.begin([1, 2])
        assert ahead.take([1, 2]) == [1, 2]
        assert all(name.startswith("reads-ahead") for name in threads)
        ahead.begin([2, 3])
        left_out.add(3)
        assert ahead.take([2, 3]) == [2]
        ahead.begin([-1])
        assert ahead.take([4]) == [4]
        ahead.begin([-1])
        with pytest.raises(ValueError, match="-1 cannot be read"):
            ahead.take([-1])
        ahead.begin([-1])


def test_a_record_that_a_node_refuses_is_out_of_what_was_read_ahead_too(tmp_path, monkeypatch):
    """All records in every batch: the second was read before the first step refused one, and ends as without that record."""
    change = ("batch: 4", "batch: 13\n  shuffle: false")
    graph, refused = write_graph(tmp_path, change), torch.tensor(json.loads((tmp_path / "data.jsonl").read_text().splitlines()[6])["x"])
    call = Learning.__call__

    def refusing(self, batch, **options):
        if any(torch.equal(row, refused[0]) for row in batch.values["x"]):
            raise mg.InputError("a node does not take it")
        return call(self, batch, **options)

    monkeypatch.setattr(Learning, "__call__", refusing)
    found = mg.train(graph, out=tmp_path / "out", device="cpu", skip_bad=True).last
    monkeypatch.undo()
    assert json.loads((found / "card.json").read_text())["skipped"] == 1
    lines = (tmp_path / "data.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "data.jsonl").write_text("".join(lines[:6] + lines[7:]))
    wanted = mg.train(graph, out=tmp_path / "wanted", device="cpu").last
    assert (found / "hand.safetensors").read_bytes() == (wanted / "hand.safetensors").read_bytes()


@pytest.mark.skipif(mapped.DONT_NEED is None, reason="this system gives pages back when it wants")
def test_little_is_held_of_a_file_that_is_mapped(tmp_path, monkeypatch):
    """Rows of 32 MiB are read in turn, and what the process holds of files grows by no more than what may be held."""
    monkeypatch.setattr(mapped, "MOST_BYTES", 1 << 20)
    np.arange(8 << 20, dtype=np.float32).tofile(tmp_path / "rows")
    rows = mapped.Mapped(tmp_path / "rows", np.float32, (1 << 13, 1 << 10))
    before, most = held_of_files(), 0
    for start in range(0, 1 << 13, 64):
        found = rows.values[list(range(start, start + 64))]
        assert found[5, 7] == (start + 5) * 1024 + 7
        rows.note(64, found[0].nbytes)
        most = max(most, held_of_files())
    assert most - before < 8 << 10  # in KiB: what may be held, and what the system reads around it


def held_of_files() -> int:
    """KiB of mapped files in the memory of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
    return int(line.split()[1])
