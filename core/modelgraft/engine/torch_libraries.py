"""The libraries of torch, taken into this process by a thread before Python imports torch: that is a sixth of the import, and needs no lock
of Python, so that a core does it on which nothing else runs."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

LIBRARY = "lib/libtorch_python.so"  # what the package itself imports first; it brings the others along


def begin_to_take() -> None:
    """Begin to take in the libraries of torch, where it is installed and this system names them so. What goes wrong the import tells."""
    spec = find_spec("torch") if os.name == "posix" else None
    library = Path(spec.origin).parent / LIBRARY if spec is not None and spec.origin is not None else None
    if library is not None and library.is_file():
        Thread(target=_take, args=(library,), name="torch-libraries", daemon=True).start()


def _take(library: Path) -> None:
    """Not by ctypes.CDLL, which holds the lock of Python meanwhile; a function of the system that ctypes calls does not."""
    with suppress(OSError, AttributeError):
        take = ctypes.CDLL(None).dlopen
        take.argtypes, take.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
        take(os.fsencode(library), os.RTLD_LAZY)
