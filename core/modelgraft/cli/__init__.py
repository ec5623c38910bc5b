"""The command line: words become calls of the API, and what they give becomes text, files or JSON.

Exit codes: 0 all is well; 1 the graph has problems or the run failed; 2 the command cannot be understood;
70 a defect of modelgraft itself (`--debug` shows where); 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; nothing that a user does wrong raises.

    arguments  the words after `modelgraft`; None: those of this process
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from modelgraft.cli.entry import run_command

        return run_command(words)
    except KeyboardInterrupt:
        return stopped()


def stopped() -> int:
    """Say in one line that Ctrl-C was heard."""
    sys.stderr.write("\nstopped\n")
    return 130
