"""Names of files as users write them: a `~` at the beginning is the home, as a shell reads it, and most begin in the current folder."""

from __future__ import annotations

import os
from pathlib import Path

from modelgraft.kernel.words.errors import InputError


def home_read(name: str | os.PathLike[str]) -> Path:
    """The path of a name, `~` or `~account` at its beginning read as the home; where there is no such account, the name as it stands."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 that of pathlib raises, and takes ./~name for an account


def refuse_lost_folder() -> None:
    """Raise InputError where the current folder was deleted: libraries that load there end the process without a way out."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError("the folder that this process runs in is not there any more: go to another, with cd") from error
