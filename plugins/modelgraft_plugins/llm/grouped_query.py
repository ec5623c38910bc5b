"""Export a decoder of transformers with GroupQueryAttention as its attention and its cache.

Each layer becomes one `com.microsoft::GroupQueryAttention` (grouped_attention.py), whose past and present become inputs and
outputs of the graph, so that one graph serves prompts and tokens. Layout: grouped.py.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modelgraft.plugin import ExportError, Tracer, picked
from modelgraft_plugins.llm.grouped_attention import Trace, attend, under_way
from modelgraft_plugins.llm.own_attention import OWN
from modelgraft_plugins.llm.sizes import Caches, named
from modelgraft_plugins.llm.standing import AXES

ATTENTION = "modelgraft_grouped_query"  # the name under which the function stands in the table of transformers

HEAD_STEP = 8  # onnxruntime refuses other head widths
BATCH, TOKENS, PLACES, LAST = Dim("batch"), Dim("tokens"), Dim("places"), Dim("read")

Model = Any  # a model of transformers, which is only partly annotated


class _GroupedQuery(torch.nn.Module):
    """The model with the inputs and outputs of the graph; the head sees some positions of each row."""

    def __init__(self, model: Model, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.last, self.layers = model, None, tuple(layers)
        self.handle = model.get_output_embeddings().register_forward_pre_hook(self._pick)

    def _pick(self, _head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self.last is None:
            return None
        # gathered by elements: what indexing becomes cannot be replayed as a CUDA graph, see capturing.py of the onnx plugin
        return (picked(args[0], self.last),)

    def forward(  # noqa: PLR0917 the inputs of the graph
        self,
        inputs_embeds: Tensor,
        position_ids: Tensor,
        seqlens_k: Tensor,
        total: Tensor,
        last: Tensor,
        past: list[Tensor],
        places: Tensor | None = None,
        deep: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """One call of the graph."""
        if position_ids.ndim > 2:
            position_ids = position_ids.permute(2, 0, 1)
        running = Trace(past, seqlens_k, total)
        before = under_way.set(running)
        self.last = last  # type: ignore[assignment]
        try:
            output = self.model(
                **heard_as(deep),
                inputs_embeds=inputs_embeds,
                position_ids=position_ids,
                past_key_values=running,
                use_cache=True,
                **({"output_hidden_states": True} if self.layers else {}),
            )
        finally:
            under_way.reset(before)
            self.last = None
        if len(running.present) < len(running.layers):
            raise ExportError("its attention does not go through the table of transformers")
        present = [tensor for layer in range(len(running.layers)) for tensor in running.present[layer]]
        return (output.logits, *states_of(output.hidden_states, self.layers, places), *present)


def heard_as(deep: Tensor | None) -> dict[str, Any]:
    """What first layers hear at every token, float[batch tokens layers width], as `hearing` takes it."""
    return {} if deep is None else {"visual_pos_masks": deep[:, :, 0, 0], "deepstack_visual_embeds": list(deep.unbind(2))}


@contextlib.contextmanager
def hearing(model: Model) -> Iterator[None]:
    """Let the layers of a model add what they hear at every token, for a while: picking tokens by a mask cannot be traced."""
    body = model.model
    body._deepstack_process = _everywhere
    try:
        yield
    finally:
        del body._deepstack_process


def _everywhere(hidden: Tensor, _there: Tensor, vectors: Tensor) -> Tensor:
    return hidden + vectors


def states_of(hidden: Sequence[Tensor], layers: Sequence[int], places: Tensor | None) -> list[Tensor]:
    """The states of some layers at some places of each row, float[batch layers places width]; nothing for no layers."""
    return [torch.stack([picked(hidden[layer], places) for layer in layers], 1)] if places is not None else []


def layout_of(model: Model) -> Caches:
    """The sizes of a model's decoder."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    return Caches(
        layers=config.num_hidden_layers,
        kv_heads=_kv_heads(config),
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        width=model.get_input_embeddings().weight.shape[1],
        vocab=model.get_output_embeddings().weight.shape[0],
        dtype=named(model.dtype),
        axes=AXES if "mrope_section" in (getattr(config, "rope_parameters", None) or {}) else 0,
    )


def placed(positions: Tensor, layout: Caches) -> Tensor:
    """Where tokens stand, as a graph takes it: int64[batch tokens], or int64[batch tokens axes] with the same on every axis."""
    return positions[..., None].repeat(1, 1, layout.axes) if layout.axes else positions


