"""A process that answers requests, one line of JSON each way: what an alternative lives in that needs an environment of its own."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import measuring

PATIENCE_S = 180  # of an answer; the first builds, and proves what is built
GOODBYE_S = 20  # that it may take to end by itself


class Worker:
    """A process, from its start on; `log` is where its other output goes, for whoever asks why it ended."""

    def __init__(
        self, command: Sequence[str], surroundings: Mapping[str, str], *, log: Path | None = None, patience: float = PATIENCE_S
    ) -> None:
        self.log, self.patience = log, patience
        with (log or Path("/dev/null")).open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [*command], cwd=measuring.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=dict(surroundings),
            )  # fmt: skip

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer, or why there is none. A worker that does not answer in time is ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], self.patience)[0]:
                self.process.kill()
                return {"why": f"it did not answer within {self.patience:.0f} s"}
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        found: dict[str, Any] = json.loads(line) if line else {"why": f"its process ended with {self.process.wait(10)}{self._last()}"}
        return found

    def _last(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log else []
        return f": {lines[-1][-200:]}" if lines else ""

    def close(self) -> None:
        """Let it end by itself; one whose threads hang is ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def asked_once(worker: Worker, request: Mapping[str, Any], since: float) -> dict[str, Any]:
    """Ask, and close; the answer with the seconds `wall` since a moment of `time.perf_counter`."""
    found = worker.ask(request)
    found["wall"] = time.perf_counter() - since
    worker.close()
    return found
