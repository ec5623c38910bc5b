"""A whole generator of films: its parts in one module, and its loop, which is that of the separate components one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import Driven, LoadContext, Loop, NodeRuntime, Weights
from modelgraft_plugins.diffusion.denoising import Denoise
from modelgraft_plugins.diffusion.film_modules import FilmDecoder, Noise
from modelgraft_plugins.diffusion.films import films
from modelgraft_plugins.diffusion.whole_film import TextToVideo
from modelgraft_plugins.diffusion.whole_reading import cut, tokenizer_beside
from modelgraft_plugins.huggingface import build, convert


class Folded(FilmDecoder):
    """The decoder of a VAE that is held whole."""

    held = ("encoder", "quant_conv", "decoder", "post_quant_conv")


class Reading(nn.Module):
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
        self.text = Reading(config.text)
        self.unet = Noise("UNet3DConditionModel", config.denoiser.unet)
        self.decode = Folded(config.decoder)

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of all parts, each from the folder that it has."""
        unet = self.unet.model._fix_state_dict_keys_on_load(weights.sub("unet").state())
        found = {f"unet.model.{key}": tensor for key, tensor in unet.items()}
        for name, folder in (("text", "text_encoder"), ("decode", "vae")):
            part: Any = getattr(self, name)
            found |= {f"{name}.{key}": tensor for key, tensor in part.from_checkpoint(weights.sub(folder)).items()}
        return found


class Film(Loop):
    """Reads a text, takes the steps, and decodes what comes of them into frames."""

    config: TextToVideo
    runtime: NodeRuntime

    def prepare(self, context: LoadContext) -> None:
        """Open the tokenizer where a text is read, and make a scheduler once."""
        self.names, self.denoiser = tuple(self.config.ports().inputs), self.config.denoiser
        self.denoising = Denoise(self.denoiser, self.facts)
        self.denoising.prepare(context)
        reads = "prompt" in context.node.wired or (self.denoiser.is_guided and "negative_prompt_embeds" not in context.node.wired)
        self.tokenizer = tokenizer_beside(context) if reads and context.node.wired else None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime
        self.denoising.bind(runtime)

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Mapping[str, Any]:
        """What the ports of the config give -> `latents`, and `video` where somebody looks at it."""
        given = dict(zip(self.names, values, strict=False))
        towards = given["prompt_embeds"]
        towards = self._read(given["prompt"], parts) if towards is None else towards
        asked = [towards]
        if self.denoiser.is_guided:
            away = given["negative_prompt_embeds"]
            asked.append(self._read(given["negative"] or [""] * len(towards), parts) if away is None else away)
        latents = self.denoising.run([*asked, given["latents"], given["schedule"]], parts, wanted=wanted)
        return {
            "latents": latents,
            **({"video": films(parts["decode"](latents), rate_hz=self.config.rate_hz)} if "video" in wanted else {}),
        }

    def _read(self, texts: Sequence[str], parts: Mapping[str, Any]) -> Tensor:
        """The states of texts, all of one length."""
        assert self.tokenizer is not None  # opened where a text is read
        ids, _ = cut(self.tokenizer, texts, most=self.config.length, padding="max_length", say=self._say)
        states: Tensor = parts["text"](ids.to(torch.int64))
        return states

    def _say(self, text: str) -> None:
        self.runtime.emit("warning", text=text)
