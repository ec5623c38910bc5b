"""Event files for TensorBoard hold what the table holds."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft_plugins.training import events
from modelgraft_plugins.training.watching import read_table
from support.learners import write_graph


def numbers_in(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of each number in the event files: records of a length, its check, bytes, their check."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + size])
            at += 12 + size + 4
            yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)


def test_events_hold_the_numbers_of_the_table(tmp_path: Path):
    pytest.importorskip("tensorboardX", reason="writes event files")
    graph = write_graph(tmp_path, ("steps: 12", "steps: 5\n  valid: 0.3\n  evaluate: 2"))
    folder = mg.train(graph, out=tmp_path / "out", device="cpu", tensorboard=True).last
    found = {(tag, step): value for tag, step, value in numbers_in(folder / events.FOLDER)}
    rows = read_table(folder / "metrics.csv")
    assert len(rows) == 8
    for row in rows:
        for key in ("loss", "norm", "learning_rate"):
            if row[key]:
                assert found[f"{row['part']}/{key}", int(row["step"])] == pytest.approx(float(row[key]), rel=1e-5)


def test_events_are_refused_where_nothing_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "is_tensorboard_available", lambda: False)
    with pytest.raises(mg.InputError, match=r"pip install 'modelgraft\[tensorboard\]'"):
        mg.train(write_graph(tmp_path), out=tmp_path / "out", device="cpu", tensorboard=True)
    assert not (tmp_path / "out").exists()
