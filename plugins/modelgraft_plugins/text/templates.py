"""The work of text/template."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from modelgraft.plugin import LoadContext
from modelgraft_plugins.text import fields_of

if TYPE_CHECKING:
    from modelgraft_plugins.text import Template


def load(config: Template, _context: LoadContext) -> Callable[..., list[str]]:
    """Make the function from the fields, each a batch of texts, to a batch of texts."""
    names = fields_of(config.template)
    if not names:
        return lambda: [config.template.format()]  # one record, which counts for all: see is_constant in engine/calls.py of modelgraft

    def fill(*fields: list[str]) -> list[str]:
        return [config.template.format(**dict(zip(names, record, strict=True))) for record in zip(*fields, strict=True)]

    return fill
