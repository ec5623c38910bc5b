"""GroupQueryAttention as the attention and the cache of a decoder while it is traced.

transformers sends the attention of most decoders through a table of functions (`attend` stands there meanwhile), and their
keys and values through a `Cache`, here one that hands new ones straight on: the operator appends them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

Model = Any  # a model of transformers, which is only partly annotated

# From positions of keys, int64[total], and of new tokens, int64[tokens], to what is added to the scores: float[heads tokens total].
Bias = Callable[[Tensor, Tensor], Tensor]


class _PassingLayer(CacheLayerMixin):  # type: ignore[no-untyped-call, unused-ignore]  # transformers' own __init_subclass__
    """Keeps nothing: the operator appends what `update` hands on."""

    is_sliding = False

    def __init__(self, past_key: Tensor, past_value: Tensor) -> None:
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


class Trace(Cache):
    """The cache of one trace, and what the attention function must know while it runs."""

    def __init__(self, past: list[Tensor], seqlens_k: Tensor, total: Tensor) -> None:
        super().__init__(layers=[_PassingLayer(key, value) for key, value in zip(past[::2], past[1::2], strict=True)])
        self.past, self.seqlens_k, self.total = past, seqlens_k, total
        self.present: dict[int, tuple[Tensor, Tensor]] = {}

    def positions(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Where the keys of the longest row stand, int64[total], and its new tokens, which are the last: int64[tokens]."""
        total = self.total.item()
        torch._check(total >= tokens)  # type: ignore[no-untyped-call]
        return torch.arange(total), total - tokens + torch.arange(tokens)


# The trace under way, by thread: the attention functions of transformers have no way to be handed one.
under_way: ContextVar[Trace] = ContextVar("trace under way")


def attend(  # noqa: PLR0917 as transformers calls it
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
    facts: dict[str, Any] = {}
    if rest.get("softcap"):
        facts["softcap"] = float(rest["softcap"])
    if rest.get("sliding_window"):
        facts["local_window_size"] = int(rest["sliding_window"])
    batch, heads, tokens, width = query.shape
    merged = emit(module.layer_idx, query, key, value, scale=width**-0.5 if scaling is None else scaling, facts=facts)
    return merged.view(batch, tokens, heads, width), None


def emit(
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    bias: Bias | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Tensor:
    """Emit the operator for a layer; gives float[batch tokens heads*d].

    facts  further attributes of the operator

    The operator wants a bias that is as long as the longest row. Keys lie at their own positions in every row, so one bias
    serves rows of any length; where a row is shorter, its new tokens are taken for later ones than they are, which adds the
    same to all its scores when the bias is linear in the distance, and softmax does not see that.
    """
    running = under_way.get()
    past_key, past_value = running.past[2 * layer : 2 * layer + 2]
    batch, heads, tokens, width = query.shape
    output, present_key, present_value = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        (
            *(_merge(states) for states in (query, key, value)),
            past_key,
            past_value,
            running.seqlens_k,
            running.total,
            *(() if bias is None else (None, None, None, bias(*running.positions(tokens))[None].to(query.dtype))),
        ),
        {"num_heads": heads, "kv_num_heads": key.shape[1], "scale": float(scale), "do_rotary": 0, **(facts or {})},
        dtypes=(query.dtype, key.dtype, value.dtype),
        shapes=((batch, tokens, heads * width), past_key.shape, past_value.shape),
        version=1,
    )
    running.present[layer] = (present_key, present_value)
    return output


def _merge(states: Tensor) -> Tensor:
    """[batch heads tokens d] -> [batch tokens heads*d]."""
    batch, _, tokens, _ = states.shape
    return states.transpose(1, 2).reshape(batch, tokens, -1)
