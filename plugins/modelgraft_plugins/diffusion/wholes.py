"""A whole generator of pictures: its parts in one module, and its loop, which is that of the separate components one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import Driven, LoadContext, Loop, NodeRuntime, Weights
from modelgraft_plugins.diffusion.denoising import Denoise
from modelgraft_plugins.diffusion.pictures import of_picture, pictures_of
from modelgraft_plugins.diffusion.prompting import Prompting
from modelgraft_plugins.diffusion.text_encoders import Encoders
from modelgraft_plugins.diffusion.transformer import Flowing
from modelgraft_plugins.diffusion.unet import Denoiser
from modelgraft_plugins.diffusion.vae import LatentDecoder, LatentEncoder


class Whole(Driven):
    """Text encoders, the model under the name of its folder, and the halves of the VAE."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        painter = config.painter
        self.inner = (Encoders(config.prompting), (Flowing if painter.part == "transformer" else Denoiser)(painter))
        for module in self.inner:
            for name, part in module.named_children():
                self.add_module(name, part)
        self.decode = LatentDecoder(config.decoder)
        if hasattr(config, "encoder"):
            self.encode = LatentEncoder(config.encoder)

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of all parts, each from the folder that it has."""
        encoders, asking = self.inner
        found = {**encoders.from_checkpoint(weights), **asking.from_checkpoint(weights.sub(asking.part))}
        for name in ("decode", "encode"):
            if (half := getattr(self, name, None)) is not None:
                found |= {f"{name}.{key}": tensor for key, tensor in half.from_checkpoint(weights.sub("vae")).items()}
        return found

    def after_load(self) -> None:
        """Tie what files hold once."""
        self.inner[0].after_load()

    def prepare(self, context: LoadContext) -> None:
        """Keep the halves of the VAE in float32 where float16 is too narrow."""
        for half in (self.decode, getattr(self, "encode", None)):
            if half is not None:
                half.prepare(context)


class Paint(Loop):
    """Reads a prompt, takes the steps, and decodes what comes of them."""

    runtime: NodeRuntime

    def prepare(self, context: LoadContext) -> None:
        """Open tokenizers where a text is read, and make a scheduler once."""
        self.names = tuple(self.config.ports().inputs)
        self.painter = self.config.painter
        self.denoising, self.prompting = Denoise(self.painter, self.facts), Prompting(self.config.prompting, self.facts)
        self.denoising.prepare(context)
        reads = "prompt" in context.node.wired or (self.painter.is_guided and "negative_prompt_embeds" not in context.node.wired)
        if reads or not context.node.wired:
            self.prompting.prepare(context)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.denoising.bind(runtime)
        self.prompting.bind(runtime)

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Mapping[str, Any]:
        """What the ports of the config give -> `latents`, and `image` where somebody reads it."""
        given = dict(zip(self.names, values, strict=False))
        asked = self._asked(given, parts)
        if "image" in given:
            painter, like = self.painter, asked["states"]
            pixels = torch.stack([of_picture(one, height=painter.height, width=painter.width) for one in given["image"]])
            asked["start"] = parts["encode"](pixels.to(like))
        asked |= {"latents": given["latents"], "schedule": given["schedule"]}
        latents = self.denoising.denoised(asked, parts[self.painter.part])
        return {"latents": latents, **({"image": pictures_of(parts["decode"](latents))} if "image" in wanted else {})}

    def _asked(self, given: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
        """What the loop is asked with: states, and a vector where the model reads one, of what is wanted and of what is not."""
        states, pooled = given["prompt_embeds"], given.get("pooled")
        if states is None:
            states, pooled = self.prompting.read(given["prompt"], parts)
        found = {"states": states, "pooled": pooled}
        if not self.painter.is_guided:
            return found
        away, vector = given["negative_prompt_embeds"], given.get("negative_pooled")
        if away is None and given["negative"] is None and self.config.blank:
            away, vector = torch.zeros_like(states), None if pooled is None else torch.zeros_like(pooled)
        elif away is None:
            away, vector = self.prompting.read(given["negative"] or [""] * len(states), parts)
        return {**found, "negative": away, "negative_pooled": vector}
