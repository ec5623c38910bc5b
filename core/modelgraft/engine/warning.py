"""What loads have told, as warnings of Python: each text once, at the line of the user that called."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable

from modelgraft.kernel.words.errors import ModelgraftWarning


def warn_once(texts: Iterable[str], *, warned: set[str]) -> None:
    """Hand texts to Python's warnings, but for those that were; `warned` grows by them."""
    for text in texts:
        if text not in warned:
            warned.add(text)
            warnings.warn(text, ModelgraftWarning, stacklevel=_calling_level())


def _calling_level() -> int:
    """How many calls above `warn_once` the user's own code stands."""
    frame, level = sys._getframe(2), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "modelgraft":
        frame, level = frame.f_back, level + 1
    return level
