"""The command line: words become calls of the API, and what they give becomes text, files or JSON.

Exit codes: 0 all is well; 1 the graph has problems or the run failed; 2 the command cannot be understood;
70 a defect of modelgraft itself (`--debug` shows where); 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in typing, which is not imported here: until the signals are heard, Ctrl-C is a traceback

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

STOPPED_DOCUMENT = b'{"ok": false, "error": {"kind": "stopped", "message": "stopped"}}\n'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; nothing that a user does wrong raises.

    arguments  the words after `modelgraft`. None: those of this process, which the command then takes over: it listens to
               the signals that stop it, and only answers reach stdout
    """
    if arguments is None:
        return _run_process(sys.argv[1:])
    try:
        from modelgraft.cli.entry import run_command

        return run_command(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130


def _run_process(words: Sequence[str]) -> int:
    _hear_at_once(STOPPED_DOCUMENT if "--json" in words else b"stopped\n", to=1 if "--json" in words else 2)
    from modelgraft.cli.process import Process

    process = Process(is_json="--json" in words)
    from modelgraft.cli.entry import run_command

    code = process.finish(run_command(words, process))
    process.end_where_something_runs(code)
    return code


def _hear_at_once(told: bytes, *, to: int) -> None:
    """Let Ctrl-C end this process in one line from now on, until the imports are done with which it is heard properly.

    told, to  what is written then, and the number of the stream
    """
    import _signal  # type: ignore[import-not-found]  # the module `signal` imports enum, which takes as long as Python's own start
    import os

    def leave(*_: object) -> None:
        try:
            os.write(to, told)
        finally:
            os._exit(130)

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, leave)
