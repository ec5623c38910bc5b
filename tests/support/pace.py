"""What makes a whole run short without leaving anything out: hooks that `conftest.py` takes over."""

from __future__ import annotations

import atexit
import copy
import gc
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from modelgraft.installed import discovery, indexed
from modelgraft.kernel.language.document import PRECISIONS
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.sources.families import families
from support import chat_workers, seconds
from support.choosing import Case, for_quick, for_test, takes
from support.forking import forks
from support.sampling import WHOLE

PART, FEWEST = 4, 25  # of the examples that a test says it draws, one in so many where not all tests run; but so many
IMPORTED, MANY = pytest.StashKey[int](), 50  # modules when garbage was looked for in all of them last; so many more are worth it
LEFT = pytest.StashKey[tuple[int, int]]()  # tests that are left out, of how many


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="the daily loop: a sample of the tests that are not slow")


def pytest_configure(config: pytest.Config) -> None:
    """With MODELGRAFT_SECONDS=FILE, note there what each test takes: `make seconds`."""
    if noted := os.environ.get("MODELGRAFT_SECONDS"):
        config.pluginmanager.register(seconds.Clock(Path(noted)))


def kind_of(config: pytest.Config) -> str:
    """Which tests are run: "whole" where they are named, by files, node ids, -k or -m, too."""
    named = config.args_source is config.ArgsSource.ARGS or config.option.keyword or config.option.markexpr
    return "whole" if WHOLE or named else "quick" if config.getoption("quick") else "test"


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take those of this kind of run; where processes take file after file, the longest first: none is left for the end."""
    known = seconds.read(seconds.TABLE.read_text(encoding="utf-8").splitlines())
    cases = {item.nodeid: case_of(item) for item in items}
    kind = kind_of(config)
    if kind != "whole":
        draw_less(items)
    if kind == "quick":
        leave_out(config, items, for_quick(cases.values(), known))
    if kind == "test":
        leave_out(config, items, taken := for_test(cases.values(), known, names()))
        check_proofs(cases.values(), taken)
    if hasattr(config, "workerinput"):  # set by xdist in its processes
        files = defaultdict[str, float](float)
        for item in items:
            files[cases[item.nodeid].file] += takes(cases[item.nodeid], known)
        items.sort(key=lambda item: (-files[cases[item.nodeid].file], cases[item.nodeid].file))


def draw_less(items: Iterable[pytest.Item]) -> None:
    """Let tests that draw their examples draw a part of as many as they say."""
    for item in items:
        own = getattr(getattr(item, "obj", None), "_hypothesis_internal_use_settings", None)  # there is no public way behind a decorator
        if own is not None:
            fewer = min(own.max_examples, max(own.max_examples // PART, FEWEST))
            item.obj._hypothesis_internal_use_settings = settings(own, max_examples=fewer)


def case_of(item: pytest.Item) -> Case:
    """A test by its name and marks."""
    mark = item.get_closest_marker("whole")
    return Case(item.nodeid, slow=item.get_closest_marker("slow") is not None, whole=None if mark is None else mark.args)


def leave_out(config: pytest.Config, items: list[pytest.Item], taken: set[str]) -> None:
    """Keep what is taken, and note for the last line how much is left."""
    left = [item for item in items if item.nodeid not in taken]
    config.stash[LEFT] = len(left), len(items)
    if hasattr(config, "workeroutput"):
        config.workeroutput["left"] = config.stash[LEFT]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item.nodeid in taken]


def check_proofs(cases: Iterable[Case], taken: set[str]) -> None:
    """What is left to whole runs is proven by a smaller test, and that is run."""
    functions = {name.partition("[")[0] for name in taken}
    for case in cases:
        if case.whole is not None and not (case.whole and functions.issuperset(case.whole)):
            raise pytest.UsageError(f"{case.name} is left to whole runs for {case.whole}: name tests as file::test that `make test` runs")


def names() -> frozenset[str]:
    """What families, backends and precisions are called."""
    backends = discovery.discover().backends  # it makes the cards of families known, too
    return (
        frozenset(families().wholes)
        | frozenset(families().towers)
        | frozenset(families().languages)
        | frozenset(backends)
        | frozenset(PRECISIONS)
    )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over from one of several processes what was left out: it is the same in all."""
    if left := getattr(node, "workeroutput", {}).get("left"):
        node.config.stash[LEFT] = left


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was left out, and how it is run."""
    if left := config.stash.get(LEFT, None):
        count, of = left
        terminalreporter.write_line(
            f"{count} of {of} tests were left out: cases of tables, and what smaller tests prove. "
            "`make whole` runs all; whatever is named is run whole: a file, a test, -k, -m."
        )


def pytest_collection() -> None:
    """Look for no garbage while tests are gathered: what is imported and gathered stays."""
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Do once what would be done for each test: what was imported is no garbage, and the operators of the exporter stay the same."""
    gc.freeze()  # a look for garbage takes half a second otherwise, and each export begins one
    gc.enable()
    session.config.stash[IMPORTED] = len(sys.modules)
    keep_plugins()
    if "torch" in sys.modules:
        keep_operators()
    if "modelgraft_plugins.onnx.tuning" in sys.modules:
        try_tuned_graphs_in_forks()
    if rendering := sys.modules.get("modelgraft_plugins.chat_rendering"):
        chat_workers.share(rendering)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Behind a file that has imported much, keep apart what there is again: each look for garbage would go through it until the end."""
    found = yield
    if (nextitem is None or nextitem.path != item.path) and len(sys.modules) > item.config.stash[IMPORTED] + MANY:
        gc.collect()
        gc.freeze()
        item.config.stash[IMPORTED] = len(sys.modules)
    return found


def keep_plugins() -> None:
    """Let a process find out once what is installed: each graph that is read asks, and looks at the time of some thousand files.

    What is found is the same for all tests that put nothing else in the place of it; what finds it has its own, test_indexed.py.
    """
    if not isinstance(indexed.registry_in, _Found):
        indexed.registry_in = _Found(indexed.registry_in)


class _Found:
    """Stands for `indexed.registry_in`: gives what is installed as it reads it from a folder, for each search path once."""

    def __init__(self, real: Callable[..., Registry]) -> None:
        self.real, self.known = real, dict[tuple[str, ...], Registry]()

    def __call__(self, folder: Path, *, keep: bool = True) -> Registry:
        if not discovery.is_usual():
            return self.real(folder, keep=keep)
        path = tuple(sys.path)
        if path not in self.known:
            own = tempfile.TemporaryDirectory()  # what is made of all plugins is kept beside what is known of them
            atexit.register(own.cleanup)
            self.real(Path(own.name))
            self.known[path] = self.real(Path(own.name))
        return self.known[path]


def try_tuned_graphs_in_forks() -> None:
    """Let what tries a tuned graph be a fork: each export has one, and starting an interpreter takes longer than all else that it does."""
    from modelgraft_plugins.onnx import tuning

    if hasattr(os, "fork"):
        tuning.subprocess = forks("onnxruntime", tuning.__name__)  # type: ignore[assignment]


def keep_operators() -> None:
    """Let the exporter read its table of operators once in a process: it parses the source of all of them for each export."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read: Any = ONNXRegistry.from_torchlib
    if not hasattr(read, "kept"):
        ONNXRegistry.from_torchlib = Kept(read)  # type: ignore[method-assign, assignment]


class Kept:
    """Gives each caller a table of its own, with the same entries."""

    def __init__(self, read: Any) -> None:
        self.read, self.kept = read, lru_cache(maxsize=None)(read)

    def __call__(self, **options: Any) -> Any:
        found = copy.copy(self.kept(**options))
        found.functions = {target: list(entries) for target, entries in found.functions.items()}
        return found
