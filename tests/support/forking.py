"""Short programs that need a process of their own, in forks of one that has imported what they import: as alone, without the start.

`python forking.py MODULE...` imports modules and then runs what it reads: a line of JSON with programs that run beside each other, of
each its words, folder and environment. It answers with a line of JSON, for each: the exit status, or minus the signal that ended it, and
what it wrote.
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
from collections.abc import Callable, Mapping, Sequence
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
        (done,) = self.together([(words, os.environ)])
        return done

    def together(self, programs: Sequence[tuple[Sequence[str], Mapping[str, str]]]) -> list[subprocess.CompletedProcess[str]]:
        """What `subprocess.run` gives for each of some programs, words and environment, that run beside each other."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        asked = [[list(words[1:]), os.getcwd(), dict(environment)] for words, environment in programs]  # noqa: PTH109 a folder as it is
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        ended = json.loads(process.stdout.readline())
        return [subprocess.CompletedProcess(list(words), *found) for (words, _), found in zip(programs, ended, strict=True)]

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
    """Run what is asked for, one line after the other, until nobody can ask for more."""
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps([end() for end in [_begun(*program) for program in json.loads(line)]]), flush=True)


def _begun(words: list[str], folder: str, environment: dict[str, str]) -> Callable[[], tuple[int, str, str]]:
    """Begin a program; gives what waits for its end."""
    out, told = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 they are closed behind the end
    child = os.fork()
    if child == 0:
        _become(words, folder, environment, out, told)

    def end() -> tuple[int, str, str]:
        _, ended = os.waitpid(child, 0)
        with out, told:
            for file in (out, told):
                file.seek(0)
            return os.waitstatus_to_exitcode(ended), out.read(), told.read()

    return end


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
