"""SpeechGPT: units of speech as words of a language model (arXiv 2305.11000)."""

from __future__ import annotations

from collections.abc import Callable

from modelgraft import hookimpl

COMPONENTS: tuple[object, ...] = ()


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in COMPONENTS:
        register(declared)
