"""What a program's process does: it opens at the first request, answers each with a line of JSON, and ends when stdin does."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


def serve(opened: Callable[[], Callable[[Mapping[str, Any]], Answer]]) -> None:
    """Answer until stdin ends; every answer tells the MB that the process holds. What a program prints does not stand among the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer: Callable[[Mapping[str, Any]], Answer] | None = None
    for line in sys.stdin:
        try:
            answer = answer or opened()
            found = answer(json.loads(line)) | {"anonymous": _memory("RssAnon"), "peak": _memory("VmHWM")}
        except Exception as error:  # noqa: BLE001 a program of others may raise anything
            found = {"why": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()
    os._exit(0)  # some hang when they are taken down


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
