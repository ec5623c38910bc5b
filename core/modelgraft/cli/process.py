"""The process of a command: its signals, and a stdout that only answers reach.

What plugins and libraries print, their C code and the processes that they start, goes to stderr: file descriptor 1 is a
copy of stderr from the first moment on, and the real stdout is kept aside for answers.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

from modelgraft.cli import STOPPED_DOCUMENT
from modelgraft.cli.answers import answers
from modelgraft.cli.beside import another, stream
from modelgraft.cli.interrupts import STOPPED, Interrupts

TYPE_CHECKING = False  # as in typing, which is not imported here

if TYPE_CHECKING:
    from typing import NoReturn, TextIO

THREADS = "modelgraft-"  # how the names of threads begin in which nodes run
SHOW_CURSOR = b"\033[?25h"  # the live view hides it


class Process:
    """This process, taken over for one command.

    is_json  the command answers with a JSON document, also when it is stopped
    """

    def __init__(self, *, is_json: bool) -> None:
        self._is_json, self._is_over, self._stdout, self._code = is_json, False, 1, 0
        self._is_at_work, self._is_last = False, not _exit_handlers()
        self._number = os.getpid()
        gc.disable()  # what is imported stays, so it need not be looked through for garbage: a third of a light command's time
        self.interrupts = Interrupts(self.leave)
        self.interrupts.listen()
        atexit.register(self._end)  # the first that is registered runs last, after exit handlers that may hang
        self._stdout = _real_stdout()
        self._beside = stream(_stderr(), encoding=_encoding_of(sys.stderr))
        sys.stderr = another(self._beside)
        self._streams: tuple[TextIO | None, ...] = (sys.stderr,)
        from modelgraft.cli import stray  # after the signals are heard: it imports threading

        stray.listen()
        self.answers = sys.stdout = answers(self._stdout, encoding=getattr(sys.stdout, "encoding", None) or "utf-8")

    def begin(self) -> None:
        """Let Python look for garbage from now on, in what is made from now on: the command is about to do its work."""
        self._is_at_work = True
        gc.freeze()
        gc.enable()

    def leave(self, code: int) -> NoReturn:
        """End the process now; a stop is told in one line, or with the document."""
        if os.getpid() != self._number:
            os._exit(code)  # a copy that a library forked: it has nothing to say
        cursor, line = (SHOW_CURSOR, b"\nstopped\n") if os.isatty(2) else (b"", b"stopped\n")
        try:
            if cursor:
                os.write(2, cursor)
            if not self._is_over:
                os.write(self._stdout, STOPPED_DOCUMENT) if self._is_json else os.write(2, line)
        except OSError:
            pass  # nobody reads it
        os._exit(code)

    def finish(self, code: int) -> int:
        """Send the answer off and give the exit code; what is printed from here on, as by exit handlers, is no answer."""
        self._is_over = True
        self._code = self._sent(code)
        return self._code

    def _sent(self, code: int) -> int:
        """Send the answer off; gives the exit code, which is another where nobody could take the answer."""
        gc.freeze()  # nor is all of it looked through when Python takes itself down
        self._streams = (*self._streams, sys.stdout, sys.stderr)
        sys.stdout = sys.stderr = self._beside  # a plugin may have left others there, which Python flushes at the end
        try:
            self.answers.close()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            return code or 1
        except Exception as error:  # noqa: BLE001 `Unwritten`, which is not imported where nothing is written
            if code == 0:  # else it was told what went wrong, this perhaps
                sys.stderr.write(f"error: {error}\n")
            return code or 1
        return code

    def _end(self) -> None:
        """Hear no signal any more; end here what was stopped. A KeyboardInterrupt that went through `exec` of a text, as the making of a
        dataclass does, is remembered by Python: it would end the process by SIGINT, whatever caught it and whatever the exit code is.

        What has done its work ends here too, where nothing is left to write: Python would take down a million objects one by one, torch's
        among them, for a quarter of a second."""
        self.interrupts.ignore()
        is_done = self._is_over and self._is_at_work and self._is_last and not _writes()
        if os.getpid() == self._number and (self._code == STOPPED or is_done):
            try:
                self._flush() if is_done else self._beside.flush()
            finally:
                os._exit(self._code)

    def _flush(self) -> None:
        """Send off what Python, and C, would send off when the process ends: of stdout and stderr, whoever has which stream on them."""
        for one in (*self._streams, sys.__stdout__, sys.__stderr__, self._beside):
            try:
                one.flush()  # type: ignore[union-attr]
            except (AttributeError, OSError, ValueError):
                continue  # closed, or none
        if (ctypes := sys.modules.get("ctypes")) is not None:  # else no library was opened by it, and C has printed nothing
            try:
                ctypes.CDLL(None).fflush(None)
            except (AttributeError, OSError, TypeError):
                return  # no C library that has it under that name

    def end_where_something_runs(self, code: int) -> None:
        """End the process here if a node was left behind in foreign code: where that comes back from C++, Python would end its thread
        while it takes itself down, and C++ ends the process by SIGABRT for it."""
        if _is_busy():
            try:
                sys.stderr.flush()
            finally:
                os._exit(code)


def _is_busy() -> bool:
    """Whether code of a node that did not stop is still at work: threads that have nothing to do end when their pipeline closes."""
    threading = sys.modules.get("threading")
    return threading is not None and any(one.daemon and one.name.startswith(THREADS) for one in threading.enumerate())


def _exit_handlers() -> int:
    """How many have asked by now to be called at the end of the process; one where Python does not tell."""
    count: int = getattr(atexit, "_ncallbacks", lambda: 1)()
    return count


def _writes() -> bool:
    """Whether something but stdout and stderr is open to be written to, so that a buffer may hold what is not there yet.

    Files that are written to and closed are not meant, nor what an anonymous number stands for, such as a queue of events. Where the system
    does not tell, something may be.
    """
    try:
        return any(_is_written(int(number)) for number in os.listdir("/proc/self/fd") if int(number) > 2)  # noqa: PTH208 see below
    except (OSError, ValueError, LookupError):
        return True


def _is_written(number: int) -> bool:
    try:
        leads_to = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 pathlib is not imported here
    except FileNotFoundError:
        return False  # that of the list itself, which is closed by now
    with open(f"/proc/self/fdinfo/{number}", encoding="ascii") as facts:  # noqa: PTH123 pathlib is not imported here
        flags = next(int(line.split()[1], 8) for line in facts if line.startswith("flags:"))
    return flags & os.O_ACCMODE != os.O_RDONLY and not leads_to.startswith("anon_inode:")


def _real_stdout() -> int:
    """Keep stdout under another number and let 1 be what 2 is; in place of one that the caller has closed, what nobody can write to."""
    try:
        kept = _above_standard(1)
    except OSError:
        kept = _devnull(os.O_RDONLY)
    try:
        os.dup2(2, 1)
    except OSError:
        os.dup2(_devnull(), 1)
    return kept


def _stderr() -> int:
    """The number of stderr; of one that the caller has closed, of one that leads nowhere."""
    try:
        os.fstat(2)
    except OSError:
        return _devnull()
    return 2


def _encoding_of(found: TextIO | None) -> str:
    return (found.encoding if found is not None and os.isatty(2) else None) or "utf-8"


def _above_standard(number: int) -> int:
    try:
        import fcntl
    except ImportError:  # Windows
        return os.dup(number)
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)


def _devnull(mode: int = os.O_RDWR) -> int:
    opened = os.open(os.devnull, mode)
    return opened if opened > 2 else _above_standard(opened)
