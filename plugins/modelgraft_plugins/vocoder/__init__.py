"""Vocoders and codecs: sound out of mel bands, units or codes."""

from __future__ import annotations

from collections.abc import Callable

from modelgraft import hookimpl

COMPONENTS: tuple[object, ...] = ()


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in COMPONENTS:
        register(declared)
