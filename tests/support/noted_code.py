"""Code that is no module, and notes what it takes while it is loaded."""

from __future__ import annotations

from modelgraft.plugin import note_memory

SIZE = 5 << 20


def load(config, context):
    """Take much more than a component can say beforehand."""
    note_memory(context.device, SIZE)
    return lambda x: x
