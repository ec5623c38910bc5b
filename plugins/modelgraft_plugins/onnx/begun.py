"""Sessions on the host that are begun before they are asked for, beside the import of torch: starting one needs no lock of Python."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from modelgraft_plugins.onnx.runtime import open_on_host, options_of
from modelgraft_plugins.processor import machine_key


@dataclass(frozen=True, slots=True)
class Begun:
    """What tells a session on the host from others.

    path       of its graph
    optimised  it was optimised for this machine: it is loaded as it is
    count      threads that it computes with; None: as `runtime.threads` says
    """

    path: Path
    optimised: bool
    count: int | None


_lock = Lock()
_begun = dict[Begun, Future[Any]]()  # Any: onnxruntime has no types


def tuned_folder(folder: Path, graph: str) -> Path:
    """Where a graph of an export lies as it was tuned for this machine."""
    return folder / f"tuned-{machine_key()}-{Path(graph).stem}"


def begin(folder: Path, graph: str, *, count: int | None) -> Begun:
    """Begin the session on a graph of an export in a thread, once, for whoever opens it. Gives what `drop` takes."""
    tuned = tuned_folder(folder, graph)
    what = Begun((tuned if tuned.is_dir() else folder) / graph, tuned.is_dir(), count)
    with _lock:
        if what not in _begun:
            pool = ThreadPoolExecutor(1, thread_name_prefix="session")
            _begun[what] = pool.submit(_open, what)
            pool.shutdown(wait=False)
    return what


def started(what: Begun) -> Any:  # Any: onnxruntime has no types
    """A session that is the caller's: the one that was begun, or one that starts now. Raises what onnxruntime raises."""
    with _lock:
        found = _begun.pop(what, None)
    return _open(what) if found is None else found.result()


def drop(what: Begun) -> None:
    """Let go of a session that nobody has taken."""
    with _lock:
        _begun.pop(what, None)


def _open(what: Begun) -> Any:  # Any: onnxruntime has no types
    return open_on_host(what.path, options_of(count=what.count, optimised=what.optimised))
