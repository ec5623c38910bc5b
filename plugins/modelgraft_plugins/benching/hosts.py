"""Processes that hold pipelines, seen from the one that measures: asked in turn, bounded in time, ended for good.

A host is one process for each environment, that is for what must be set before torch is imported. It holds many cells, and the
bench lets one host compute at a time. A host that dies or hangs takes the cell with it that it was asked about; the others are
opened anew when it is their turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import IO, Any

from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.results import Reason

PROGRAM = "modelgraft_plugins.benching.host_worker"
LINE_BYTES = 64 << 20  # of an answer: a node tells seconds and names; what is larger lies in files
TAIL = 200  # lines of stderr that are kept for the reason of a death: the stacks of some threads
FATAL = "Fatal Python error"  # how a line begins in which Python says what ended it
END_S = 2.0  # how long a host that is told to go may take to do so

# Set where the user has not: threads that wait by spinning, and work in the background, starve whoever is measured next, and
# libraries must not talk.
USUAL = {
    "MODELGRAFT_BACKGROUND": "off",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")


class CellFailed(Exception):
    """A cell could not do what was asked.

    reasons  at least one;  is_lost  its host has ended with it
    """

    def __init__(self, reasons: Sequence[Reason], *, is_lost: bool = False) -> None:
        super().__init__("; ".join(reason.text for reason in reasons))
        self.reasons, self.is_lost = tuple(reasons), is_lost


def variables_for(threads: int | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a host finds in its environment beside what this process has."""
    counts = {} if threads is None else dict.fromkeys(COUNTS, str(threads))
    usual = {name: value for name, value in USUAL.items() if name not in os.environ}
    return {**usual, **counts, **(more or {})}


