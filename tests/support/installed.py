"""What is installed, found out once: modules of tests ask for it while they are gathered."""

from __future__ import annotations

from functools import cache

from modelgraft.installed.discovery import discover
from modelgraft.kernel.shelf.registry import Registry


@cache
def registry() -> Registry:
    """All that the installed plugins offer."""
    return discover()