def _kv_heads(config: Any) -> int:
    if config.model_type == "falcon":
        return 1 if config.multi_query and not config.new_decoder_architecture else int(config.num_kv_heads)
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def export(model: Model, tracer: Tracer, *, layers: Sequence[int] = (), deep: int = 0) -> Caches:
    """Write the graph of a causal model; gives its layout.

    layers  whose hidden states it gives as well;  deep  see Caches

    Raises ExportError for a model whose attention does not go through the table, or that the exporter cannot trace.
    """
    if tracer.half:
        model = copy.deepcopy(model).half()
    layout = replace(layout_of(model), deep=deep)
    with decoding(model, layers) as wrapped, hearing(model) if deep else contextlib.nullcontext():
        given = traced(layout, layers)
        tracer.trace(wrapped, given.example, "model", sizes=given.sizes, inputs=given.inputs, outputs=given.outputs)
    return layout


@contextlib.contextmanager
def decoding(model: Model, layers: Sequence[int] = ()) -> Iterator[torch.nn.Module]:
    """The model as the graph calls it: its attention is the operator inside. Raises ExportError for heads that it does not take."""
    width = layout_of(model).head_width
    if width % HEAD_STEP:
        raise ExportError(f"heads are {width} wide, and GroupQueryAttention takes multiples of {HEAD_STEP}")
    wrapped = _GroupedQuery(model, layers).eval()
    try:
        with _attention(model):
            yield wrapped
    finally:
        wrapped.handle.remove()


@dataclass(frozen=True, slots=True)
class Traced:
    """What a decoder graph is traced with, as `Tracer.trace` takes it."""

    example: tuple[Any, ...]
    sizes: tuple[Any, ...]
    inputs: list[str]
    outputs: list[str]


def traced(layout: Caches, layers: Sequence[int] = ()) -> Traced:
    """Inputs of a decoder of these sizes: two rows of five tokens after an empty cache."""
    batch, tokens, capacity = 2, 5, 16
    names = [f"{kind}.{layer}" for layer in range(layout.layers) for kind in ("key", "value")]
    embeds = torch.randn(batch, tokens, layout.width, dtype=layout.in_torch) * 0.5
    past = [torch.zeros(batch, layout.kv_heads, capacity, layout.head_width, dtype=layout.in_torch) for _ in names]
    held, last = torch.full((batch,), tokens - 1), torch.tensor([[0, 1, 2, 4], [0, 1, 3, 4]])
    positions = placed(torch.arange(tokens)[None].repeat(batch, 1), layout)
    beside = _heard(traced_places({0: BATCH, 1: PLACES}, layers), embeds, layout.deep)
    return Traced(
        (embeds, positions, held.to(torch.int32), torch.tensor([tokens], dtype=torch.int32), last, past, *beside.example),
        (
            {0: BATCH, 1: TOKENS}, {0: BATCH, 1: TOKENS}, {0: BATCH}, None, {0: BATCH, 1: LAST},
            [{0: BATCH, 2: Dim("capacity")}] * len(names), *beside.sizes,
        ),
        ["inputs_embeds", "position_ids", "seqlens_k", "total", "last", *(f"past.{name}" for name in names), *beside.inputs],
        ["logits", *beside.outputs, *(f"present.{name}" for name in names)],
    )  # fmt: skip


def traced_places(sizes: Any, layers: Sequence[int]) -> Traced:
    """What a decoder graph of two rows takes and gives beside the rest where hidden states are wanted; nothing without layers."""
    if not layers:
        return Traced((), (), [], [])
    return Traced((torch.tensor([[0, 2, 4], [1, 3, 4]]),), (sizes,), ["places"], ["states"])


def _heard(beside: Traced, embeds: Tensor, deep: int) -> Traced:
    """The same with what first layers hear at each of these tokens, float[batch tokens width]; behind places, which may be none."""
    if not deep:
        return beside
    example, sizes = (beside.example, beside.sizes) if beside.inputs else ((None,), (None,))
    vectors = torch.stack([embeds * (layer + 1) for layer in range(deep)], 2)
    return Traced((*example, vectors), (*sizes, {0: BATCH, 1: TOKENS}), [*beside.inputs, "deep"], beside.outputs)


@contextlib.contextmanager
def _attention(model: Model) -> Iterator[None]:
    """Let the model attend through the operator for a while."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
    own = {part: forward for part in model.modules() if (forward := OWN.get(type(part).__name__))}
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = "eager" if own else ATTENTION  # what has its own attention makes a mask, which nobody reads
    for part, forward in own.items():
        part.forward = functools.partial(forward, part)
    try:
        yield
    finally:
        for part in own:
            del part.forward
        for key, config in configs.items():
            config._attn_implementation = before[key]
