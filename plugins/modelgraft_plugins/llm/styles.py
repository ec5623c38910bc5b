"""The styles of exported decoders: which graphs each has, and the decoder that is made of them.

Imports no transformers, and torch for those alone whose memory is torch's: all but "grouped".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelgraft.plugin import Decoder, Opened, Remembering
from modelgraft_plugins.llm.grouped import GroupedDecoder
from modelgraft_plugins.llm.sizes import Caches, layout_of

Embed = Callable[[Any], Any]  # int64[n] -> float32[n width], the input embeddings
EMBEDDINGS = "embeddings"  # what the table is kept as beside the graphs
BRIEFLY = "briefly"  # noted, and a part, where graphs for many rows are compared: see `Opened.notes`
MODEL, MEDIA, CROSSING = "model", "media", ("decoder", "crossing", "encoder")  # names of graphs


def noted(style: str, layout: Caches, *, remark: str = "", **more: Any) -> dict[str, Any]:
    """What a module notes as it traces its graphs, for `parts_of`."""
    return {"style": style, "layout": layout.plain(), "remark": remark, **more}


def parts_of(opened: Opened) -> dict[str, Any]:
    """The parts of a language model that was exported: decoder and input embeddings."""
    notes = opened.notes
    layout = layout_of(notes["layout"])
    if notes["style"] == "crossing":
        from modelgraft_plugins.llm.growing import CrossingDecoder

        graphs = {name: opened.graph(name) for name in CROSSING if name != "encoder" or notes["encodes"]}
        embed = opened.table(EMBEDDINGS) if notes["encodes"] else _nothing
        return {"decoder": CrossingDecoder(graphs, layout), "embed": embed}
    embed = opened.table(EMBEDDINGS)
    decoder = _STYLES[notes["style"]](opened, layout, embed)
    # Where tokens see those behind them, what a prompt begins with cannot be read before it is known how it goes on.
    found = {"decoder": Remembering(decoder, embed) if layout.reads == "onward" else decoder, "embed": embed}
    return {**found, BRIEFLY: True} if BRIEFLY in notes else found


def _nothing(ids: Any) -> Any:
    raise AssertionError(f"a decoder alone embeds its own tokens, and was asked for {len(ids)}")


def _grouped(opened: Opened, layout: Caches, embed: Embed) -> Decoder:
    return GroupedDecoder(opened.graph(MODEL), layout, embed)


def _growing(opened: Opened, layout: Caches, embed: Embed) -> Decoder:
    from modelgraft_plugins.llm.growing import GrowingDecoder

    return GrowingDecoder(opened.graph(MODEL), layout, embed)


def _gated(opened: Opened, layout: Caches, embed: Embed) -> Decoder:
    from modelgraft_plugins.llm.gated_exported import GatedGroupedDecoder

    return GatedGroupedDecoder(opened.graph(MODEL), layout, embed, media=opened.graph(MEDIA))


def _gated_growing(opened: Opened, layout: Caches, embed: Embed) -> Decoder:
    from modelgraft_plugins.llm.gated_exported import GatedGrowingDecoder

    return GatedGrowingDecoder(opened.graph(MODEL), layout, embed, media=opened.graph(MEDIA))


_STYLES: Mapping[str, Callable[[Opened, Caches, Embed], Any]] = {  # Any: a decoder whose sessions can be continued
    "grouped": _grouped,  # its cache is updated in place
    "growing": _growing,
    "gated": _gated,  # the first two, looking at media
    "gated-growing": _gated_growing,
}
