"""What begins before the first load of a run: sessions start in threads, another process converts files, and torch is imported meanwhile
where a node needs it."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module

from modelgraft.engine.backend import Backend
from modelgraft.engine.choosing import is_off
from modelgraft.kernel.words.plan import Step
from modelgraft.sources import converting


def begin(steps: Iterable[Step], backend: Callable[[str], Backend]) -> None:
    """Let backends begin with the modules of these steps that are for the CPU, and import torch meanwhile where one of all needs it.

    backend  gives one by its name

    What a backend cannot begin is told by the load, which meets it again.
    """
    modules = [step for step in steps if step.node.parts or step.node.component.module is not None]
    with _kept_whole() if modules and "torch" not in sys.modules else contextlib.nullcontext():
        needs_none = [step.device == "cpu" and _begun(step, backend) for step in modules]  # which imports code of theirs
        if not all(needs_none) and "torch" not in sys.modules:
            _convert(modules)
            import_module("torch")


def _begun(step: Step, backend: Callable[[str], Backend]) -> bool:
    """Let a backend begin with the module of a step; gives whether it needs no torch."""
    with contextlib.suppress(Exception):  # code of plugins may raise anything
        return backend(step.backend).begin(step.node, precision=step.precision or step.dtype, threads=step.threads) is True
    return False


def _convert(modules: Iterable[Step]) -> None:
    """Begin to convert what these steps read, unless nothing is to be left to other processes. What is wrong is told by the load."""
    with contextlib.suppress(Exception):  # a source may be of a plugin, and its files may be gone
        if not is_off():
            parts = [part for step in modules for part in step.node.parts or (step.node,)]
            converting.begin(part.source for part in parts if part.source is not None)


@contextlib.contextmanager
def _kept_whole() -> Iterator[None]:
    """Let Python look for no garbage while something is imported, nor at once in all of it: it is as old as what is looked through last.

    Never in it where this process keeps its imports apart. Where nothing was imported all stays as it is: it may be garbage soon.
    """
    was_on, keeps_apart, known = gc.isenabled(), gc.get_freeze_count() > 0, len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
            if not keeps_apart:
                gc.unfreeze()  # into the oldest generation: half a million objects are else looked through twice while the model is loaded
        if was_on:
            gc.enable()
