"""What loads have left for later: handed to a process of its own once a first answer is there, and looked after until it is done.

The process goes on when this one ends, whatever it ends with: the next start finds what it has made. How far it is stands in
`meanwhile/KEY.json` in the cache, for every process that waits for the same.
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any

from modelgraft.engine import states
from modelgraft.engine.backend import Unfinished
from modelgraft.engine.opening import Opening
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import Problem
from modelgraft.kernel.words.graph import SolvedGraph
from modelgraft.kernel.words.guard import said
from modelgraft.kernel.words.plan import Step
from modelgraft.kernel.words.wording import option
from modelgraft.sources.storage import cache_root

REGISTRY = "registry"  # stands for what is installed, which the other process finds by itself
PIPE_BYTES = 1 << 16  # what a pipe holds by itself
START_S = 60.0  # within which a process that was started takes its locks, however busy the machine is

# The process that is started hands itself over to one that nobody waits for. What it works with comes in plain values.
CODE = """
import os, pickle, sys
path, work = pickle.load(sys.stdin.buffer)
if hasattr(os, "fork") and os.fork():
    os._exit(0)
sys.path[:] = path
from modelgraft.engine.aside import do
do(work)
"""


@dataclass(frozen=True, slots=True)
class Errand:
    """Work on one node. `content`: the graph and the step, for the other process."""

    node: str
    unfinished: Unfinished
    content: bytes


class Meanwhile:
    """The jobs that the loads of a pipeline have left."""

    def __init__(self, graph: SolvedGraph, *, opening: Opening) -> None:
        self._graph, self._opening = graph, opening
        self._waiting: list[Errand] = []
        self._began: dict[str, float] = {}  # by key: when a process of ours was started, in seconds since 1970

    def add(self, step: Step, unfinished: Unfinished) -> str:
        """Take a job, to be begun later; gives what a user must know of it, in a sentence without the name of the node."""
        if why := states.unusable(folder_of_states()):
            return _told(
                unfinished, f"cannot be kept: the cache {cache_root()} cannot be used ({why}); set MODELGRAFT_CACHE to another folder"
            )
        before = states.read(folder_of_states(), unfinished.key)
        if states.is_under_way(folder_of_states(), unfinished.key):
            return _told(unfinished, f"is being made by another process{f' ({before.progress})' if before.progress else ''}")
        try:
            content = packed((self._graph, step))
        except Exception as error:  # noqa: BLE001 a plugin may put anything into a config, and pickle raises what it likes
            return _told(unfinished, f"cannot be made by another process ({said(error)}): {option('export', 'now')} makes it here")
        self._waiting.append(Errand(step.node.name, unfinished, content))
        again = f"; that has failed before ({before.failed})" if before.failed else ""
        if before.process and not before.is_over:
            where = f" ({before.label} {before.done:,})" if before.label else ""
            again = f"; the process that began it before ended early{where}, as one that is killed does"
        return _told(unfinished, f"is made in the background from the first answer on{again}")

    def take(self) -> list[Errand]:
        """The jobs that wait; nobody else gets them."""
        jobs, self._waiting = self._waiting, []
        return jobs

    def begin(self) -> None:
        """Start a process for the jobs that wait, and wait neither for its Python to start nor for its end: somebody waits for an answer.

        A machine that starts none leaves them to the next start.
        """
        if not (jobs := self.take()):
            return
        work = pickle.dumps((packed(self._opening), [(job.unfinished.key, job.node, job.unfinished.what, job.content) for job in jobs]))
        request = pickle.dumps(([str(Path(part).absolute()) for part in sys.path], work))
        cores = str(max(1, (os.cpu_count() or 1) // 2))
        environment = {**os.environ, "OMP_NUM_THREADS": cores, "MODELGRAFT_THREADS": os.environ.get("MODELGRAFT_THREADS") or cores}
        started_at = time.time()
        try:
            started = subprocess.Popen(  # noqa: S603 our own interpreter and code
                [sys.executable or "python", "-c", CODE],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C of the terminal is none for it
                env=environment,
            )
            assert started.stdin is not None, "it was asked for"
            with started.stdin as handed:
                _make_room(handed, len(request))
                handed.write(request)
        except OSError:
            return
        if hasattr(os, "fork"):
            Thread(target=started.wait, name="meanwhile", daemon=True).start()  # or it stays in the tables of the system, done
        self._began |= {job.unfinished.key: started_at for job in jobs}

    def look(self, key: str) -> states.State | None:
        """How far a job is; None when there is nothing to wait for any more."""
        found = states.read(folder_of_states(), key)
        if found.is_over or states.is_under_way(folder_of_states(), key):
            return found
        found, began = states.read(folder_of_states(), key), self._began.get(key)  # once more: it may have ended between the two looks
        is_dead = began is not None and found.since >= began  # it has begun, and nobody works on it
        is_awaited = any(job.unfinished.key == key for job in self._waiting) or (began is not None and time.time() - began < START_S)
        return found if found.is_over or (is_awaited and not is_dead) else None


def _make_room(pipe: IO[bytes], size: int) -> None:
    """Let a pipe hold so much, where the system lets it: whoever writes more than it holds waits for who reads."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, max(size, PIPE_BYTES))


def folder_of_states() -> Path:
    """Where the states of all jobs lie."""
    return cache_root() / "meanwhile"


def in_a_line(error: BaseException) -> str:
    """Why work failed, in one line: what was found, without codes and ways out."""
    problems: tuple[Problem, ...] = getattr(error, "noted", ())
    return "; ".join(problem.found for problem in problems) or said(error).partition("\n")[0]


def _told(unfinished: Unfinished, how: str) -> str:
    if unfinished.meanwhile:
        return f"answers on {unfinished.meanwhile} until its {unfinished.what} is there, which {how}"
    return f"its {unfinished.what}, by which later starts are faster, {how}"


class _Packer(pickle.Pickler):
    """Pickles values of a graph for a process that imports what they are made of."""

    def persistent_id(self, value: Any) -> str | None:  # Any: whatever a graph holds
        """Leave out what is installed; refuse what only this program has."""
        if isinstance(value, Registry):
            return REGISTRY
        if getattr(value, "__module__", "") == "__main__" and getattr(value, "__qualname__", ""):
            raise pickle.PicklingError(f"{value.__qualname__} is defined in this program")
        return None


def packed(value: Any) -> bytes:  # Any: whatever a graph holds
    """A value of a graph for another process. Raises what pickle does."""
    found = io.BytesIO()
    _Packer(found).dump(value)
    return found.getvalue()


class _Unpacker(pickle.Unpickler):
    def __init__(self, content: bytes, registry: Registry) -> None:
        super().__init__(io.BytesIO(content))
        self._registry = registry

    def persistent_load(self, key: Any) -> Registry:  # Any: as pickle calls it
        """Put what is installed here in its place."""
        if key != REGISTRY:
            raise pickle.UnpicklingError(f"found {key!r}; wanted: {REGISTRY}")
        return self._registry


def unpacked(content: bytes, registry: Registry) -> Any:  # Any: what was packed
    """What `packed` was given."""
    return _Unpacker(content, registry).load()
