"""The libraries of torch are taken in while plugins are read for the first time, and then alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelgraft.cli import running
from modelgraft.cli.screen import Screen
from modelgraft.cli.session import CliSession
from modelgraft.engine import torch_libraries
from modelgraft.sources.installed_plugins import PLUGINS

TAKEN = """
import sys, threading
from modelgraft.engine.torch_libraries import begin_to_take
begin_to_take()
for thread in threading.enumerate():
    if thread.name == "torch-libraries":
        thread.join()
print("torch" in sys.modules, "libtorch_cpu" in open("/proc/self/maps").read())
import torch
print(float(torch.ones(3) @ torch.ones(3)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is mapped")
def test_libraries_are_there_before_python_imports_torch() -> None:
    found = subprocess.run([sys.executable, "-c", TAKEN], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True", "3.0"]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_run_begins_with_them_where_nothing_of_the_plugins_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    """A later one may need no torch, and reads its plugins too fast to hide anything behind that."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    if is_kept:
        (tmp_path / PLUGINS).mkdir()
    begun = list[str]()
    for name in running.LIBRARIES:
        monkeypatch.setenv(name, "")  # so that it is as it was again behind the test
        monkeypatch.delenv(name)
    monkeypatch.setattr(torch_libraries, "begin_to_take", lambda: begun.append(f"begun {os.environ['OMP_WAIT_POLICY']}"))
    session = CliSession(Screen.of_process(is_json=False, is_lines=False))
    monkeypatch.setattr(CliSession, "load", lambda *_: begun.append("read"))
    monkeypatch.setattr("modelgraft.api.check", lambda *_, **__: None)
    running._solve(session, "words", None, None)
    assert begun == (["read"] if is_kept else ["begun PASSIVE", "read"])


def test_where_torch_is_not_installed_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_libraries, "find_spec", lambda _: None)
    monkeypatch.setattr(torch_libraries, "Thread", lambda **_: pytest.fail("a thread was begun"))
    torch_libraries.begin_to_take()


def test_a_library_that_cannot_be_taken_is_left_to_the_import(tmp_path: Path) -> None:
    torch_libraries._take(tmp_path / "libtorch_python.so")
    assert not any(tmp_path.iterdir())
