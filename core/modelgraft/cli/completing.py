"""The tab key of the terminal: commands, names of inputs, and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from modelgraft.kernel.words.graph import GraphInput
from modelgraft.records.homes import home_read


@contextmanager
def completing(inputs: Mapping[str, GraphInput], commands: Sequence[str]) -> Iterator[None]:
    """Complete what is typed within the block; nothing where Python has no readline."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    before, delimiters = readline.get_completer(), readline.get_completer_delims()

    def complete(text: str, state: int) -> str | None:
        found = completions(readline.get_line_buffer()[: readline.get_begidx()], text, inputs=inputs, commands=commands)
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n=")
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before)
        readline.set_completer_delims(delimiters)


def completions(before: str, text: str, *, inputs: Mapping[str, GraphInput], commands: Sequence[str]) -> list[str]:
    """What a word may become.

    before  the line up to the word: it ends with `NAME=` where a value is being written
    """
    if before.endswith("="):
        return _files(text)
    first = [f"{command} " for command in commands if command.startswith(text)] if not before.strip() and text.startswith("/") else []
    names = [f"{name}=" for name in inputs if name.startswith(text) and f"{name}=" not in before]
    return [*first, *names, *(_files(text) if not before.strip() and text else [])]


def _files(text: str) -> list[str]:
    """The files that begin so; `@` before a name is kept, and a folder ends with a slash."""
    mark = "@" if text.startswith("@") else ""
    folder, slash, start = text.removeprefix("@").rpartition("/")
    home = home_read(f"{folder}{slash}" or ".")
    try:
        there = sorted(entry for entry in home.iterdir() if entry.name.startswith(start) and (start or not entry.name.startswith(".")))
        return [f"{mark}{folder}{slash}{entry.name}{'/' if entry.is_dir() else ' '}" for entry in there]
    except OSError:
        return []
