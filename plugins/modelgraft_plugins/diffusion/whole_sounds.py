"""A whole generator of sounds: its parts in one module, and its loop, which is that of the separate components one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import Audio, Driven, Weights
from modelgraft_plugins.diffusion.sound_modules import Clap, MelDecoder, Noise
from modelgraft_plugins.diffusion.whole_reading import Reading, tensors_of
from modelgraft_plugins.diffusion.whole_sound import TextToAudio
from modelgraft_plugins.huggingface import build, convert


class Folded(MelDecoder):
    """The decoder of a VAE that is held whole."""

    held = ("encoder", "quant_conv", "decoder", "post_quant_conv")


class Speaking(nn.Module):
    """The vocoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model: Any = build(config, "SpeechT5HifiGan")  # Any: transformers is only partly annotated

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """Its tensors."""
        return convert(weights.state(), self.model, prefix="model.")

    def forward(self, mel: Tensor) -> Tensor:
        """float[batch frames mels] -> float[batch samples]."""
        samples: Tensor = self.model(mel)
        return samples


class Whole(Driven):
    """Text encoder, UNet, VAE and vocoder."""

    def __init__(self, config: TextToAudio) -> None:
        super().__init__()
        self.text = Clap(config.reader)
        self.unet = Noise("UNet2DConditionModel", config.denoiser.unet)
        self.decode = Folded(config.decoder)
        self.vocoder = Speaking(config.vocoder)
        self.optional_keys = tuple(f"text.{key}" for key in self.text.optional_keys)

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of all parts, each from the folder that it has."""
        return tensors_of(self, weights, {"text": "text_encoder", "decode": "vae", "vocoder": "vocoder"})


class Sound(Reading):
    """Reads a text, takes the steps, decodes what comes of them into bands, and these into a sound."""

    config: TextToAudio

    def read(self, texts: Sequence[str], parts: Mapping[str, Any]) -> Tensor:
        """The vectors of texts."""
        ids, mask = self.cut(texts, most=self.config.reader.most()["text_tokens"], padding="longest")
        vectors: Tensor = parts["text"](ids.to(torch.int64), mask.bool())
        return vectors

    def made(self, latents: Tensor, parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Mapping[str, Any]:
        """`audio`, where somebody hears it: bands, samples, and of these the seconds that were asked for."""
        if "audio" not in wanted:
            return {}
        samples = parts["vocoder"](parts["decode"](latents)).to("cpu", torch.float32)
        rate = self.config.denoiser.sample_rate_hz
        return {"audio": [Audio(row[None, : int(self.config.seconds * rate)].contiguous().numpy(), rate) for row in samples]}
