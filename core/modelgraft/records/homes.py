"""Names of files as users write them: a `~` at the beginning is the home, as a shell reads it."""

from __future__ import annotations

import os
from pathlib import Path


def home_read(name: str | os.PathLike[str]) -> Path:
    """The path of a name, `~` or `~account` at its beginning read as the home; where there is no such account, the name as it stands."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 that of pathlib raises, and takes ./~name for an account
