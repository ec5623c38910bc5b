"""Sessions on the host that are begun before they are asked for, beside the import of torch: starting one needs no lock of Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from modelgraft.plugin import seals
from modelgraft_plugins.onnx.runtime import open_on_host, options_of
from modelgraft_plugins.processor import machine_key


@dataclass(frozen=True, slots=True)
class Begun:
    """What tells a session on the host from others.

    path       of its graph
    optimised  it was optimised for this machine: it is loaded as it is
    count      threads that it computes with; None: as `runtime.threads` says
    as_needed  see `sessions.open_session`
    """

    path: Path
    optimised: bool
    count: int | None
    as_needed: bool = False


LONG = "long-prompts"  # an empty file in an export: whoever ran it last had prompts for its graph for many rows
Files = frozenset[tuple[str, int, int, int]]  # of a graph, as they lie there: name, inode, bytes, and when they were written


@dataclass(frozen=True, slots=True)
class _Starting:
    """A session that was begun, and the files that it was begun on."""

    files: Files
    session: Future[Any]  # onnxruntime has no types


_lock = Lock()
_begun = dict[Begun, _Starting]()


def _forget() -> None:
    """In a process that was forked: no thread of the other one goes on here, and nobody would ever end what it has begun."""
    global _lock  # noqa: PLW0603 it may have been held
    _lock = Lock()
    _begun.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def tuned_folder(folder: Path, graph: str) -> Path:
    """Where a graph of an export lies as it was tuned for this machine."""
    return folder / f"tuned-{machine_key()}-{Path(graph).stem}"


def begin(folder: Path, graph: str, *, count: int | None) -> Begun:
    """Begin the session on a graph of an export in a thread, once, for whoever opens it. Gives what `drop` takes."""
    tuned = tuned_folder(folder, graph)
    what = Begun((tuned if tuned.is_dir() else folder) / graph, tuned.is_dir(), count)
    return _begin(what, partial(_open_whole, what))


def begin_many(few: Begun, graph: Path) -> Begun:
    """Begin the session on a graph for many rows, behind that for few, which is begun: together they would take a core from who imports."""
    what = Begun(graph, False, few.count, as_needed=True)
    with _lock:
        before = _begun.get(few)

    def open_behind() -> Any:  # Any: onnxruntime has no types
        if before is not None:
            before.session.exception()  # waits for its end; who takes it hears what was wrong
        return _open_whole(what)

    return _begin(what, open_behind)


def _begin(what: Begun, open_whole: Callable[[], Any]) -> Begun:
    with _lock:
        if what not in _begun:
            pool = ThreadPoolExecutor(1, thread_name_prefix="session")
            _begun[what] = _Starting(_files(what), pool.submit(open_whole))
            pool.shutdown(wait=False)
    return what


def needs_many(folder: Path) -> bool:
    """Whether whoever ran an export last has read long prompts by its graph for many rows: who comes next most likely will."""
    return (folder / LONG).is_file()


def note_many(folder: Path, *, is_needed: bool) -> None:
    """Note that for the next start, or take the note away; where that cannot be written, the session starts when it is asked for."""
    note = folder / LONG
    with suppress(OSError):
        note.touch() if is_needed else note.unlink(missing_ok=True)


def aside(work: Callable[[], object]) -> None:
    """Begin work in a thread. Nobody hears what it raises: who needs what it does asks for it again."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="aside")
    pool.submit(work)
    pool.shutdown(wait=False)


def proof(what: Begun) -> Callable[[], str]:
    """Begin to look at every byte of the files of a session; gives what waits for the end, and says what is wrong: see `seals.complaint`.

    Not with the session, beside the import of torch: whole starts took 1.17 times as long so (1.07 to 1.32; float32, Zen 3, three rounds).
    """
    return seals.Proof(partial(_complaint, what)).result


def started(what: Begun) -> Any:  # Any: onnxruntime has no types
    """A session that is the caller's: the one that was begun, or one that starts now. Raises what onnxruntime raises, and BrokenSeal.

    One that was begun on other files than lie there now is let go of: an export that was damaged may have been made again.
    """
    with _lock:
        found = _begun.pop(what, None)
    return _open(what) if found is None or found.files != _files(what) else found.session.result()


def drop(what: Begun) -> bool:
    """Let go of a session that nobody has taken; gives whether there was one."""
    with _lock:
        return _begun.pop(what, None) is not None


def _files(what: Begun) -> Files:
    """Those whose names begin with that of the graph; nothing where they cannot be seen."""
    try:
        seen = [(file.name, file.stat()) for file in what.path.parent.iterdir() if file.name.startswith(what.path.name)]
    except OSError:
        return frozenset()
    return frozenset((name, facts.st_ino, facts.st_size, facts.st_mtime_ns) for name, facts in seen)


def _open_whole(what: Begun) -> Any:  # Any: onnxruntime has no types
    """Start a session on files that look unharmed: one that was cut ends the process where it is read beyond its end."""
    if complaint := _complaint(what, quick=True):
        raise seals.BrokenSeal(complaint)
    return _open(what)


def _complaint(what: Begun, *, quick: bool = False) -> str:
    """What is wrong with the files of a graph: its weights lie beside it under names that begin with its own, and nothing else where it
    was tuned. Raises BrokenSeal for a folder without a seal."""
    folder, graph = what.path.parent, what.path.name
    names = None if what.optimised else [name for name in seals.names_in(folder) if name.startswith(graph)] or (graph,)
    return seals.complaint(folder, names, quick=quick)


def _open(what: Begun) -> Any:  # Any: onnxruntime has no types
    return open_on_host(what.path, options_of(count=what.count, optimised=what.optimised, as_needed=what.as_needed))
