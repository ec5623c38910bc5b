"""Prompts whose tokens see each other in both directions, all of them (PaliGemma) or those of one picture (Gemma 3): their mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_masks_for_generate

from modelgraft_plugins.llm.known import family_of


def prompt_mask(
    model: Any, embedded: Tensor, mask: Tensor | None, cache: Any, positions: Tensor, *, blocks: Sequence[Tensor] | None = None
) -> Any:
    """The mask of a prompt in the form that the model wants it in: of 4 axes, or one for each kind of its layers.

    embedded   float[batch tokens width];  mask  bool[batch tokens]: what is no padding; None: all of it
    positions  int64[1 tokens] or int64[batch tokens]
    blocks     of each row int64[its tokens]: which of them see each other, those of one number, none where it is -1; None: all
    """
    together = torch.zeros(embedded.shape[:2], dtype=torch.int64, device=embedded.device)  # one block, which sees itself
    for row, block in zip(together, blocks or (), strict=False):
        row.fill_(-1)
        row[len(row) - len(block) :] = block
    config = model.config.get_text_config()
    return _maker(config.model_type)(
        config=config,
        inputs_embeds=embedded,
        attention_mask=mask,
        past_key_values=cache,
        position_ids=positions,
        block_sequence_ids=together,
    )


def _maker(kind: str) -> Callable[..., Any]:
    """What makes masks with blocks: of a model type whose windows go over its blocks, the function that its card names."""
    named = family_of(kind).more.get("media_mask")
    if named is None:
        return create_masks_for_generate
    module, _, name = named.partition(":")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]


def block_masks(model: Any, embedded: Tensor, attention_mask: Tensor, blocks: Tensor) -> Any:
    """The same mask of the last tokens alone, in plain operations, so that a graph can be traced of it: added to the scores.

    embedded        float[batch tokens width]: those that are new
    attention_mask  int64[batch places], 1 where one stands;  blocks  int64[batch places], as above
    returns         float[batch 1 tokens places], or one for each kind of the model's layers. A place that is filled up sees itself,
                    so that no row of scores is empty.
    """
    tokens, dtype = embedded.shape[1], embedded.dtype
    held = torch.ones_like(attention_mask[0]).cumsum(0) - 1  # counted, for a range of open size cannot be traced here
    new = torch.ones_like(embedded[0, :, 0], dtype=torch.int64).cumsum(0) - 1 + (attention_mask.shape[1] - tokens)
    mine = blocks.index_select(1, new)[..., None]
    new, held = new[:, None], held[None]
    together = (mine == blocks[:, None]) & (mine >= 0)
    onward, there = (held <= new)[None], (attention_mask[:, None] > 0) | (held == new)[None]
    config = model.config.get_text_config()
    masks = {"full_attention": (onward | together) & there}
    if window := getattr(config, "sliding_window", None):
        near = (held > new - window)[None]
        is_within = family_of(config.model_type).more.get("media_mask") is not None
        masks["sliding_attention"] = (near & (onward | together) if is_within else (near & onward) | together) & there
    added = {kind: torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)[:, None] for kind, mask in masks.items()}
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return added if "sliding_attention" in kinds else added["full_attention"]
