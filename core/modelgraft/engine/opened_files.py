"""Files that a part computes with by itself, opened as the backends open their own."""

from __future__ import annotations

from pathlib import Path

from modelgraft.engine.backend import FileCall, LoadContext, open_backend
from modelgraft.engine.measuring import note_memory
from modelgraft.kernel.words.errors import PluginError, choices


def open_file(context: LoadContext, path: Path) -> FileCall:
    """Open a file that a part computes with by itself, on the backend that is registered for its ending.

    So no part opens sessions of its own, past the threads and limits that hold for all. What the file takes is noted as the node's.

    Raises PluginError where no backend that is loaded opens such files, or where the one that does lacks its library; and what the backend
    raises for a file that it cannot read.
    """
    cards = context.registry.backends
    name = next((name for name, card in cards.items() if path.suffix in card.opens), None)
    if name is None:
        lacks = f"none of the backends that are loaded ({choices(cards)}) opens such files"
        raise PluginError(f"{context.node.name} computes with {path.name}, and {lacks}: load the plugin that brings one")
    opened = open_backend(context.registry, name).open_file(path, threads=context.threads)
    note_memory("cpu", path.stat().st_size)
    return opened
