"""From the words of a command to its exit code: every error becomes one message, never a traceback."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from modelgraft.cli.app import LATER, LIGHT, MODULES, build_app, is_ours
from modelgraft.cli.extensions import add_commands
from modelgraft.cli.interrupts import Interrupts
from modelgraft.cli.screen import Screen
from modelgraft.cli.session import CliSession
from modelgraft.kernel.language.shipped_graphs import shipped_names
from modelgraft.kernel.words.errors import Cancelled, DocumentError, GraphError, ModelgraftError, ModelgraftWarning, NodeError, where_of
from modelgraft.kernel.words.guard import Escaped, contained, place_of, said
from modelgraft.records.homes import refuse_lost_folder
from modelgraft.records.readers import at_command_line

if TYPE_CHECKING:
    from modelgraft.cli.process import Process

OK, FAILED, USAGE, DEFECT, STOPPED = 0, 1, 2, 70, 130  # 70 as in sysexits.h, 130 as shells say it for Ctrl-C (143 for SIGTERM)

# The class of all usage errors: typer brings click along under a name of its own that changed between its versions.
UsageProblem: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

FLAGS = frozenset({"--debug", "--offline", "--quiet", "-q", "--no-progress"})  # hold for every command; may stand after its name


def run_command(words: Sequence[str], process: Process | None = None) -> int:
    """Run a command; see `modelgraft.cli`.

    process  the one that is ours; None in one of others
    """
    words = [readable(word) for word in words]
    screen = Screen.of_process(is_json="--json" in words, is_lines="--stream" in words)
    general, rest = split_general(words)
    try:
        interrupts, begin = (process.interrupts, process.begin) if process is not None else (Interrupts(), None)
        return _run([*general, *rest], rest, CliSession(screen, interrupts=interrupts, begin=begin))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout, sys.stderr = screen.out, screen.err  # typer has put others there
        if process is None:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit fails once more
        return FAILED


def readable(word: str) -> str:
    """A word as the user wrote it: under an ASCII locale Python hands the bytes of other letters through unread."""
    return word if word.isprintable() else os.fsencode(word).decode("utf-8", "surrogateescape")


def split_general(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the options that hold for every command from wherever they stand."""
    general, rest = list[str](), list[str]()
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word in FLAGS:
            general.append(word)
        elif word == "--plugins":
            general += [word, *([value] if (value := next(left, None)) is not None else [])]
        elif word.startswith("--plugins="):
            general += ["--plugins", word.removeprefix("--plugins=")]
        else:
            rest.append(word)
    return general, rest


def _run(words: list[str], rest: list[str], session: CliSession) -> int:
    screen, debug = session.screen, "--debug" in words
    session.debug = debug
    command = next((word for word in rest if not word.startswith("-")), "")
    if command in LATER:
        screen.error(f"'modelgraft {command}' is not in this release: it comes with {LATER[command]}.")
        return USAGE
    try:
        with session.interrupts.noted():
            code = _call(session, words, rest, command)
        if code == STOPPED:  # typer has made an exit code of the interrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else OK
    except (ModelgraftError, KeyboardInterrupt, typer.Abort) as error:
        return _report(error, session, debug=debug)
    except UsageProblem as problem:
        _show_usage(problem, screen)
        if not screen.is_json and (command.endswith((".yaml", ".yml")) or command in shipped_names()):
            screen.note(f"'{command}' is a graph: modelgraft run {command}, or check, plan, show, explain")
        return USAGE
    except BrokenPipeError:
        raise
    except Escaped as error:
        left = error.__cause__
        if isinstance(left, SystemExit) and isinstance(left.__context__, BrokenPipeError):  # typer makes an exit of it
            raise BrokenPipeError from error
        return _report(error, session, debug=debug)
    except Exception as error:  # noqa: BLE001 a defect: the user gets a sentence, and the traceback on demand
        return _report(KeyboardInterrupt() if session.interrupts.heard else error, session, debug=debug)


def _call(session: CliSession, words: list[str], rest: list[str], command: str) -> object:
    """Parse and run a command; gives its exit code, or what it returned."""
    app = build_app(command, is_bare=rest == ["--version"])
    if not is_ours(app, command) and "--version" not in rest:
        session.read_general(words)
        with session.screen.only_answers():
            add_commands(app, session)
    if command not in LIGHT:
        if command not in MODULES["cache"]:
            refuse_lost_folder()
        if session.begin is not None:
            session.begin()
    with session.interrupts.at_work(), contained(), at_command_line(), noting_warnings(session.screen):
        code: object = app(words, obj=session, standalone_mode=False, prog_name="modelgraft")
        session.screen.flush()
    return code


@contextlib.contextmanager
def noting_warnings(screen: Screen) -> Iterator[None]:
    """Say our own warnings as notes, in a line; those of libraries go where Python sends them."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ModelgraftWarning)  # the pipeline tells each once
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:  # Any: as Python calls it
            if issubclass(category, ModelgraftWarning):
                screen.note(f"{screen.paint('warning', 'yellow', on=screen.err)}: {message}")
            else:
                others(message, category, *place, **options)

        warnings.showwarning = show
        yield


def _show_usage(problem: BaseException, screen: Screen) -> None:
    if screen.is_json:
        screen.fail("usage", getattr(problem, "format_message", lambda: str(problem))())
    else:
        problem.show()  # type: ignore[attr-defined]  # every ClickException has it


def _line_of(cause: BaseException | None) -> str:
    """Where the author of a plugin finds what raised; "" for what was raised on purpose, and for plugins that come with modelgraft."""
    place = None if cause is None or isinstance(cause, ModelgraftError | OSError) else place_of(cause)
    return "" if place is None or "modelgraft_plugins" in Path(place.file).parts else f"\n    see {place.file}:{place.line}"


def _report(error: BaseException, session: CliSession, *, debug: bool) -> int:
    screen = session.screen
    if debug and not isinstance(error, typer.Abort):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, KeyboardInterrupt | typer.Abort) or (
        isinstance(error, Cancelled) and isinstance(error.__cause__, KeyboardInterrupt)
    ):
        screen.error("stopped", kind="stopped")
        return session.interrupts.code
    if isinstance(error, GraphError):
        screen.problems(error.noted, kind="document" if isinstance(error, DocumentError) else "graph")
        return FAILED
    if isinstance(error, ModelgraftError):
        line = _line_of(error.__cause__) if isinstance(error, NodeError) and not screen.is_json else ""
        screen.error(f"{error.unworded}{line}", kind=type(error).__name__, **where_of(error))
        return FAILED
    text = f"this is a defect of modelgraft or of a plugin: {said(error).strip().partition(chr(10))[0]}"
    screen.error(text if debug else f"{text}\n    run it again with --debug to see where, and report it", kind="defect")
    return DEFECT
