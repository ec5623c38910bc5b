"""llama.cpp by its own functions, through the bindings of llama-cpp-python: found, told where to say what it has to say, and started.

`LLAMA_CPP_LIB_PATH` names a folder with libraries that were built elsewhere, for several kinds of processor; the best one is taken.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

from modelgraft.plugin import PluginError
from modelgraft_plugins.llamacpp.backend import INSTALL

SAID = 5  # lines of its own that an error repeats
BAD = (3, 4)  # levels of what it says: warnings and errors (ggml_log_level)


class Library:
    """The functions of llama.cpp, and what it last complained of."""

    def __init__(self, native: Any) -> None:  # Any: a module of C functions without types
        self.native = native
        self._said: deque[str] = deque(maxlen=SAID)
        self._lock = threading.Lock()
        self._hear = native.llama_log_callback(self._heard)  # kept: the library calls it for as long as the process lives
        native.llama_log_set(self._hear, ctypes.c_void_p(0))
        if built := os.environ.get("LLAMA_CPP_LIB_PATH"):
            found = sorted(Path(built).glob("*ggml.*"), key=lambda path: len(path.name))
            if found:
                ctypes.CDLL(str(found[0])).ggml_backend_load_all_from_path(os.fsencode(built))
        native.llama_backend_init()

    def complaints(self) -> str:
        """What it complained of since this was asked last, in one line; "" for nothing."""
        if not self._said:
            return ""  # as in front of every token
        with self._lock:
            told = "; ".join(dict.fromkeys(self._said))
            self._said.clear()
        return told

    def _heard(self, level: int, text: bytes, _data: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in BAD and line:
            with self._lock:
                self._said.append(line)


@cache
def library() -> Library:
    """Import the bindings, once. Raises PluginError where they are missing, or do not fit the library that they find."""
    try:
        from llama_cpp import llama_cpp as native
    except ModuleNotFoundError as error:
        if error.name != "llama_cpp":
            raise PluginError(f"llama-cpp-python is installed, and cannot be imported ({error}): install it again") from error
        raise PluginError(f"the llamacpp backend needs llama-cpp-python, which is not installed: {INSTALL}") from error
    except Exception as error:  # what the bindings raise for a library that is missing, or of another version, has no base of its own
        where = os.environ.get("LLAMA_CPP_LIB_PATH")
        hint = f"LLAMA_CPP_LIB_PATH names {where}: libraries there must be of its version" if where else "install it again"
        raise PluginError(f"llama-cpp-python is installed, and cannot be imported ({error}): {hint}") from error
    return Library(native)
