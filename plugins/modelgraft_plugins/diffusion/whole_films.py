"""A whole generator of films: its parts in one module, and its loop, which is that of the separate components one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import Driven, Weights
from modelgraft_plugins.diffusion.film_modules import FilmDecoder, Noise
from modelgraft_plugins.diffusion.films import films
from modelgraft_plugins.diffusion.whole_film import TextToVideo
from modelgraft_plugins.diffusion.whole_reading import Reading, tensors_of
from modelgraft_plugins.huggingface import build, convert


class Folded(FilmDecoder):
    """The decoder of a VAE that is held whole."""

    held = ("encoder", "quant_conv", "decoder", "post_quant_conv")


class States(nn.Module):
    """The text encoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model: Any = build(config, "CLIPTextModel")  # Any: transformers is only partly annotated

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """Its tensors."""
        return convert(weights.state(), self.model, prefix="model.")

    def forward(self, ids: Tensor) -> Tensor:
        """int64[batch tokens] -> float[batch tokens d], of what fills up too."""
        states: Tensor = self.model(input_ids=ids).last_hidden_state
        return states


class Whole(Driven):
    """Text encoder, UNet and VAE."""

    def __init__(self, config: TextToVideo) -> None:
        super().__init__()
        self.text = States(config.text)
        self.unet = Noise("UNet3DConditionModel", config.denoiser.unet)
        self.decode = Folded(config.decoder)

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of all parts, each from the folder that it has."""
        return tensors_of(self, weights, {"text": "text_encoder", "decode": "vae"})


class Film(Reading):
    """Reads a text, takes the steps, and decodes what comes of them into frames."""

    config: TextToVideo

    def read(self, texts: Sequence[str], parts: Mapping[str, Any]) -> Tensor:
        """The states of texts, all of one length."""
        ids, _ = self.cut(texts, most=self.config.length, padding="max_length")
        states: Tensor = parts["text"](ids.to(torch.int64))
        return states

    def made(self, latents: Tensor, parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Mapping[str, Any]:
        """`video`, where somebody looks at it."""
        return {"video": films(parts["decode"](latents), rate_hz=self.config.rate_hz)} if "video" in wanted else {}
