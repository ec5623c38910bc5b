"""The encoders of sound, from transformers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    mask     bool[batch samples], spans bool[batch tokens]: of encoders that hear samples and have a card, see `listening.py`
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
        if self.layer is not None:
            hidden: Tensor = self.tower(sound, output_hidden_states=True).hidden_states[self.layer]
            return hidden
        tokens: Tensor = self.tower(sound).last_hidden_state
        return tokens


def _build(config: EncoderConfig) -> Any:
    """The model of transformers; of one that is a whole, the encoder inside it by its own class."""
    inner = config.card.more.get("encoder")
    if inner is None:
        return build(config.facts(), config.card.architecture)
    module, _, name = inner.partition(":")
    return getattr(import_module(module), name)(config_of(config.facts(), config.card.architecture))
