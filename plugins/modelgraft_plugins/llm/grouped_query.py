"""Export a decoder of transformers with GroupQueryAttention as its attention and its cache.

transformers sends the attention of its decoders through a table of functions, and their keys and values through a
`Cache`. Here the function emits one `com.microsoft::GroupQueryAttention` per layer, whose past and present become inputs
and outputs of the graph, and the cache hands new keys and values straight on. One graph then serves prompts and tokens.
Layout of the graph: modelgraft/backends/onnx/decoding.py.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modelgraft.backends.onnx.decoding import Layout
from modelgraft.backends.onnx.exporting import trace
from modelgraft.backends.onnx.keys import ExportError

ATTENTION = "modelgraft_grouped_query"  # the name under which the function stands in the table of transformers

HEAD_STEP = 8  # onnxruntime refuses other head widths

Model = Any  # a model of transformers, which is only partly annotated


class _PassingLayer(CacheLayerMixin):  # type: ignore[no-untyped-call, unused-ignore]  # transformers' own __init_subclass__
    """Keeps nothing: the operator appends what `update` hands on."""

    is_sliding = False

    def __init__(self, past_key: Tensor, past_value: Tensor) -> None:
        self.past_key, self.past_value = past_key, past_value
        self.keys, self.values = past_key, past_value
        self.is_initialized = True

    def lazy_initialization(self, *args: Any) -> None:
        """Nothing to lay out."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002 as in the base
        """Hand the new keys and values on."""
        return key_states, value_states

    def get_mask_sizes(self, query_length: Any) -> tuple[Any, int]:
        """As if nothing was read before: the operator knows better."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """Positions are given from outside."""
        return 0

    def get_max_length(self) -> int:
        """No bound."""
        return -1


class _Trace(Cache):
    """The cache of one trace, and what the attention function must know while it runs."""

    def __init__(self, past: list[Tensor], seqlens_k: Tensor, total: Tensor) -> None:
        super().__init__(layers=[_PassingLayer(key, value) for key, value in zip(past[::2], past[1::2], strict=True)])
        self.seqlens_k, self.total = seqlens_k, total
        self.present: dict[int, tuple[Tensor, Tensor]] = {}


# The trace under way, by thread: the attention functions of transformers have no way to be handed one.
_under_way: ContextVar[_Trace] = ContextVar("trace under way")


def _attend(  # noqa: PLR0917 as transformers calls it
    module: Model,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 the operator masks by lengths
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001 there is none when a model answers
    **rest: Any,
) -> tuple[Tensor, None]:
    """Emit the operator for one layer. query [batch heads tokens d], key and value [batch kv_heads tokens d]."""
    running = _under_way.get()
    batch, heads, tokens, width = query.shape
    layer = running.layers[module.layer_idx]
    facts: dict[str, Any] = {
        "num_heads": heads,
        "kv_num_heads": key.shape[1],
        "scale": float(scaling if scaling is not None else width**-0.5),
        "do_rotary": 0,
    }
    if rest.get("softcap"):
        facts["softcap"] = float(rest["softcap"])
    if rest.get("sliding_window"):
        facts["local_window_size"] = int(rest["sliding_window"])
    output, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        (*(_merge(states) for states in (query, key, value)), layer.past_key, layer.past_value, running.seqlens_k, running.total),
        facts,
        dtypes=(query.dtype, key.dtype, value.dtype),
        shapes=((batch, tokens, heads * width), layer.past_key.shape, layer.past_value.shape),
        version=1,
    )
    running.present[module.layer_idx] = (present_key, present_value)
    return output.view(batch, tokens, heads, width), None


def _merge(states: Tensor) -> Tensor:
    """[batch heads tokens d] -> [batch tokens heads*d]."""
    batch, _, tokens, _ = states.shape
    return states.transpose(1, 2).reshape(batch, tokens, -1)


class _GroupedQuery(torch.nn.Module):
    """The model with the inputs and outputs of the graph; the head sees one position of each row."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.last = model, None
        self.handle = model.get_output_embeddings().register_forward_pre_hook(self._pick)

    def _pick(self, _head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self.last is None:
            return None
        states = args[0]
        return (states[torch.arange(states.shape[0], device=states.device), self.last][:, None],)

    def forward(
        self, inputs_embeds: Tensor, position_ids: Tensor, seqlens_k: Tensor, total: Tensor, last: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """One call of the graph."""
        running = _Trace(past, seqlens_k, total)
        before = _under_way.set(running)
        self.last = last  # type: ignore[assignment]
        try:
            output = self.model(inputs_embeds=inputs_embeds, position_ids=position_ids, past_key_values=running, use_cache=True)
        finally:
            _under_way.reset(before)
            self.last = None
        present = [tensor for layer in range(len(running.layers)) for tensor in running.present[layer]]
        return (output.logits[:, 0], *present)


def layout_of(model: Model) -> Layout:
    """The sizes of a model's decoder."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    return Layout(
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        width=model.get_input_embeddings().weight.shape[1],
        vocab=model.get_output_embeddings().weight.shape[0],
        dtype=model.dtype,
    )


def export(model: Model, path: Path, *, half: bool = False) -> Layout:
    """Write the graph of a causal model and its weights, in float16 if `half`; gives its layout.

    Raises ExportError for a model whose attention does not go through the table, or that the exporter cannot trace.
    """
    if half:
        model = copy.deepcopy(model).half()
    layout = layout_of(model)
    if layout.head_width % HEAD_STEP:
        raise ExportError(f"heads are {layout.head_width} wide, and GroupQueryAttention takes multiples of {HEAD_STEP}")
    names = [f"{kind}.{layer}" for layer in range(layout.layers) for kind in ("key", "value")]
    batch, tokens, capacity = Dim("batch"), Dim("tokens"), Dim("capacity")
    wrapped = _GroupedQuery(model).eval()
    try:
        with _attention(model):
            trace(
                wrapped,
                _example(layout, batch=2, tokens=5, capacity=16),
                path,
                sizes=({0: batch, 1: tokens}, {0: batch, 1: tokens}, {0: batch}, None, {0: batch}, [{0: batch, 2: capacity}] * len(names)),
                inputs=["inputs_embeds", "position_ids", "seqlens_k", "total", "last", *(f"past.{name}" for name in names)],
                outputs=["logits", *(f"present.{name}" for name in names)],
            )
    finally:
        wrapped.handle.remove()
    return layout


def _example(layout: Layout, *, batch: int, tokens: int, capacity: int) -> tuple[Any, ...]:
    embeds = torch.randn(batch, tokens, layout.width, dtype=layout.dtype) * 0.5
    past = [torch.zeros(batch, layout.kv_heads, capacity, layout.head_width, dtype=layout.dtype) for _ in range(2 * layout.layers)]
    held = torch.full((batch,), tokens - 1)
    positions = torch.arange(tokens)[None].repeat(batch, 1)
    return embeds, positions, held.to(torch.int32), torch.tensor([tokens], dtype=torch.int32), held, past


@contextlib.contextmanager
def _attention(model: Model) -> Iterator[None]:
    """Let the model attend through the operator for a while."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
