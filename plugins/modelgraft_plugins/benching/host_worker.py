"""The process that holds pipelines: a line of JSON in, a line of JSON out, until there are no more. See hosts.py.

The answers go to what stdout was when the process began; what plugins and libraries print goes to stderr. Everything that a
plugin may do to a process, it does to this one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

PARENT_S = 1.0  # how often it is looked whether the process that asks is still there


def main() -> None:
    """Answer every line. Arguments: the file of the records."""
    asked, answers = take_pipes()
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    from modelgraft_plugins.benching.held import Held  # after the pipes are taken: what it imports may print

    held = Held(Path(sys.argv[1]))
    for line in asked:
        answer = answered(held.does(), json.loads(line))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def answered(does: Mapping[str, Callable[..., Any]], asked: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; an error of whatever kind is an answer as well."""
    try:
        return {"found": does[asked.pop("do")](**asked)}
    except BaseException as error:  # noqa: BLE001 a plugin may raise anything, and the others in this process go on
        from modelgraft_plugins.benching.held import told_errors

        return {"failed": told_errors(error)}


def take_pipes() -> tuple[IO[str], IO[str]]:
    """Keep stdin and stdout for the one who asks; what others read is empty, and what they print goes to stderr."""
    asked, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    sys.stdin, sys.stdout = open(0, encoding="utf-8", closefd=False), sys.stderr  # noqa: SIM115 for as long as the process lives
    return os.fdopen(asked, encoding="utf-8"), os.fdopen(answers, "w", encoding="utf-8")


def end_with(parent: int) -> None:
    """End this process, and all that was started in it, when the one that started it has ended, however that came about."""
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():  # it leads a group of its own
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
