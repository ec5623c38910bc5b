"""Export a decoder with gated cross-attention: keys and values of media from a small graph, once per prompt, and the decoder.

Layout of the graphs: modelgraft_plugins/llm/gated_exported.py.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from modelgraft.plugin import Tracer
from modelgraft_plugins.llm import grouped_query, growing_export
from modelgraft_plugins.llm.gated_blocks import GatedLayers
from modelgraft_plugins.llm.sizes import Caches

TRACED = (2, 6)  # records and vectors of the media that are traced with

Model = Any  # a model of transformers, which is only partly annotated


class _Media(nn.Module):
    """The keys and values of the blocks."""

    def __init__(self, gated: GatedLayers) -> None:
        super().__init__()
        self.gated = gated

    def forward(self, media: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.gated.keys_values(media))


class _Gated(nn.Module):
    """The decoder with what its tokens see as further inputs."""

    def __init__(self, decoder: nn.Module, gated: GatedLayers) -> None:
        super().__init__()
        self.decoder, self.gated = decoder, gated

    def forward(self, *given: Any) -> tuple[Tensor, ...]:
        *own, seen, medium, pairs = given
        with self.gated.looking(pairs, seen, medium):
            result: tuple[Tensor, ...] = self.decoder(*own)
        return result


def export(model: Model, gated: GatedLayers, tracer: Tracer, *, layers: Sequence[int] = ()) -> Caches:
    """Write the graphs model, with GroupQueryAttention, and media; gives the layout.

    Raises ExportError for a model that the operator cannot serve, or that the exporter cannot trace.
    """
    model, gated = _in_precision(model, gated, half=tracer.half)
    layout = grouped_query.layout_of(model)
    with grouped_query.decoding(model, layers) as decoder:
        _write(
            decoder,
            gated,
            grouped_query.traced(layout, layers),
            tracer,
            layout,
            (grouped_query.BATCH, grouped_query.TOKENS, Dim("vectors")),
        )
    return layout


def export_growing(model: Model, gated: GatedLayers, tracer: Tracer, *, layers: Sequence[int] = ()) -> Caches:
    """The same with a cache that grows. Raises ExportError."""
    model, gated = _in_precision(model, gated, half=tracer.half)
    decoder, layout, given = growing_export.traced_decoder(model, layers)
    _write(decoder, gated, given, tracer, layout, (Dim.DYNAMIC, Dim.DYNAMIC, Dim.DYNAMIC))
    return layout


def _in_precision(model: Model, gated: GatedLayers, *, half: bool) -> tuple[Model, GatedLayers]:
    if not half:
        return model, gated
    model, gated = copy.deepcopy((model, gated))  # together: the hooks in the one hold the other
    return model.half(), gated.half()


def _write(
    decoder: nn.Module, gated: GatedLayers, own: grouped_query.Traced, tracer: Tracer, layout: Caches, sizes: tuple[Any, ...]
) -> None:
    """Trace both graphs; `sizes` are those of records, tokens and vectors of media."""
    assert gated.config.media_size is not None
    batch, tokens, *open_ = sizes
    records, count = TRACED[0], gated.vectors or TRACED[1]

    def along(axis: int) -> dict[int, Any]:
        """Any number of records, and of vectors along an axis unless they are always as many."""
        return {0: batch} if gated.vectors else {0: batch, axis: open_[0]}

    media = torch.randn(records, count, gated.config.media_size, dtype=layout.in_torch)
    with torch.no_grad():
        pairs = [tensor.contiguous() for tensor in gated.keys_values(media)]  # as they are bound: other strides would be traced too
    names = [f"media.{kind}.{layer}" for layer in gated.blocks for kind in ("key", "value")]
    tracer.trace(_Media(gated), (media,), "media", sizes=(along(1),), inputs=["media"], outputs=names)
    seen, medium = torch.tensor([[0, 1, 1, 2, 2], [0, 0, 1, 1, 2]]), 1 + 2 * torch.arange(count)[None].repeat(2, 1) // count
    tracer.trace(
        _Gated(decoder, gated),
        (*own.example, seen, medium, pairs),
        "model",
        sizes=((*own.sizes, {0: batch, 1: tokens}, along(1), [along(2)] * len(names)),),
        inputs=[*own.inputs, "seen", "medium", *names],
        outputs=own.outputs,
    )
