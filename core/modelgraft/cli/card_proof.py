"""What is wrong with the card of a family, as far as it can be told without a checkpoint: what it names and nobody has, what it answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from modelgraft.kernel.language import document, expand
from modelgraft.kernel.language.shipped_graphs import find_shipped
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import GraphError, nearest
from modelgraft.kernel.words.guard import contained, said, shown
from modelgraft.sources.cards import FamilyCard, LayoutCard
from modelgraft.sources.families import Families
from modelgraft.tools.importer import PARAM


def card_troubles(card: FamilyCard, known: Families, registry: Registry) -> Iterator[str]:
    """What is wrong, a sentence each.

    known  the cards of all that is installed
    """
    for kind, whole in card.wholes.items():
        if whole.pictures and whole.pictures not in known.pictures:
            near = nearest(whole.pictures, known.pictures)
            yield f"the pictures of the whole '{kind}' are '{whole.pictures}', which no card describes. {near}".rstrip()
        for name in whole.components:
            if name not in registry.components:
                near = nearest(name, registry.components)
                yield f"the whole '{kind}' has facts for the component '{name}', which nobody offers. {near}".rstrip()
    for kind, graph in card.graphs.items():
        if isinstance(graph, str) and (trouble := _graph(graph, registry)):
            yield f"the graph of '{kind}' {trouble}"
    for layout in card.layouts:
        yield from _layout(layout)


def _graph(text: str, registry: Registry) -> str:
    """What is wrong with a graph that a card names, or gives the text of; "" when nothing is."""
    with tempfile.TemporaryDirectory() as beside:
        path = find_shipped(text) if "\n" not in text else Path(beside) / "graph.yaml"
        if path is None:
            return f"is {shown(text)}, which nobody ships"
        if "\n" in text:
            path.write_text(text, encoding="utf-8")
        try:
            expand.load_graph(path, registry=registry)
            own = document.read(path).root.value.get("params")
        except GraphError as error:
            return f"cannot be read: {said(error).partition(chr(10))[0]}"
    return "" if own is not None and PARAM in own.value else f"has no parameter '{PARAM}' of its own, where a checkpoint is to be named"


def _layout(layout: LayoutCard) -> Iterator[str]:
    """Every source is asked whether it is of a layout, so its card must know by itself that a source without files is not."""
    knows: Callable[..., object] = layout.knows
    try:
        with contained():
            found = knows({}, {})
    except Exception as error:  # noqa: BLE001 code of a plugin may raise anything
        yield f"the layout '{layout.name}' fails on a source that has no such files, and every source is asked: {said(error)}"
        return
    if found:
        yield f"the layout '{layout.name}' takes a source without any files for its own"
