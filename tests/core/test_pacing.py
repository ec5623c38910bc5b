"""How far many records are: one line that moves on a terminal, plain lines elsewhere, nothing where nobody asks."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelgraft.cli.pacing import EVERY_S, Pace, counting
from modelgraft.cli.screen import Screen
from modelgraft.data.datasets import open_dataset
from support.command import CAPITALS, commands

TESTS = Path(__file__).parents[1]


class Clock:
    """A clock that goes when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder with the toys alone; gives its exit code, stdout and stderr."""
    return commands(monkeypatch, tmp_path, capsys)


def test_the_rate_is_that_of_late_and_loading_is_no_part_of_it():
    """A minute of loading, then batches of 8 every 4 seconds, then every 16."""
    clock = Clock()
    pace = Pace(1000, clock=clock)
    assert pace.words() == "0 of 1,000 records"
    clock.now = 60.0
    for batch in range(10):
        for record in range(8):
            pace.take(8 * batch + record + 1, 0)
        clock.now += 4.0
    assert pace.words() == "80 of 1,000 records, 2.0 a second, 0:07:40 left"
    for batch in range(10, 100):
        clock.now += 16.0
        pace.take(8 * batch + 8, 3)
    assert pace.words() == "800 of 1,000 records, 3 failed, 2.0 s each, 0:06:40 left"


@pytest.mark.parametrize(("total", "done", "told"), [(None, 5, "5 records"), (3, 5, "5 records"), (5, 5, "5 of 5 records")])
def test_a_number_that_is_not_known_is_not_told(total, done, told):
    """Nor one that turns out to be wrong; records that were there before say nothing of how fast it goes."""
    assert Pace(total, done).words() == told


@pytest.mark.parametrize(("is_on", "told"), [(True, ["2 of 4 records, 6.0 s each, 0:00:12 left"]), (False, [])])
def test_elsewhere_than_on_a_terminal_there_is_a_line_every_so_often(is_on, told):
    """At 12 s, and none at 24 s for the last record: the command says what came of all."""
    clock, err = Clock(), io.StringIO()
    screen = Screen(io.StringIO(), err, is_json=False)
    with counting(screen, Pace(4, clock=clock), is_on=is_on) as (count, note):
        for done in range(1, 5):
            clock.now += 0.6 * EVERY_S
            count(done, 0)
        note("said beside it")
    assert err.getvalue().splitlines() == [*told, "said beside it"]
    assert screen.out.getvalue() == ""


def test_a_map_tells_how_far_it_is_unless_it_is_quiet(run, monkeypatch):
    """Of how many, how many have failed; stdout has the one document."""
    monkeypatch.setattr("modelgraft.cli.pacing.EVERY_S", 0.0)
    Path("data.jsonl").write_text("".join(json.dumps({"text": word}) + "\n\n" for word in ("oak", "bad", "elm")))
    words = ("map", "failing.yaml", "data.jsonl", "--out", "out.jsonl", "--json")
    code, out, err = run(*words)
    assert (code, json.loads(out)["failed"]) == (1, 1)
    assert [line for line in err.splitlines() if " of 3 records" in line] == ["1 of 3 records", "2 of 3 records, 1 failed"]
    code, out, err = run(*words, "--quiet")
    assert (code, json.loads(out)["failed"], " records" in err, "bad was given" in err) == (1, 1, False, True)


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("data.jsonl", '{"text": "a"}\n\n  \nno record\n{"text": "b"}', 3),
        ("data.csv", 'text\n"a\nb"\n\nc,d\n', 2),
        ("data.tsv", "text\n", 0),
        ("data.csv", "", 0),
    ],
)
def test_the_number_of_rows_is_that_of_the_rows_that_are_read(tmp_path, name, content, count):
    """Empty lines are none, rows that fail are some, and a cell may hold lines."""
    Path(tmp_path, name).write_text(content)
    dataset = open_dataset(str(tmp_path / name), {}, note=print, types={})
    assert dataset.count() == count
    if content:
        assert len(list(dataset.read())) == count


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal_one_line_moves_and_goes_away(tmp_path):
    """What failed is told above it, and the answer is the same as ever."""
    import pty

    (tmp_path / "graph.yaml").write_text(CAPITALS.replace("toy/upper", "toy/fail"), encoding="utf-8")
    (tmp_path / "data.jsonl").write_text('{"text": "oak"}\n{"text": "bad"}\n', encoding="utf-8")
    ours, theirs = pty.openpty()
    code = (
        "import sys; import modelgraft.installed.discovery as registry; from support import toys; registry.discover = toys.registry;"
        "from modelgraft.cli import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "map", "graph.yaml", "data.jsonl", "--out", "out.jsonl", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert json.loads(process.communicate(timeout=60)[0])["failed"] == 1
    assert b"2 of 2 records, 1 failed" in shown
    assert b"bad was given" in shown
    assert b"\x1b[2K" in shown  # the line that was drawn is erased
