"""Latents from noise, from pictures, and as pixels: what stands before and behind a loop. Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Config, Dim, Ports, component, port
from modelgraft_plugins.diffusion.counts import conv, residual
from modelgraft_plugins.diffusion.spaces import COLOURS, latents
from modelgraft_plugins.diffusion.stepping import refuse_other

if TYPE_CHECKING:
    from modelgraft.plugin import Source

VAE = "AutoencoderKL"


class Folding(Config):
    """What both halves of a VAE are told.

    vae  its config, as in vae/config.json
    """

    vae: dict[str, Any] = Field({}, description="the config of the VAE")
    channels: int = Field(4, gt=0, description="channels of latents")
    shrink: int = Field(8, gt=0, description="pixels of a side for each latent")
    scale: float = Field(0.18215, gt=0, description="what latents are multiplied with")
    shift: float = Field(0.0, description="what is taken from latents before")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of the VAE."""
        vae = source.config
        refuse_other(vae, VAE)
        found = {"vae": vae, "channels": vae.get("latent_channels", 4), "shrink": shrink_of(vae), "shift": vae.get("shift_factor") or 0.0}
        return {**found, "scale": vae.get("scaling_factor", 0.18215)}

    @property
    def pixels(self) -> Any:
        """The type of pixels."""
        return port(f"float[batch 3 {self.shrink}*rows {self.shrink}*columns]", space=COLOURS)

    @property
    def latents(self) -> Any:
        """The type of latents."""
        return latents("batch channels rows columns", self.scale, self.shift)

    @property
    def middle(self) -> int:
        """Parameters of the block in the middle: two pairs of convolutions, with one attention between them."""
        top: int = self.vae.get("block_out_channels", [64])[-1]
        return 2 * residual(top, top) + (2 * top + 4 * (top * top + top)) * bool(self.vae.get("mid_block_add_attention", True))


@component("diffusion/decode", kind="generator", module="modelgraft_plugins.diffusion.vae:LatentDecoder", exportable=True)
class Decode(Folding):
    """Turn latents into pixels from -1 to 1, with the decoder of a VAE.

    vae  its config, as in vae/config.json
    """

    def ports(self) -> Ports:
        """Latents in, `shrink` times as many pixels a side out."""
        return Ports.of({"latents": self.latents}, {"pixels": self.pixels})

    def parameters(self) -> int:
        """Count the decoder: convolutions of 3 x 3, pairs of them in residual blocks, and one attention in the middle."""
        sizes: list[int] = self.vae.get("block_out_channels", [64])[::-1]
        top, rounds = sizes[0], 1 + int(self.vae.get("layers_per_block", 1))
        up, before = 0, top
        for index, size in enumerate(sizes):
            up += residual(before, size) + (rounds - 1) * residual(size, size)
            up += (index < len(sizes) - 1) * conv(size, size)
            before = size
        colours: int = self.vae.get("out_channels", 3)
        outside = (self.channels**2 + self.channels) * bool(self.vae.get("use_post_quant_conv", True))
        return conv(self.channels, top) + self.middle + up + 2 * before + conv(before, colours) + outside


@component("diffusion/encode", kind="generator", module="modelgraft_plugins.diffusion.vae:LatentEncoder", exportable=True)
class Encode(Folding):
    """Turn pixels from -1 to 1 into latents, with the encoder of a VAE: where a picture is to begin with another.

    vae  its config, as in vae/config.json

    It gives the middle of where latents may lie; with `noise`, the latents that lie so far from it.
    """

    def ports(self) -> Ports:
        """Pixels in, of a side that `shrink` divides, and latents out."""
        noise = "optional[float[batch channels rows columns]]"
        return Ports.of({"pixels": self.pixels, "noise": noise}, {"latents": self.latents})

    def multiples(self) -> Mapping[str, int]:
        """Pixels that make whole latents."""
        return {"rows": 1, "columns": 1}

    def parameters(self) -> int:
        """Count the encoder, whose blocks go down by a convolution each, and which gives two numbers for each latent."""
        sizes: list[int] = self.vae.get("block_out_channels", [64])
        rounds, down, before = int(self.vae.get("layers_per_block", 1)), 0, sizes[0]
        for index, size in enumerate(sizes):
            down += residual(before, size) + (rounds - 1) * residual(size, size)
            down += (index < len(sizes) - 1) * conv(size, size)
            before = size
        colours, both = int(self.vae.get("in_channels", 3)), 2 * self.channels
        outside = (both**2 + both) * bool(self.vae.get("use_quant_conv", True))
        return conv(colours, sizes[0]) + down + self.middle + 2 * before + conv(before, both) + outside


@component("diffusion/noise", kind="generator", load="modelgraft_plugins.diffusion.noise:load", random=True, cache=False)
class Noise(Config):
    """Draw the noise that a loop begins with, by the seed of the run and a number: another number, another picture.

    Its sizes are those of the loop that reads it. Without `number` there is one noise, for all records of a batch.
    """

    channels: Dim = None
    rows: Dim = None
    columns: Dim = None

    def ports(self) -> Ports:
        """The number of an ask in, such as that of router/repeat; noise out."""
        return Ports.of({"number": "optional[int64[batch]]"}, {"latents": "float[batch channels rows columns]"})


def shrink_of(vae: Mapping[str, Any]) -> int:
    """Pixels of a side for each latent: every block of a VAE but the last halves."""
    return int(2 ** (len(vae.get("block_out_channels") or (0,) * 4) - 1))
