"""Export a decoder with gated cross-attention: keys and values of media from a small graph, once per prompt, and the decoder.

Layout of the graphs: modelgraft/backends/onnx/gated.py.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from modelgraft.backends.onnx.decoding import Layout
from modelgraft.backends.onnx.exporting import trace
from modelgraft.backends.onnx.gated import MEDIA
from modelgraft_plugins.llm import grouped_query
from modelgraft_plugins.llm.gated_blocks import GatedLayers

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


def export(model: Model, gated: GatedLayers, folder: Path, *, half: bool) -> Layout:
    """Write model.onnx and media.onnx, in float16 if `half`; gives the layout.

    Raises ExportError for a model that GroupQueryAttention cannot serve, or that the exporter cannot trace.
    """
    if half:
        model, gated = copy.deepcopy((model, gated))  # together: the hooks in the one hold the other
        model.half(), gated.half()
    layout = grouped_query.layout_of(model)
    assert gated.config.media_size is not None
    media = torch.randn(*TRACED, gated.config.media_size, dtype=model.dtype)
    with torch.no_grad():
        pairs = gated.keys_values(media)
    names = [f"media.{kind}.{layer}" for layer in gated.blocks for kind in ("key", "value")]
    batch, vectors = grouped_query.BATCH, Dim("vectors")
    trace(_Media(gated), (media,), folder / MEDIA, sizes=({0: batch, 1: vectors},), inputs=["media"], outputs=names)
    own = grouped_query.traced(layout)
    seen, medium = torch.tensor([[0, 1, 1, 2, 2], [0, 0, 1, 1, 2]]), torch.tensor([[1, 1, 1, 2, 2, 2]]).repeat(2, 1)
    with grouped_query.decoding(model) as decoder:
        trace(
            _Gated(decoder, gated),
            (*own.example, seen, medium, pairs),
            folder / "model.onnx",
            sizes=((*own.sizes, {0: batch, 1: grouped_query.TOKENS}, {0: batch, 1: vectors}, [{0: batch, 2: vectors}] * len(names)),),
            inputs=[*own.inputs, "seen", "medium", *names],
            outputs=own.outputs,
        )
    return layout
