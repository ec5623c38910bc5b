"""Models of diffusers as parts: a UNet that a loop asks, and the decoder of a VAE."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from modelgraft.plugin import Driven, InputError, SourceError, Weights, choices
from modelgraft.plugin import Problem as Fault
from modelgraft_plugins.counted import remember

try:
    import diffusers
except ImportError as error:
    raise InputError("diffusion needs the package diffusers: pip install 'modelgraft[diffusion]'") from error

# diffusers is only partly annotated: its models are `Any` here.
Model = Any


def built(name: str, config: Mapping[str, Any]) -> Model:
    """A model or scheduler of diffusers from its config, of which every key must be known to its class.

    Raises SourceError `source-damaged` for a key that it does not know, and for values that it cannot be built from.
    """
    subject: Any = getattr(diffusers, name)
    settings = {key: value for key, value in config.items() if not key.startswith("_")}  # _class_name and versions
    known = inspect.signature(subject.__init__).parameters
    unknown = [key for key in settings if key not in known]
    if unknown:
        found = f"the config of {name} has keys that diffusers {diffusers.__version__} does not know: {choices(unknown)}"
        raise SourceError(Fault("source-damaged", found, hint="install the version that wrote it, or take these keys out of the config"))
    try:
        return subject.from_config(dict(config))
    except Exception as error:  # a config from elsewhere may hold anything
        said = " ".join(str(error).split())
        found = f"diffusers cannot build {name} from its config: {type(error).__name__}: {said}"
        raise SourceError(Fault("source-damaged", found, hint="repair its config.json, or fetch it again")) from error


class Denoiser(Driven):
    """The UNet of latent diffusion, as one part."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.unet = Noise(config.unet)

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of the UNet, under the names of this version of diffusers."""
        state = weights.state()
        return {f"unet.model.{key}": tensor for key, tensor in self.unet.model._fix_state_dict_keys_on_load(state).items()}


class Noise(nn.Module):
    """The noise that a UNet sees in latents."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model: Model = built("UNet2DConditionModel", config)
        remember(config, sum(parameter.numel() for parameter in self.model.parameters()))

    def forward(self, sample: Tensor, time: Tensor, states: Tensor) -> Tensor:
        """float[batch channels rows columns], float[batch], float[batch tokens d] -> float[batch channels rows columns]."""
        noise: Tensor = self.model(sample, time, states, return_dict=False)[0]
        return noise


class LatentDecoder(nn.Module):
    """The decoder of a VAE; its encoder is not held."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        vae = built("AutoencoderKL", config.vae)
        self.scale, self.shift = config.scale, config.shift
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv
        self._renamed = [  # what older files call the blocks of attention
            name for name, module in self.named_modules() if getattr(module, "_from_deprecated_attn_block", False)
        ]

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of the decoder alone."""
        names = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
        old = {f"{path}.{before}.": f"{path}.{after}." for path in self._renamed for before, after in names.items()}
        found = {}
        for key in weights.keys():  # noqa: SIM118 a method of Weights
            if key.startswith(("decoder.", "post_quant_conv.")):
                head = next((before for before in old if key.startswith(before)), None)
                found[old[head] + key.removeprefix(head) if head else key] = weights.tensor(key)
        return found

    def forward(self, latents: Tensor) -> Tensor:
        """float[batch channels rows columns] -> float[batch 3 height width], from -1 to 1 and a little beyond."""
        inner = latents / self.scale + self.shift
        if self.post_quant_conv is not None:
            inner = self.post_quant_conv(inner)
        pixels: Tensor = self.decoder(inner)
        return pixels
