"""What is told of the machine, and when it is too busy to believe it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from modelgraft_plugins.benching import surroundings as module
from modelgraft_plugins.benching.surroundings import Watch, busy, surroundings

CPUINFO = "processor : 0\nmodel name : Fast One\nflags : fpu avx2 avx512_vnni amx_int8 sse4_2 hypervisor\n"


def test_what_figures_depend_on_is_told(monkeypatch, tmp_path):
    """The processor with the features that kernels are chosen by, versions, and variables that change them; secrets are none of it."""
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "meminfo").write_text("MemTotal:  2048 kB\nMemAvailable:  1024 kB\n")
    monkeypatch.setattr(module, "PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(module, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    found = surroundings()
    assert (found.processor, found.memory) == ("Fast One", 2048 * 1024)
    assert found.features == ["amx_int8", "avx2", "avx512_vnni", "sse4_2"]
    assert found.variables["OMP_NUM_THREADS"] == "3"
    assert "secret" not in json.dumps(asdict(found))
    assert {"python", "modelgraft", "torch"} <= found.versions.keys()


@pytest.mark.parametrize("missing", ["PROCESSOR", "MEMORY", "PRESSURE"])
def test_a_system_that_tells_less_is_no_error(monkeypatch, tmp_path, missing):
    """What is not known is left out."""
    monkeypatch.setattr(module, missing, tmp_path / "nothing")
    watch = Watch(surroundings())
    watch.look()
    assert isinstance(watch.told().load_during, float | None)


def test_the_time_in_which_something_waited_for_a_core_is_a_part_of_the_rounds(monkeypatch, tmp_path):
    """As the system adds it up: 250 ms of a second."""
    pressure = tmp_path / "cpu"
    pressure.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n")
    monkeypatch.setattr(module, "PRESSURE", pressure)
    watch = Watch(surroundings(), began=5.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: 6.0)
    pressure.write_text("some avg10=9.00 avg60=0.00 avg300=0.00 total=1250000\n")
    assert watch.told().pressure == 0.25


def test_a_busy_machine_is_told(monkeypatch):
    """Others that wanted half of the cores before, or cores that were waited for."""
    quiet = replace(surroundings(), cores=4, load_before=1.0, pressure=0.1)
    assert busy(quiet) == ""
    assert busy(replace(quiet, load_before=2.5)) == "the machine was busy before: a load of 2.5 on 4 cores"
    assert busy(replace(quiet, pressure=0.5)) == "the machine was busy: something waited for a core in 50% of the time"
