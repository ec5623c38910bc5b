"""The encoder of Whisper, from transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgraft.plugin import Weights
    from modelgraft_plugins.audio import Encoder as EncoderConfig


class Encoder(nn.Module):
    """Two convolutions that halve the number of frames, and a transformer.

    features  float[batch mels frames]
    returns   float[batch frames/2 hidden_size], after the last norm
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.tower: Any = WhisperEncoder(whisper_config(config))  # Any: transformers is only partly annotated

    @staticmethod
    def from_checkpoint(_config: EncoderConfig, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of the part `encoder` under the names that they have here."""
        return {f"tower.{name}": tensor for name, tensor in weights.state().items()}

    def forward(self, features: Tensor) -> Tensor:
        """Listen."""
        tokens: Tensor = self.tower(features).last_hidden_state
        return tokens


def whisper_config(config: EncoderConfig) -> WhisperConfig:
    """The same facts as transformers names them."""
    return WhisperConfig(
        d_model=config.hidden_size, encoder_ffn_dim=config.intermediate_size, encoder_layers=config.num_hidden_layers,
        encoder_attention_heads=config.num_attention_heads, num_mel_bins=config.mels, max_source_positions=config.positions,
        activation_function=config.hidden_act, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, encoder_layerdrop=0.0,
    )  # fmt: skip
