"""`plugins check`: reads what a process of its own finds out about a plugin, and ends that process when it takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from queue import Empty, SimpleQueue
from typing import Annotated, Any

import typer

from modelgraft.cli.findings import FAILED, Finding, failed
from modelgraft.cli.options import AsJson, seconds
from modelgraft.cli.session import session_of
from modelgraft.kernel.words.errors import PluginError

PROGRAM = "from modelgraft.cli.proof import run_process; run_process()"
LIMIT_S = 120.0  # of each thing that is looked at; importing torch on a busy machine is the longest of what is usual


def check(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed plugin.")],
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", parser=seconds, help="The most seconds that each thing it looks at may take.")
    ] = LIMIT_S,
    as_json: AsJson = False,
) -> None:
    """Prove that a plugin is light to import, offers something that graphs can use, and keeps its declarations.

    It runs in a process of its own. Exits with 1 when something failed; what was not run is told, and is no failure.
    """
    screen = session_of(context).screen
    about: dict[str, Any] = {}
    found = list(_findings(name, timeout, about))
    is_ok = all(finding.status != FAILED for finding in found)
    if as_json:
        screen.document({"ok": is_ok, "plugin": name, **about, "checks": [asdict(finding) for finding in found]})
    else:
        shown = [finding for finding in found if finding.what != "hooks" or finding.status == FAILED]
        screen.table(("what", "verdict"), [(finding.what, _verdict(finding)) for finding in shown])
    raise typer.Exit(0 if is_ok else 1)


def _verdict(finding: Finding) -> str:
    place = f" ({finding.file}{f':{finding.line}' if finding.line else ''})" if finding.file else ""
    return f"{finding.status}: {finding.message}{place}" if finding.message else finding.status


def _findings(name: str, limit_s: float, about: dict[str, Any]) -> Iterator[Finding]:
    """Let processes look, one after the other: each goes on behind what ended the one before."""
    done: list[str] = []
    while True:
        looked_at = ""
        with _Looking(name, limit_s, done) as looking:
            for line in looking.lines():
                looked_at = line.get("start", looked_at)
                if "unknown" in line:
                    raise PluginError(line["unknown"])
                if "end" in line:
                    return
                if "found" in line:
                    finding = Finding(**line["found"])
                    done.append(finding.what)
                    yield finding
                about.update({key: line[key] for key in ("package", "version") if key in line})
            done.append(looked_at)
            yield failed(looked_at, looking.ended())
        if looked_at == "import":
            return  # the plugin itself cannot be had


class _Looking:
    """A process that looks at a plugin, in a session of its own, so that all that it starts ends with it."""

    def __init__(self, name: str, limit_s: float, skip: list[str]) -> None:
        self._limit_s, self._is_late = limit_s, False
        command = [sys.executable, "-c", PROGRAM, name, str(limit_s), *skip]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)  # noqa: S603 our own interpreter
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> _Looking:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # it has ended
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What the process tells, until it ends or one thing takes longer than the limit."""
        while True:
            try:
                line = self._lines.get(timeout=self._limit_s)
            except Empty:
                self._is_late = True
                return
            if line is None:
                return
            yield json.loads(line)

    def ended(self) -> str:
        """Why there were no more lines."""
        if self._is_late:
            return f"it took longer than {self._limit_s:g} s, and was ended; --timeout gives it more"
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"it ended the process ({how}) without an error"
