"""Codecs of transformers, a half at a time: the encoder or the decoder, with the code books that both have."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from modelgraft.plugin import Driven, Weights
from modelgraft_plugins.counted import remember
from modelgraft_plugins.huggingface import build, convert

if TYPE_CHECKING:
    from modelgraft_plugins.vocoder.codecs import Codec, Encode

CLASSES = {"encodec": "EncodecModel", "dac": "DacModel", "mimi": "MimiModel"}


class Half(nn.Module):
    """A codec without one of its sides.

    left_out  the name of the side that is not held
    """

    left_out, held = "decoder", "encoder"

    def __init__(self, config: Codec) -> None:
        super().__init__()
        self.kind = config.kind
        self.model: Any = build(config.model, CLASSES[config.kind])  # Any: transformers is only partly annotated
        setattr(self.model, self.left_out, None)
        remember(config.facts(self.held), sum(parameter.numel() for parameter in self.model.parameters()))

    def state_from(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of this half under the names of memory."""
        found = convert(weights.state(), self.model)
        return {f"model.{key}": tensor for key, tensor in found.items() if not key.startswith(f"{self.left_out}.")}


class Encoder(Half):
    """From sounds to codes."""

    def __init__(self, config: Encode) -> None:
        super().__init__(config)
        self.used = config.used

    def forward(self, samples: Tensor) -> Tensor:
        """float[batch channels samples] -> int64[batch used frames]."""
        if self.kind == "encodec":
            quantizer = self.model.quantizer
            between = (self.used + 0.5) * log2(quantizer.codebook_size) * quantizer.frame_rate / 1000  # it is rounded down to books
            codes: Tensor = self.model._encode_frame(samples, between)[0]
        elif self.kind == "dac":
            codes = self.model.encode(samples, n_quantizers=self.used).audio_codes
        else:
            codes = self.model.encode(samples, num_quantizers=self.used).audio_codes
        return codes


class Decoder(Half):
    """From codes to sounds."""

    left_out, held = "encoder", "decoder"

    def forward(self, codes: Tensor) -> Tensor:
        """int64[batch codebooks frames] -> float[batch channels samples]."""
        if self.kind == "encodec":
            samples: Tensor = self.model._decode_frame(codes)
        elif self.kind == "dac":
            samples = self.model.decode(audio_codes=codes).audio_values[:, None]
        else:
            samples = self.model.decode(codes).audio_values
        return samples


class Encoding(Driven):
    """The encoder, as one part."""

    def __init__(self, config: Encode) -> None:
        super().__init__()
        self.encode = Encoder(config)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Its tensors."""
        return {f"encode.{key}": tensor for key, tensor in self.encode.state_from(weights).items()}


class Decoding(Driven):
    """The decoder, as one part."""

    def __init__(self, config: Codec) -> None:
        super().__init__()
        self.decode = Decoder(config)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Its tensors."""
        return {f"decode.{key}": tensor for key, tensor in self.decode.state_from(weights).items()}
