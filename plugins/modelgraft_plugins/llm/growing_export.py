"""Export decoders whose cache grows, and encoder-decoders. Layout of the graphs: growing.py."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from modelgraft.plugin import Tracer
from modelgraft_plugins.llm.both_ways import block_masks
from modelgraft_plugins.llm.grouped_query import Traced, layout_of, placed, states_of, traced_places
from modelgraft_plugins.llm.sizes import Caches, named

Model = Any  # a model of transformers, which is only partly annotated


def _cache(pairs: Sequence[Tensor]) -> DynamicCache:
    """A cache that holds key, value, key, value, ... of each layer."""
    cache = DynamicCache()
    for layer, (key, value) in enumerate(zip(pairs[::2], pairs[1::2], strict=True)):
        cache.update(key, value, layer)
    return cache


def _flat(cache: Any) -> list[Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


class _Decoder(torch.nn.Module):
    """A decoder alone."""

    def __init__(self, model: Model, *, takes_positions: bool, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.takes_positions, self.layers = model, takes_positions, tuple(layers)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[Tensor], places: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return self._read(inputs_embeds, attention_mask, position_ids, past, places)

    def _read(
        self, inputs_embeds: Tensor, mask: Any, position_ids: Tensor, past: list[Tensor], places: Tensor | None
    ) -> tuple[Tensor, ...]:
        """mask: int64[batch past+tokens], or in the form that the model takes as it is."""
        cache = _cache(past)
        if position_ids.ndim > 2:
            position_ids = position_ids.permute(2, 0, 1)
        positions = {"position_ids": position_ids} if self.takes_positions else {}
        more = {"output_hidden_states": True} if self.layers else {}
        output = self.model(inputs_embeds=inputs_embeds, attention_mask=mask, past_key_values=cache, use_cache=True, **positions, **more)
        return (output.logits[:, -1], *states_of(output.hidden_states, self.layers, places), *_flat(cache))


class _BlockDecoder(_Decoder):
    """A decoder some of whose tokens see each other: those of the same block, int64[batch past+tokens], -1 for none."""

    def forward(  # type: ignore[override]  # one more input, in its place among the others
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        blocks: Tensor,
        past: list[Tensor],
        places: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        return self._read(inputs_embeds, block_masks(self.model, inputs_embeds, attention_mask, blocks), position_ids, past, places)


def _last_states(hidden: Sequence[Tensor], layers: Sequence[int]) -> list[Tensor]:
    """The states of some layers at the last position, float[batch layers width]; nothing for no layers."""
    return [torch.cat([hidden[layer][:, -1:] for layer in layers], 1)] if layers else []


class _Encoder(torch.nn.Module):
    """An encoder."""

    def __init__(self, encoder: Model) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.encoder(inputs_embeds=inputs_embeds, attention_mask=attention_mask).last_hidden_state
        return states


class _Crossing(torch.nn.Module):
    """The keys and values that a decoder attends to in its memory."""

    def __init__(self, model: Model, start: int) -> None:
        super().__init__()
        self.model, self.start = model, start

    def forward(self, memory: Tensor) -> tuple[Tensor, ...]:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        ids = memory.new_full((memory.shape[0], 1), self.start, dtype=torch.int64)
        self.model(decoder_input_ids=ids, encoder_outputs=(memory,), past_key_values=cache, use_cache=True)
        return tuple(_flat(cache.cross_attention_cache))


class _CrossDecoder(torch.nn.Module):
    """The decoder of an encoder-decoder, over keys and values that were made once."""

    def __init__(self, model: Model, width: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.width, self.layers = model, width, tuple(layers)

    def forward(self, decoder_input_ids: Tensor, attention_mask: Tensor, cross: list[Tensor], past: list[Tensor]) -> tuple[Tensor, ...]:
        cache = EncoderDecoderCache(_cache(past), _cache(cross))
        cache.is_updated = dict.fromkeys(range(len(past) // 2), True)
        memory = cross[0].new_zeros((cross[0].shape[0], cross[0].shape[2], self.width))  # only its shape is looked at
        output = self.model(
            decoder_input_ids=decoder_input_ids,
            encoder_outputs=(memory,),
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            **({"output_hidden_states": True} if self.layers else {}),
        )
        states = _last_states(output.decoder_hidden_states, self.layers)
        return (output.logits[:, -1], *states, *_flat(cache.self_attention_cache))


def _names(kind: str, layers: int) -> list[str]:
    return [f"{kind}.{what}.{layer}" for layer in range(layers) for what in ("key", "value")]


def _held(model: Model) -> Caches:
    """The sizes of a decoder, with the heads that its own cache holds: Falcon repeats keys for each head before they get there."""
    layout, cache = layout_of(model), DynamicCache()
    with torch.no_grad():
        model(inputs_embeds=torch.zeros(1, 1, layout.width, dtype=layout.in_torch), past_key_values=cache, use_cache=True)
    _, heads, _, width = _flat(cache)[0].shape
    return replace(layout, kv_heads=heads, head_width=width)


def export_decoder(model: Model, tracer: Tracer, *, layers: Sequence[int] = (), reads: str = "onward") -> Caches:
    """Write the graph of a decoder alone, which gives the hidden states of layers as well. reads: see Caches. Raises ExportError."""
    if tracer.half:
        model = copy.deepcopy(model).half()
    decoder, layout, given = traced_decoder(model, layers, reads=reads)
    tracer.trace(decoder, given.example, "model", sizes=given.sizes, inputs=given.inputs, outputs=given.outputs)
    return layout


def traced_decoder(model: Model, layers: Sequence[int] = (), *, reads: str = "onward") -> tuple[torch.nn.Module, Caches, Traced]:
    """The model as the graph calls it, its sizes, and what it is traced with: two rows of five tokens after three."""
    layout = replace(_held(model), reads=reads)
    any_size = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    past = [torch.randn(2, layout.kv_heads, 3, layout.head_width, dtype=layout.in_torch) for _ in range(2 * layout.layers)]
    embeds, beside = torch.randn(2, 5, layout.width, dtype=layout.in_torch), traced_places(any_size, layers)
    seen = reads != "onward"
    blocks = [torch.tensor([[-1, -1, -1, 0, 0, -1, 1, 1]]).repeat(2, 1)] * seen
    given = Traced(
        (embeds, torch.ones(2, 8, dtype=torch.int64), placed(torch.arange(3, 8).repeat(2, 1), layout), *blocks, past, *beside.example),
        (any_size, any_size, any_size, *[any_size] * seen, [{0: Dim.DYNAMIC, 2: Dim.DYNAMIC}] * len(past), *beside.sizes),
        ["inputs_embeds", "attention_mask", "position_ids", *["blocks"] * seen, *_names("past", layout.layers), *beside.inputs],
        ["logits", *beside.outputs, *_names("present", layout.layers)],
    )
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    return (_BlockDecoder if seen else _Decoder)(model, takes_positions=takes_positions, layers=layers), layout, given


def cross_layout_of(model: Model) -> Caches:
    """The sizes of the decoder of an encoder-decoder."""
    config = model.config
    heads = getattr(config, "decoder_attention_heads", None) or config.num_attention_heads
    layers = getattr(config, "num_decoder_layers", None) or getattr(config, "decoder_layers", None) or config.num_hidden_layers
    width = getattr(config, "d_model", None) or config.hidden_size
    return Caches(
        layers=layers,
        kv_heads=heads,
        head_width=getattr(config, "d_kv", None) or width // heads,
        width=width,
        vocab=model.get_output_embeddings().weight.shape[0],
        dtype=named(model.dtype),
    )


def export_crossing(model: Model, tracer: Tracer, *, encoder: Model | None, start: int = 0, layers: Sequence[int] = ()) -> Caches:
    """Write the graphs decoder, crossing and, with an encoder, encoder. Raises ExportError.

    start  any token: the keys and values of the memory do not depend on it
    """
    if tracer.half:
        model = copy.deepcopy(model).half()
        encoder = None if encoder is None else model.get_encoder()
    layout = cross_layout_of(model)
    any_size = Dim.DYNAMIC
    kind = layout.in_torch
    if encoder is not None:
        tracer.trace(
            _Encoder(encoder),
            (torch.randn(2, 7, layout.width, dtype=kind), torch.ones(2, 7, dtype=torch.int64)),
            "encoder",
            sizes=({0: any_size, 1: any_size}, {0: any_size, 1: any_size}),
            inputs=["inputs_embeds", "attention_mask"],
            outputs=["memory"],
        )
    tracer.trace(
        _Crossing(model, start),
        (torch.randn(2, 7, layout.width, dtype=kind),),
        "crossing",
        sizes=({0: any_size, 1: any_size},),
        inputs=["memory"],
        outputs=_names("cross", layout.layers),
    )
    cross = [torch.randn(2, layout.kv_heads, 7, layout.head_width, dtype=kind) for _ in range(2 * layout.layers)]
    past = [torch.randn(2, layout.kv_heads, 3, layout.head_width, dtype=kind) for _ in range(2 * layout.layers)]
    grows = [{0: any_size, 2: any_size}] * len(past)
    tracer.trace(
        _CrossDecoder(model, layout.width, layers),
        (torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64), cross, past),
        "decoder",
        sizes=({0: any_size, 1: any_size}, {0: any_size, 1: any_size}, grows, grows),
        inputs=["decoder_input_ids", "attention_mask", *_names("cross", layout.layers), *_names("past", layout.layers)],
        outputs=["logits", *(["states"] if layers else []), *_names("present", layout.layers)],
    )
    return layout
