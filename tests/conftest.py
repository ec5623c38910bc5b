"""Fixtures that tests of several folders ask for, and a look at the installation before any test."""

from __future__ import annotations

import os
import signal
import threading
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from modelgraft.installed.discovery import GROUP
from support.pace import (  # noqa: F401 hooks
    pytest_addoption,
    pytest_collection,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_protocol,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from support.untuned import leave_untuned

# A busy machine is no fault of what is tested: nothing is judged by the time that an example takes.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_sessionstart() -> None:
    """Hear Ctrl-C, which a shell has what it starts in the background ignore, and with it all processes of the tests.

    Leave nothing to processes in the background: what is tested is over when its test is. Measure nothing of the processor: blocks of
    weights are the same everywhere.

    Stop at once where a plugin was added since modelgraft was installed: its graphs would fail, and not say why.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("MODELGRAFT_BACKGROUND", "off")
    os.environ.setdefault("MODELGRAFT_BLOCKS", "32")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    missing = set(project["entry-points"][GROUP]) - {point.name for point in entry_points(group=GROUP)}
    if missing:
        again = "pip install --no-deps --no-build-isolation -e ."
        raise pytest.UsageError(f"the installation does not know the plugins {', '.join(sorted(missing))}; install it again: {again}")


@pytest.fixture(scope="module")
def untuned_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache for the tests of a module, whose exports run as they were written: tuning takes a process each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        leave_untuned(patch)
        yield
