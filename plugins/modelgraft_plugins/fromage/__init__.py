"""FROMAGe: pictures in and out of a frozen language model, by linear maps and a token that asks for one (arXiv 2301.13823)."""

from __future__ import annotations

from collections.abc import Callable

from modelgraft import hookimpl

COMPONENTS: tuple[object, ...] = ()


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in COMPONENTS:
        register(declared)
