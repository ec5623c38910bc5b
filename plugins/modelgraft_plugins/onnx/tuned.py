"""Sessions on kept exports: on the host as they were tuned for this machine, whole before they are used."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modelgraft.plugin import ModelgraftError, current_listener, folder_aside, give_back_file, give_back_freed, let_go, locked, seals
from modelgraft_plugins.onnx import memory, one_row, store
from modelgraft_plugins.onnx.begun import Begun, proof, started, tuned_folder
from modelgraft_plugins.onnx.leaving import leaves_tuning
from modelgraft_plugins.onnx.panels import reads_tokens
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.tuning import is_in_blocks, tune

WORTH_BYTES = 32 << 20  # a graph with less weights starts as fast untuned, as far as anybody could tell, and lies in caches


@dataclass(slots=True)
class Fresh:
    """A session that this process has just proven a graph with, on the host: it may run it as well.

    count  threads that it computes with; None: as `runtime.threads` says
    """

    count: int | None = None
    session: Any = None  # onnxruntime has no types

    def taken(self) -> Any:
        """The session, which is held here no longer."""
        found, self.session = self.session, None
        return found

    def keep_for(self, device: str) -> None:
        """Let go of it where it is of no use: on another device, and where a folder with an open file in it is not renamed."""
        if os.name != "posix" or device != "cpu":
            self.session = None


def session(
    folder: Path, device: str, *, graph: str = store.GRAPH, count: int | None = None, fresh: Fresh | None = None
) -> tuple[Any, tuple[str, ...]]:
    """Open a graph of an export as it was tuned for this machine, tuning it the first time; on a GPU the plain graph.

    count  threads that it computes with; None: as `runtime.threads` says
    fresh  what it was proven with, where this process has just written it

    Gives the session, and what a user must know. `Any`: onnxruntime has no types.
    """
    if device != "cpu":
        return _open_plain(folder, graph, device=device, count=count), ()
    tuned = tuned_folder(folder, graph)
    remarks: tuple[str, ...] = ()
    if tuned.is_dir():
        try:
            return _open_tuned(folder, tuned, graph, count=count), ()
        except ModelgraftError:
            raise
        except Exception as error:  # noqa: BLE001 a broken seal, or what onnxruntime says of a file that is none of its own
            remarks = (f"{graph} as it was tuned for this machine was changed on disk ({store.first_line(error)}): it is tuned again",)
    if leaves_tuning(folder.name, is_worth_it=bool(remarks) or _is_worth_tuning(folder, graph, tuned)):
        if fresh is not None and fresh.session is not None:
            with memory.noted(device, folder, files_of(folder, graph)):
                return _packed(folder / graph, fresh.taken()), remarks
        return _open_plain(folder, graph, device=device, count=count), remarks
    if fresh is not None:
        fresh.taken()  # and let go of, before another is opened
    if why_not := _tune(folder, graph, tuned, is_broken=bool(remarks)):
        remarks = (*remarks, f"{graph} is not kept as tuned for this machine ({why_not}): starting takes longer")
        return _open_plain(folder, graph, device=device, count=count), remarks
    let_go()  # of the session that wrote it
    return _open_tuned(folder, tuned, graph, count=count), remarks


def _open_tuned(folder: Path, tuned: Path, graph: str, *, count: int | None) -> Any:  # Any: onnxruntime has no types
    what = Begun(tuned / graph, True, count)
    with memory.noted("cpu", folder, files_of(folder, graph)):  # the packed weights beside them are read in their place
        return _open_proven(tuned, None, partial(_on_host, what), partial(proof, what))


def _open_plain(folder: Path, graph: str, *, device: str, count: int | None) -> Any:  # Any: onnxruntime has no types
    names, what = files_of(folder, graph), Begun(folder / graph, False, count)
    start = partial(_on_host, what) if device == "cpu" else partial(open_session, folder / graph, device=device, count=count)
    with memory.noted(device, folder, names):
        return _open_proven(folder, names, start, partial(proof, what))


def _open_proven(folder: Path, names: Sequence[str] | None, start: Callable[[], Any], look: Callable[[], Callable[[], str]]) -> Any:
    """Start a session while its files are read whole beside it. Raises BrokenSeal, at once for a cut file or a broken beginning.

    look  begins to read them, where nobody has, and gives what waits for the end of it
    """
    if complaint := seals.complaint(folder, names, quick=True):
        raise seals.BrokenSeal(complaint)
    wait = look()
    opened = start()
    if complaint := wait():
        raise seals.BrokenSeal(complaint)
    give_back_freed()
    return opened


def _on_host(what: Begun) -> Any:  # Any: onnxruntime has no types
    return _packed(what.path, started(what))


def _packed(path: Path, session: Any) -> Any:  # Any: onnxruntime has no types
    """A session on a graph. Of blocks it has the scales mapped for as long as it lives, and reads them no more once they are packed."""
    if is_in_blocks(path):
        give_back_file(path.with_name(f"{path.name}.data"))
    return session


def files_of(folder: Path, graph: str) -> Sequence[str]:
    """The files of a graph: its weights lie beside it under names that begin with its own. Raises BrokenSeal."""
    return [name for name in seals.names_in(folder) if name.startswith(graph)] or (graph,)


def _is_worth_tuning(folder: Path, graph: str, tuned: Path) -> bool:
    """Whether a start would gain by it, and nobody has found that it cannot be."""
    if _refused_file(tuned).is_file() or is_in_blocks(folder / graph):
        return False
    return _is_large(folder, graph)


def _is_large(folder: Path, graph: str) -> bool:
    return sum((folder / name).stat().st_size for name in files_of(folder, graph)) >= WORTH_BYTES


def _panels(folder: Path, graph: str) -> int:
    """How many columns the panels of a large decoder of float32 have here; 0 where packed matrices are as fast, and for all else.

    That is measured where a decoder asks for it first.
    """
    if not _is_large(folder, graph) or store.manifest_in(folder).get("precision") != "float32" or not reads_tokens(folder / graph):
        return 0
    one_row.prepare()
    return one_row.panels()


def _refused_file(tuned: Path) -> Path:
    """Where it is remembered that a graph cannot be tuned."""
    return tuned.with_name(f"{tuned.name}.refused")


def _prove_plain(folder: Path, graph: str) -> None:
    """Read the files of a graph whole. Raises BrokenSeal."""
    if complaint := seals.complaint(folder, files_of(folder, graph)):
        raise seals.BrokenSeal(complaint)


def _tune(folder: Path, graph: str, tuned: Path, *, is_broken: bool) -> str:
    """Make the tuned folder of a graph; gives why there is none, or an empty string.

    What the graph itself is to blame for is remembered beside the folder; a lack of room is not.

    Raises BrokenSeal for a graph that is itself broken.
    """
    refused = _refused_file(tuned)
    if refused.is_file():
        with contextlib.suppress(OSError, seals.BrokenSeal):
            return str(seals.read_sealed(refused))
    try:
        with locked(store.exports_root() / "locks" / f"{folder.name}.{tuned.name}"):
            if tuned.is_dir() and not is_broken and not seals.complaint(tuned):
                return ""  # another process was faster
            _prove_plain(folder, graph)
            with folder_aside(tuned) as aside:
                current_listener()(1, 1, "tuning for this machine, step")
                if why_not := tune(folder / graph, aside / graph, width=_panels(folder, graph)):
                    if shutil.disk_usage(aside).free < store.bytes_in(folder):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    seals.write_sealed(refused, why_not)
                    raise OSError(why_not)
                seals.seal(aside)
    except OSError as error:
        return error.strerror or str(error)
    return ""
