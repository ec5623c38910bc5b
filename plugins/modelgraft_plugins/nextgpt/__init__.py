"""NExT-GPT: any medium in, and any out by signal tokens that ask diffusion models (arXiv 2309.05519)."""

from __future__ import annotations

from collections.abc import Callable

from modelgraft import hookimpl

COMPONENTS: tuple[object, ...] = ()


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in COMPONENTS:
        register(declared)
