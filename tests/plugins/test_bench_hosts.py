"""The processes of a bench, real ones: whatever a plugin does in them, it does to one cell, and nothing is left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.held import write_records
from modelgraft_plugins.benching.hosts import CellFailed, Host
from modelgraft_plugins.benching.measuring import measure
from modelgraft_plugins.benching.results import Cell, Method
from support import odd_plugin


def wanted(id, graph, **settings):
    planned = Cell(id=id, key=id, values={}, command="", state="unfinished", graph=str(graph))
    keys = {f"nodes.act.with.{name}": value for name, value in settings.items()}
    return WantedCell(id=id, key=id, values={}, graph=str(graph), command="", planned=planned, settings=keys)


def run(cells, records, *, timeout_s=60.0, **method):
    found = measure(
        cells, [{"text": one} for one in records], Method(**{"cold": 0, "rounds": 2, "warm_ups": 0, **method}),
        tell=lambda text: None, done=lambda cell: None, timeout_s=timeout_s,
    )  # fmt: skip
    return {cell.id: cell for cell in found.cells}


@pytest.mark.slow
def test_whatever_a_plugin_does_takes_one_cell(tmp_path, monkeypatch):
    """It leaves, hangs, raises, quits, prints what looks like an answer: each is told, and the others are measured."""
    graph = odd_plugin.install(tmp_path, monkeypatch)
    deeds = ("print", "exit", "hang", "raise", "quit", "segfault")
    cells = [wanted("plain", graph), *(wanted(deed, graph, do=deed) for deed in deeds), wanted("last", graph)]
    found = run(cells, ["a", "b"], timeout_s=8.0)
    assert {id: cell.state for id, cell in found.items()} == {
        "plain": "measured", "print": "measured", "exit": "failed", "hang": "failed", "raise": "failed", "quit": "failed",
        "segfault": "failed", "last": "measured",
    }  # fmt: skip
    why = {id: cell.reasons[0].text for id, cell in found.items() if cell.reasons}
    assert why["exit"] == "its process ended with exit code 3"
    assert why["hang"] == "it took longer than 8 s to look, and was ended; --timeout gives it more"
    assert (
        "all of the first 2 records fail in it, the first with: node 'act' (odd/act, plugin 'odd') failed: ValueError: no luck"
        in why["raise"]
    )
    assert "SystemExit" in why["quit"]
    assert why["segfault"].startswith("its process ended with signal SIGSEGV; its last words: Fatal Python error: Segmentation fault")
    for name in ("print", "last"):
        assert found[name].agreement == 1.0
        assert found[name].ratio is not None
        shares = found[name].shares
        assert sum(shares.nodes.values()) + sum(shares.rest.values()) == shares.wall_s
        assert set(shares.nodes) == {"first", "act"}
    assert set(found["plain"].edges) == {"inputs.text -> first.text", "first.text -> act.text"}


@pytest.mark.slow
def test_a_record_that_fails_is_one_record(tmp_path, monkeypatch):
    """In a batch the others are answered; it is listed with its node."""
    graph = odd_plugin.install(tmp_path, monkeypatch)
    found = run([wanted("plain", graph), wanted("picky", graph, do="raise", when="B")], ["a", "b", "c"])
    assert [(failure.record, failure.place) for failure in found["picky"].failures] == [(1, "act")]
    assert "no luck" in found["picky"].failures[0].text
    assert found["picky"].agreement == 1.0
    assert len(found["picky"].samples) == len(found["plain"].samples) == 2


@pytest.mark.slow
def test_what_is_shared_is_computed_outside_of_what_is_timed(tmp_path, monkeypatch):
    """The node in front gives its results to both cells; a record that fails in it is one record of each."""
    graph = odd_plugin.install(tmp_path, monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)  # what cells share is found by this process
    cells = [wanted("plain", graph), replace(wanted("print", graph, do="print"), batch=2)]
    found = run(cells, ["a", "b", "c"], share_upstream=True)
    for cell in found.values():
        assert cell.shared == ("first",)
        assert set(cell.shares.nodes) == {"act"}
        assert set(cell.edges) == {"first.text -> act.text"}
        assert cell.agreement == 1.0
    failing = {"nodes.first.with.do": "raise", "nodes.first.with.when": "b"}
    cells = [replace(cell, settings={**cell.settings, **failing}) for cell in cells]
    found = run(cells, ["a", "b", "c"], share_upstream=True)
    assert [[failure.record for failure in cell.failures] for cell in found.values()] == [[1], [1]]
    assert "node 'first'" in found["plain"].failures[0].text


@pytest.mark.slow
def test_cold_starts_find_nothing_that_was_derived(tmp_path, monkeypatch):
    """And tell how much memory a fresh process took, which this one has no part in."""
    graph = odd_plugin.install(tmp_path, monkeypatch)
    cell = run([wanted("plain", graph)], ["a"], cold=1)["plain"]
    assert cell.start.cold.value > 0
    assert cell.start.warm.value > 0
    assert 1 << 20 < cell.memory.resident < 1 << 30


def test_a_host_that_is_asked_after_its_end_says_so(tmp_path):
    """An answer is never waited for in vain."""
    write_records([{"text": "a"}], tmp_path / "records.jsonl")
    with Host(tmp_path / "records.jsonl", variables={}, timeout_s=60.0) as host:
        assert host.ask("peaks")["resident"] > 0
        os.kill(host.number, signal.SIGKILL)
        with pytest.raises(CellFailed, match="ended with signal SIGKILL, as a system without memory left does"):
            host.ask("peaks")


BENCH = """
import json, sys
from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.measuring import measure
from modelgraft_plugins.benching.results import Cell, Method

graph, do = sys.argv[1:]
def wanted(id, **settings):
    planned = Cell(id=id, key=id, values={}, command="", state="unfinished", graph=graph)
    return WantedCell(id=id, key=id, values={}, graph=graph, command="", planned=planned, settings=settings)

cells = [wanted("plain"), wanted("odd", **{"nodes.act.with.do": do})]
try:
    measure(cells, [{"text": "a"}], Method(cold=0, rounds=2), tell=lambda text: print("tell", text, flush=True),
            done=lambda cell: print("done", cell.id, cell.state, flush=True))
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_bench_that_is_stopped_leaves_nothing_over(tmp_path, monkeypatch, how):
    """Neither its hosts nor what a plugin started in them; after Ctrl-C, what was found is handed over."""
    graph = odd_plugin.install(tmp_path, monkeypatch)
    mark = f"mark {os.getpid()} {how.name}"
    monkeypatch.setenv("ODD_MARK", mark)
    bench = subprocess.Popen([sys.executable, "-c", BENCH, str(graph), "child"], stdout=subprocess.PIPE, text=True)
    _wait(lambda: len(_marked(mark)) > 0)
    bench.send_signal(how)
    out, _ = bench.communicate(timeout=60)
    if how == signal.SIGINT:
        assert "done plain unfinished\n" in out
        assert out.endswith("stopped\n")
        assert _marked(mark) == []
    _wait(lambda: not _children(mark))


def _marked(mark):
    """The processes that a plugin started."""
    return [number for number in _processes() if mark in _read(f"/proc/{number}/cmdline")]


def _children(mark):
    """All processes that know the mark by their environment, beside this one."""
    return [number for number in _processes() if f"ODD_MARK={mark}" in _read(f"/proc/{number}/environ") and number != os.getpid()]


def _processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(path):
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _wait(is_so):
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)
