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
    from modelgraft.cli.process import Process  # before all that takes time: Ctrl-C may come at any moment

    process = Process(is_json="--json" in words)
    from modelgraft.cli.entry import run_command

    return process.finish(run_command(words, process.interrupts))
