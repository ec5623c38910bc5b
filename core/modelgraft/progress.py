"""How long work tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears how far a download is; `total` is None when the server does not say it."""

    def __call__(self, done: int, total: int | None, label: str) -> None:
        """Hear that `done` of `total` bytes of what `label` names are there."""
        ...


def ignore_progress(done: int, total: int | None, label: str) -> None:
    """Hear and say nothing."""
