"""Files that a reader must convert, begun in a process of their own while this one imports what it computes with.

Whoever opens such a source then finds what was made, or waits for the end of it by the lock under which it is made; where nothing came of
it, the source is converted as ever, and whatever is wrong with it is told then.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from modelgraft.kernel.words.source import Source
from modelgraft.sources.source_view import viewed

WORTH_BYTES = 32 << 20  # of a file: a smaller one is converted before another Python has started
LEAST_CORES = 2

# What it works with comes in plain values. It fetches nothing: the files are there.
CODE = """
import pickle, sys
path, views = pickle.load(sys.stdin.buffer)
sys.path[:] = path
from modelgraft.sources import weights
for view in views:
    weights.make_ready(view)
"""


def begin(sources: Iterable[Source]) -> None:
    """Begin to convert what of these sources lies on this machine unread; nothing where there is one core, or no process can be started."""
    views = {view.unread: view for source in sources if (view := viewed(source)).unread is not None and _is_worth_it(view.unread)}
    if not views or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else "?" * (os.cpu_count() or 1)) < LEAST_CORES:
        return
    import pickle  # with subprocess for those who convert

    request = pickle.dumps(([str(Path(part).absolute()) for part in sys.path], list(views.values())))
    threading.Thread(target=_see_through, args=(request,), name="converting", daemon=True).start()


def _is_worth_it(path: Path) -> bool:
    return path.stat().st_size >= WORTH_BYTES


def _see_through(request: bytes) -> None:
    """Start the process and wait for its end, so that nothing is left of it. A machine that starts none converts later."""
    import subprocess

    try:
        words = [sys.executable or "python", "-c", CODE]
        started = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 our own
        started.communicate(request)
    except OSError:
        return
