"""Short programs that need a process of their own, in forks of one that has imported what they import: as alone, without the start.

`python forking.py MODULE...` imports modules and then runs each program that it reads: a line of JSON with its words, folder and
environment. It answers with a line of JSON: the exit status, or minus the signal that ended it, and what it wrote.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from functools import cache
from typing import Any


@cache
def forks(*modules: str) -> Forks:
    """The process that has imported them; there is one for all tests of a process, and it ends with that."""
    return Forks(modules)


class Forks:
    """Stands for the module `subprocess` where only `run([sys.executable, "-c", code, ...])` is asked of it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = modules
        self.process: subprocess.Popen[str] | None = None

    def run(self, words: Sequence[str], *, capture_output: bool, text: bool, check: bool) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` gives."""
        assert tuple(words[:2]) == (sys.executable, "-c")
        assert (capture_output, text, check) == (True, True, False)
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([list(words[1:]), os.getcwd(), dict(os.environ)]) + "\n")  # noqa: PTH109 a folder as it is
        process.stdin.flush()
        status, out, told = json.loads(process.stdout.readline())
        return subprocess.CompletedProcess(list(words), status, out, told)

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None:
            words = [sys.executable, __file__, *self.modules]
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            atexit.register(self._end)
        return self.process

    def _end(self) -> None:
        assert self.process is not None
        self.process.communicate()  # closes what it reads from, and waits


def serve(modules: Sequence[str]) -> None:
    """Run one program after the other, until nobody can ask for another."""
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps(_ran(*json.loads(line))), flush=True)


def _ran(words: list[str], folder: str, environment: dict[str, str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if child == 0:
            _become(words, folder, environment, out, told)
        _, ended = os.waitpid(child, 0)
        for file in (out, told):
            file.seek(0)
        return os.waitstatus_to_exitcode(ended), out.read(), told.read()


def _become(words: list[str], folder: str, environment: dict[str, str], out: Any, told: Any) -> None:
    """Run a program in this process, which ends with it."""
    status = 1
    try:
        os.dup2(out.fileno(), 1)
        os.dup2(told.fileno(), 2)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:  # noqa: BLE001 told as an interpreter tells it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1:])
