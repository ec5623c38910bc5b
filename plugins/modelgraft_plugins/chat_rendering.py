"""Writes conversations in chat templates, which are programs from elsewhere: in a process of their own, with bounds.

A template may loop for ever or build a text without end, and nothing within a process can stop either. So it is written by
`chat_worker.py`, which has a limit on the time it computes and on its memory, and no access to objects of this process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelgraft.plugin import InputError, Problem, SourceError

COMPUTE_S = 10  # a template takes milliseconds
WAIT_S = 120  # by the clock: a busy machine may give the process little time
MEMORY_BYTES = 1 << 30  # some fifty times what the longest conversations take
MOST_LETTERS = 16 << 20  # of what is written: more than any context holds
WORKER = Path(__file__).with_name("chat_worker.py")
KEPT = ("SYSTEMROOT", "PATH", "LANG", "LC_ALL", "TZ")  # of the environment: what a Python and its clock need

Process = subprocess.Popen[bytes]


class Renderer:
    """Writes conversations; its process starts with the first one, and ends with this object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Process | None = None

    def render(
        self, template: str, messages: Sequence[Mapping[str, Any]], *, names: Mapping[str, str], place: str, asks: bool = True
    ) -> str:
        """Write messages.

        names  what the template may use beside them, such as bos_token;  place  of the template, for messages
        asks   ready for the answer: what it begins with stands behind them

        Raises InputError for a conversation that the template refuses, SourceError `source-damaged` for a template that is
        none, or that goes beyond the bounds, and `missing-package` without jinja2.
        """
        asked = {
            "template": template,
            "messages": list(messages),
            "names": {"tools": None, "documents": None, **names, "add_generation_prompt": asks},
        }
        with self._lock:
            found = self._ask(asked, place)
        if "refused" in found:
            raise InputError(f"the chat template of {place} refuses the conversation: {found['refused']}")
        if "broken" in found:
            raise _broken(place, f"cannot be written: {found['broken']}")
        text: str = found["text"]
        return text

    def _ask(self, asked: Mapping[str, Any], place: str) -> dict[str, Any]:
        process = self._running()
        try:
            answer = _exchange(process, json.dumps(asked).encode() + b"\n")
        except BaseException:  # an interrupt: what the process still answers must not be taken for the next answer
            self._end(process)
            raise
        if not answer.endswith(b"\n"):
            self._end(process)
            raise _broken(place, f"does not come to an end: it was stopped after {COMPUTE_S} s of computing, or for its memory")
        found: dict[str, Any] = json.loads(answer)
        return found

    def _end(self, process: Process) -> None:
        self._process = None
        _stop(process)

    def _running(self) -> Process:
        if self._process is None or self._process.poll() is not None:
            self._process = _start()
            weakref.finalize(self, _stop, self._process)
        return self._process


def _exchange(process: Process, line: bytes) -> bytes:
    """Send a line and give the one that comes back; empty, or without its end, when the process ended."""
    assert process.stdin is not None, "it was opened with pipes"
    assert process.stdout is not None, "it was opened with pipes"
    alarm = threading.Timer(WAIT_S, process.kill)
    alarm.start()
    try:
        process.stdin.write(line)
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:  # it ended before it had read everything
        return b""
    finally:
        alarm.cancel()


def _start() -> Process:
    found = importlib.util.find_spec("jinja2")
    if found is None or found.origin is None:
        raise SourceError(Problem("missing-package", "a chat template needs the package jinja2", hint="pip install jinja2"))
    limits = (COMPUTE_S, MEMORY_BYTES, MOST_LETTERS)
    command = [sys.executable, "-I", str(WORKER), str(Path(found.origin).parents[1]), *map(str, limits)]
    return subprocess.Popen(  # noqa: S603 our own interpreter and file
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in KEPT if name in os.environ},
        start_new_session=True,  # Ctrl-C is for this process, which ends the other
    )


def _stop(process: Process) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not read any more
                pipe.close()


def _broken(place: str, found: str) -> SourceError:
    return SourceError(
        Problem("source-damaged", f"the chat template of {place} {found}", hint="set chat_template to another, or chat: false")
    )