class Host:
    """One process. `ask` it; `end` it, or use it as a context manager."""

    def __init__(self, records: Path, *, variables: Mapping[str, str], timeout_s: float) -> None:
        """timeout_s: the most seconds that anything it is asked may take."""
        self._timeout_s, self._said = timeout_s, deque[str](maxlen=TAIL)
        self._process = subprocess.Popen(  # noqa: S603 our own interpreter
            [sys.executable, "-P", "-X", "faulthandler", "-m", PROGRAM, str(records)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **variables},
            start_new_session=True,  # all that it starts ends with it, and Ctrl-C reaches the one who measures alone
        )  # fmt: skip
        self._answers: SimpleQueue[bytes | None] = SimpleQueue()
        self._hearing = [self._hear(self._read_answers), self._hear(self._read_words)]

    def __enter__(self) -> Host:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    @property
    def number(self) -> int:
        """The number of the process."""
        return self._process.pid

    def ask(self, do: str, **facts: Any) -> Any:
        """Ask for one thing and wait for the answer. Raises CellFailed for an error, and when the process ended or was ended."""
        self._said.clear()  # what it said of other things is no reason
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": do, **facts}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=self._timeout_s)
        except (OSError, ValueError):  # it has ended already
            line = None
        except Empty:
            self.end()
            text = f"it took longer than {self._timeout_s:g} s to {do}, and was ended; --timeout gives it more"
            raise CellFailed([Reason(code="timeout", text=text)], is_lost=True) from None
        answer = _read(line)
        if answer is None:
            raise CellFailed([Reason(code="died", text=self._death(line))], is_lost=True)
        if "failed" in answer:
            raise CellFailed([Reason(**one) for one in answer["failed"]])
        return answer["found"]

    def end(self) -> None:
        """End the process and all that it started."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(OSError):  # they have ended
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        for thread in self._hearing:
            thread.join(END_S)

    def _hear(self, read: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def _read_answers(self) -> None:
        with _pipe(self._process.stdout) as pipe:
            while line := pipe.readline(LINE_BYTES):
                self._answers.put(line)
        self._answers.put(None)

    def _read_words(self) -> None:
        with _pipe(self._process.stderr) as pipe:
            while line := pipe.readline(4096):
                self._said.append(line.decode(errors="replace").strip())

    def _death(self, line: bytes | None) -> str:
        """Why there is no answer, in words."""
        self.end()
        if line is not None:
            return "its process answered with what is no answer: something in it writes where nothing may"
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        memory = ", as a system without memory left does" if code == -getattr(signal, "SIGKILL", 0) else ""
        words = next((one for one in self._said if one.startswith(FATAL)), "") or next(filter(None, reversed(self._said)), "")
        return f"its process ended with {how}{memory}" + (f"; its last words: {words[:300]}" if words else "")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _read(line: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(line or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() & {"found", "failed"} else None


# -- all of them --------------------------------------------------------------------------------------------------------

Start = Callable[..., Host]  # as Host is made


class Hosts:
    """The hosts of a bench, by environment: started when they are needed, and ended when the block ends.

    most_bytes  that weights may take in all hosts together, as far as they are measured: beyond it, cells that were asked least
                recently are closed, and opened anew when it is their turn
    shared      by cell: what it is given instead of computing it, as `held.Held.open` takes it
    """

    def __init__(
        self, records: Path, *, timeout_s: float, most_bytes: int, start: Start = Host, shared: Mapping[str, Any] | None = None
    ) -> None:
        self._records, self._timeout_s, self._most, self._start = records, timeout_s, most_bytes, start
        self._shared = shared or {}
        self._running: dict[int | None, Host] = {}
        self._sizes: dict[str, int] = {}
        self._asked: OrderedDict[str, int | None] = OrderedDict()  # the cells that are open, with their host
        self.started = 0
        self.reopened = 0

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for host in self._running.values():
            host.end()
        self._running.clear()
        self._asked.clear()

    def is_open(self, cell: WantedCell) -> bool:
        """Whether a cell is loaded in its host now."""
        return cell.id in self._asked

    def ask(self, cell: WantedCell, do: str, **facts: Any) -> Any:
        """Ask the host of a cell about it, which is opened where it is not. Raises CellFailed."""
        host = self._host(cell.threads)
        try:
            if cell.id not in self._asked:
                self._open(cell, host)
            self._asked.move_to_end(cell.id)
            return host.ask(do, cell=cell.id, **facts)
        except CellFailed as failure:
            if failure.is_lost:
                self._lose(cell.threads)
            raise

    def weighs(self, cell: WantedCell, size: int) -> None:
        """Note how many bytes the weights of a cell take."""
        self._sizes[cell.id] = size
        self._make_room(0, but=cell.id)

    def close(self, cell: WantedCell) -> None:
        """Free a cell."""
        self._close(cell.id)

    def _host(self, threads: int | None) -> Host:
        host = self._running.get(threads)
        if host is None:
            host = self._running[threads] = self._start(self._records, variables=variables_for(threads), timeout_s=self._timeout_s)
            self.started += 1
        return host

    def _open(self, cell: WantedCell, host: Host) -> None:
        self._make_room(self._sizes.get(cell.id, 0), but=cell.id)
        self.reopened += cell.id in self._sizes
        shared = {"upstream": self._shared[cell.id]} if cell.id in self._shared else {}
        host.ask("open", **opening_of(cell), **shared)
        self._asked[cell.id] = cell.threads

    def _make_room(self, size: int, *, but: str) -> None:
        while sum(self._sizes.get(one, 0) for one in self._asked) + size > self._most:
            going = next((one for one in self._asked if one != but), None)
            if going is None:
                return
            self._close(going)

    def _close(self, cell: str) -> None:
        if cell not in self._asked:
            return
        threads = self._asked.pop(cell)
        try:
            self._running[threads].ask("close", cell=cell)
        except CellFailed as failure:
            if failure.is_lost:
                self._lose(threads)

    def _lose(self, threads: int | None) -> None:
        """Forget a host that has ended, and what was open in it."""
        lost = self._running.pop(threads, None)
        if lost is not None:
            lost.end()
        for cell in [cell for cell, home in self._asked.items() if home == threads]:
            del self._asked[cell]


def opening_of(cell: WantedCell) -> dict[str, Any]:
    """What a host needs to open a cell."""
    outputs = None if cell.outputs is None else list(cell.outputs)
    return {
        "cell": cell.id, "graph": cell.graph, "params": cell.params, "allow": list(cell.allow), "opening": cell.opening, "outputs": outputs,
    }  # fmt: skip
