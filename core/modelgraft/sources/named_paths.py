"""Which paths a source may name: a document what lies below its folder, links followed; what the user gives leads anywhere."""

from __future__ import annotations

import os
from pathlib import Path

from modelgraft.kernel.words.errors import Problem, SourceError
from modelgraft.kernel.words.wording import option
from modelgraft.records.homes import home_read
from modelgraft.sources.refs import SourceRef
from modelgraft.sources.storage import was_named


def allowed(ref: SourceRef, folder: Path | None, *, trusted: bool) -> Path:
    """Where a reference leads, if its giver may name that; the arguments are those of `views.view`. Raises SourceError `outside-folder`."""
    if folder is None and not trusted:
        raise SourceError(
            Problem(
                "outside-folder",
                f"'{ref.text}': a shipped graph may not name files",
                hint=f"give the path with {option('set', 'NAME=PATH')}",
            )
        )
    named = home_read(ref.name).absolute()
    if trusted or folder is None or (is_absolute(ref) and was_named(named)):
        return named
    if is_absolute(ref) and _real(named).is_relative_to(_real(folder)):
        below = _real(named).relative_to(_real(folder))
        found = f"'{ref.text}' is an absolute path, and a document names files as they lie below its own folder"
        raise SourceError(Problem("outside-folder", found, hint=f"write ./{below}"))
    if is_absolute(ref) or ".." in Path(ref.name).parts:
        raise _outside(ref.text, folder)
    path = folder / ref.name
    refuse_outside(path, folder, ref.text)
    return path


def is_absolute(ref: SourceRef) -> bool:
    """Whether the reference says plainly where on the machine it leads."""
    return Path(ref.name).is_absolute() or ref.name.startswith("~")


def refuse_outside(path: Path, boundary: Path | None, text: str) -> None:
    """Raise SourceError `outside-folder` where a path, links followed, leads out of a folder; None: anywhere."""
    if boundary is not None and not _real(path).is_relative_to(_real(boundary)):
        raise _outside(text, boundary)


def _real(path: Path) -> Path:
    """The path with all links followed; unlike `Path.resolve` it does not raise for links that run in a circle."""
    return Path(os.path.realpath(path))


def _outside(text: str, folder: Path) -> SourceError:
    given = f"give the path yourself with {option('set', 'NAME=PATH')}"
    hint = f"{given}, move the files there, or let `modelgraft import` write a graph for the folder"
    found = f"'{text}' leads outside {folder}: a document may only name files below its own folder"
    return SourceError(Problem("outside-folder", found, hint=hint))
