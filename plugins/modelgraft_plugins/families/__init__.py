"""Cards of checkpoint families: one file each, which holds all that is known of a family beside its own files.

Every module of this folder whose name has no leading underscore has a `CARD`. To add a family, add a file: see README.md.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from modelgraft.plugin import hookimpl


@hookimpl
def register_families(register: Callable[[Any], None]) -> None:
    """Offer the cards of this folder."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            register(importlib.import_module(f"{__name__}.{module.name}").CARD)
