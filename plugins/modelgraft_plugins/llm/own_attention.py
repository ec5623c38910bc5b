"""Attention of families that transformers does not send through its table, as their modules compute it with the operator.

All that comes before and after attention stays theirs: projections, rotation, and how strongly each head minds distances
(ALiBi, arXiv 2108.12409). A mask that the model makes is left unread, because the operator masks by lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.models.bloom import modeling_bloom
from transformers.models.falcon import modeling_falcon

from modelgraft_plugins.llm.grouped_attention import Bias, emit

Module = Any  # an attention module of transformers, which is only partly annotated
bloom: Any = modeling_bloom  # as its functions are
falcon: Any = modeling_falcon


def _mpt(module: Module, hidden_states: Tensor, position_bias: Tensor, **_rest: Any) -> tuple[Tensor, None]:
    """MptAttention. position_bias float[heads 1 length]: rises by a head's slope from key to key, and ends at 0."""
    mixed = module.Wqkv(hidden_states)
    if module.clip_qkv:
        mixed = mixed.clamp(min=-module.clip_qkv, max=module.clip_qkv)
    query, key, value = (part.unflatten(-1, (module.n_heads, -1)).transpose(1, 2) for part in mixed.chunk(3, dim=2))
    slopes = -position_bias[:, 0, -2]
    return module.out_proj(emit(module.layer_idx, query, key, value, scale=module.softmax_scale, bias=_linear(slopes))), None


def _bloom(module: Module, hidden_states: Tensor, residual: Tensor, *_args: Any, **_rest: Any) -> tuple[Tensor, None]:
    """BloomAttention, which adds the residual itself."""
    query, key, value = module._reshape(module.query_key_value(hidden_states))
    two_keys = torch.ones(1, 2, dtype=torch.int64)
    slopes: Tensor = bloom.build_alibi_tensor(two_keys, module.num_heads, torch.float32)[:, 0, 1]
    merged = emit(module.layer_idx, query, key, value, scale=module.inv_norm_factor, bias=_linear(slopes))
    return module.dense(merged) + residual, None


def _falcon(module: Module, hidden_states: Tensor, alibi: Tensor | None = None, **rest: Any) -> tuple[Tensor, None]:
    """FalconAttention. Its groups share keys and values; transformers repeats them, and here the operator reads them once."""
    query, key, value = (states.transpose(1, 2) for states in module._split_heads(module.query_key_value(hidden_states)))
    if module.new_decoder_architecture:
        group = module.num_heads // module.num_kv_heads
        key, value = key[:, ::group], value[:, ::group]
    if alibi is None:
        query, key = falcon.apply_rotary_pos_emb(query, key, *rest["position_embeddings"])
    bias = None if alibi is None else _rounded(module)
    return module.dense(emit(module.layer_idx, query, key, value, scale=module.inv_norm_factor, bias=bias)), None


def _linear(slopes: Tensor) -> Bias:
    """How far a key lies before a token, times the slope of the head, float[heads]."""

    def bias(keys: Tensor, tokens: Tensor) -> Tensor:
        return slopes[:, None, None] * (keys[None] - tokens[:, None])

    return bias


def _rounded(module: Module) -> Bias:
    """As Falcon computes ALiBi: slope, position and product each in bfloat16, then scaled as the scores are."""
    two_keys = torch.ones(1, 2, dtype=torch.int64)
    slopes: Tensor = falcon.build_alibi_tensor(two_keys, module.num_heads, torch.float32)[:, 0, 1]

    def bias(keys: Tensor, tokens: Tensor) -> Tensor:
        products = _as_bfloat16(slopes[:, None] * _as_bfloat16(keys))  # exact in float32 until it is rounded: 8 by 8 bits
        return (products * float(module.inv_norm_factor))[:, None].expand(-1, tokens.shape[0], -1)

    return bias


def _as_bfloat16(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16).float()


# Class of the attention module -> its forward while a model is traced.
OWN: Mapping[str, Callable[..., tuple[Tensor, None]]] = {"MptAttention": _mpt, "BloomAttention": _bloom, "FalconAttention": _falcon}
