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
