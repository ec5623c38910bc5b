"""The encoders of sound, from transformers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft_plugins.audio.listening import Listener
from modelgraft_plugins.counted import remember
from modelgraft_plugins.huggingface import build, config_of, convert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgraft.plugin import Weights
    from modelgraft_plugins.audio import Encoder as EncoderConfig


class Encoder(nn.Module):
    """An encoder of transformers: two convolutions that halve the number of frames and a transformer, or one that takes samples.

    sound    float[batch mels frames], or float[batch samples]
    mask     bool[batch samples], spans bool[batch tokens]: of encoders that hear samples and have a card, see `listening.py`;
             bool[batch frames] of those that tell features of sound from what fills it up
    returns  float[batch tokens hidden_size], after the last norm; of those with a card a dict of tokens and what they came from
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.layer = config, config.layer
        self.tower: Any = _build(config)  # Any: transformers is only partly annotated
        self.listener = Listener(config) if config.hears_samples else None
        if config.card.count is None:
            remember(config.facts(), sum(parameter.numel() for parameter in self.tower.parameters()))

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of the encoder under the names that they have here."""
        if "encoder" in self.config.card.more:  # a part of a whole, whose tensors have the names of memory
            return {f"tower.{name}": tensor for name, tensor in weights.state().items()}
        state = weights.state() if self.listener is None else self.listener.own(weights.state())
        return convert(state, self.tower, prefix="tower.")

    def forward(self, sound: Tensor, mask: Tensor | None = None, spans: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Listen."""
        if self.listener is not None:
            return self.listener(self.tower, sound, mask, spans)
        if self.config.tells_frames:
            return self._with_mask(sound, mask)
        if self.layer is not None:
            hidden: Tensor = self.tower(sound, output_hidden_states=True).hidden_states[self.layer]
            return hidden
        tokens: Tensor = self.tower(sound).last_hidden_state
        return tokens

    def _with_mask(self, features: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """features float[batch mels frames], mask bool[batch frames]: places look at those that are made of sound alone.

        A place is made of sound where its first frame is, and a vector where both of its places are: so do transformers count them.
        """
        there = features.new_ones(features.shape[0], features.shape[2], dtype=torch.bool) if mask is None else mask
        places = there[:, ::2]
        looked_at = places[:, None, None].expand(-1, 1, places.shape[1], -1)
        tokens = self.tower(features, attention_mask=looked_at).last_hidden_state
        return {"tokens": tokens, "frame_mask": places[:, 1::2]}


def _build(config: EncoderConfig) -> Any:
    """The model of transformers; of one that is a whole, the encoder inside it by its own class."""
    inner = config.card.more.get("encoder")
    if inner is None:
        return build(config.facts(), config.card.architecture)
    module, _, name = inner.partition(":")
    return getattr(import_module(module), name)(config_of(config.facts(), config.card.architecture))
