"""onnx_ir, imported without sympy, which it has for sums of sizes with names: graphs here add up none, and it takes as long as the rest.

Modules that stand for it are there while onnx_ir is imported, and no longer. Whoever asks anything of one, onnx_ir itself as well, has the
module imported then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["ir"]

SELDOM_USED = ("sympy", "onnx_ir._symbolic_shapes")  # the second asks the first for functions as soon as it is imported


class _Awaited(ModuleType):
    """A module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        """Anything of the module: Any, as Python calls it."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def _awaited(*names: str) -> Iterator[None]:
    """Within the block an import of one of these modules gives what stands for it; of one that is there already, the module."""
    stand_ins = {name: _Awaited(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, one in stand_ins.items():
            if sys.modules.get(name) is one:
                del sys.modules[name]


with _awaited(*SELDOM_USED):
    import onnx_ir as ir
