"""A whole generator of sounds: its parts in one module, and its loop, which is that of the separate components one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import Audio, Driven, LoadContext, Loop, NodeRuntime, Weights
from modelgraft_plugins.diffusion.denoising import Denoise
from modelgraft_plugins.diffusion.sound_modules import Clap, MelDecoder, Noise
from modelgraft_plugins.diffusion.whole_reading import cut, tokenizer_beside
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
        unet = self.unet.model._fix_state_dict_keys_on_load(weights.sub("unet").state())
        found = {f"unet.model.{key}": tensor for key, tensor in unet.items()}
        for name, folder in (("text", "text_encoder"), ("decode", "vae"), ("vocoder", "vocoder")):
            part: Any = getattr(self, name)
            found |= {f"{name}.{key}": tensor for key, tensor in part.from_checkpoint(weights.sub(folder)).items()}
        return found


class Sound(Loop):
    """Reads a text, takes the steps, decodes what comes of them into bands, and these into a sound."""

    config: TextToAudio
    runtime: NodeRuntime

    def prepare(self, context: LoadContext) -> None:
        """Open the tokenizer where a text is read, and make a scheduler once."""
        self.node, self.names = context.node.name, tuple(self.config.ports().inputs)
        self.denoiser = self.config.denoiser
        self.denoising = Denoise(self.denoiser, self.facts)
        self.denoising.prepare(context)
        reads = "prompt" in context.node.wired or (self.denoiser.is_guided and "negative_prompt_embeds" not in context.node.wired)
        self.tokenizer = tokenizer_beside(context) if reads and context.node.wired else None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime
        self.denoising.bind(runtime)

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Mapping[str, Any]:
        """What the ports of the config give -> `latents`, and `audio` where somebody hears it."""
        given = dict(zip(self.names, values, strict=False))
        towards = given["prompt_embeds"]
        towards = self._read(given["prompt"], parts) if towards is None else towards
        asked = [towards]
        if self.denoiser.is_guided:
            away = given["negative_prompt_embeds"]
            asked.append(self._read(given["negative"] or [""] * len(towards), parts) if away is None else away)
        latents = self.denoising.run([*asked, given["latents"], given["schedule"]], parts, wanted=wanted)
        return {"latents": latents, **({"audio": self._heard(latents, parts)} if "audio" in wanted else {})}

    def _read(self, texts: Sequence[str], parts: Mapping[str, Any]) -> Tensor:
        """The vectors of texts."""
        assert self.tokenizer is not None  # opened where a text is read
        ids, mask = cut(self.tokenizer, texts, most=self.config.reader.most()["text_tokens"], padding="longest", say=self._say)
        vectors: Tensor = parts["text"](ids.to(torch.int64), mask.bool())
        return vectors

    def _say(self, text: str) -> None:
        self.runtime.emit("warning", text=text)

    def _heard(self, latents: Tensor, parts: Mapping[str, Any]) -> list[Audio]:
        """Bands, samples, and of these the seconds that were asked for."""
        samples = parts["vocoder"](parts["decode"](latents)).to("cpu", torch.float32)
        rate = self.denoiser.sample_rate_hz
        return [Audio(row[None, : int(self.denoiser.seconds * rate)].contiguous().numpy(), rate) for row in samples]
