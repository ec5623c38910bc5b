"""Where code of a plugin runs: whatever it raises becomes an Exception, so that no plugin ends the process in silence.

    with contained():
        ports = config.ports()          # sys.exit(0) in there comes out as Escaped, which `except Exception` sees

Let through is a heard interrupt alone: Ctrl-C, as Python raises it between two instructions. A KeyboardInterrupt that a
`raise` statement of a plugin makes is the plugin's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from modelgraft.kernel.words.errors import ModelgraftError, Place

LONGEST = 400  # letters of a plugin's value in a message
LIBRARIES = frozenset({"modelgraft", "pluggy", "pydantic", "pydantic_core", "typer", "click", "torch", "onnxruntime", "importlib_metadata"})


class Escaped(Exception):
    """What code of a plugin raised and is no Exception, such as SystemExit; that is `__cause__`."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(said(cause))


class contained:  # noqa: N801 read as a statement: `with contained():`
    """A block that runs code of a plugin: raises what it raises, and Escaped for what is no Exception."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not isinstance(error, Exception) and not is_heard(error):
            raise Escaped(error) from error


def is_heard(error: BaseException) -> bool:
    """Whether an error is Ctrl-C as Python heard it, not one that a `raise` of a plugin made.

    A signal is raised at whatever instruction is next, or by the handler; a `raise` of the standard library (asyncio, after
    it caught one) counts as heard as well.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    frame = _raising_frame(error)
    return frame is None or _top(frame) in (sys.stdlib_module_names | {"modelgraft"}) - {"__main__"}


def is_raised_by(error: BaseException, module: str) -> bool:
    """Whether a `raise` statement in the package of a module made an error: it is meant, and no accident."""
    frame = _raising_frame(error)
    return frame is not None and _top(frame) == module.partition(".")[0]


def _raising_frame(error: BaseException) -> FrameType | None:
    """The frame whose `raise` statement made an error; None for what an operation, a library in C or a signal made."""
    trace = error.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code
    return trace.tb_frame if 0 <= trace.tb_lasti < len(code) and code[trace.tb_lasti] == _raise_opcode() else None


def _raise_opcode() -> int:
    import opcode

    return opcode.opmap["RAISE_VARARGS"]


# -- in words -----------------------------------------------------------------------------------------------------------


def said(error: BaseException) -> str:
    """What an error says, with its type, as "ValueError: no luck"; an error on purpose says no type, and keeps its options marked."""
    if isinstance(error, Escaped):
        return str(error)
    if isinstance(error, ModelgraftError):
        return error.unworded
    text = _text(error)
    if isinstance(error, SyntaxError) and isinstance(error.msg, str):
        text = error.msg  # its own text ends with a file and a line, which are told apart
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def _text(error: BaseException) -> str:
    try:
        with contained():
            return str(error)
    except Exception as other:  # noqa: BLE001 the text of an error is code of a plugin as well
        return f"(its text cannot be read: {type(other).__name__})"


def shown(value: Any) -> str:  # Any: whatever a plugin gave
    """How a value of a plugin looks in a message: its repr, cut; its type where that fails."""
    text = _spelled(value, repr)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def written(value: Any) -> str:  # Any: whatever a plugin gave
    """A value of a plugin as text, whole; its type where that fails."""
    return _spelled(value, str)


def _spelled(value: Any, spell: Callable[[Any], str]) -> str:
    try:
        with contained():
            return spell(value)
    except Exception:  # noqa: BLE001 how a value is spelled is code of a plugin, which may raise anything
        return f"<{type(value).__name__} that cannot be spelled>"


# -- places -------------------------------------------------------------------------------------------------------------


def place_of(error: BaseException, module: str = "") -> Place | None:
    """Where the author of a plugin finds what raised: the file and line in the code of `module`, else the last outside of our own.

    module  the module of the plugin, whose package the code is looked for in; "" when it is not known
    """
    raised: BaseException = error.__cause__ if isinstance(error, Escaped) and error.__cause__ is not None else error
    if isinstance(raised, SyntaxError) and raised.filename and not raised.filename.startswith("<"):
        return Place(raised.filename, raised.lineno)
    package = module.partition(":")[0].partition(".")[0]
    frames = [(frame, line) for frame, line in _frames(raised) if not frame.f_code.co_filename.startswith("<")]
    own = [pair for pair in frames if package and _top(pair[0]) == package]
    found = own or [pair for pair in frames if not _is_ours(pair[0])]
    return Place(found[-1][0].f_code.co_filename, found[-1][1]) if found else None


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _is_ours(frame: FrameType) -> bool:
    """Code that is no plugin's: this package, what it stands on, the standard library."""
    top = _top(frame)
    return top in LIBRARIES or (top in sys.stdlib_module_names and top != "__main__")


def _top(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""
