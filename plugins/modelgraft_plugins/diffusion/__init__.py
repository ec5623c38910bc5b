"""Pictures out of noise: the denoising loop of latent diffusion around a UNet of diffusers, and the decoder of its latents.

Needs the extra `diffusion`, when a node is loaded and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Config, Dim, Ports, Space, component, hookimpl, port
from modelgraft_plugins.counted import counted

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

UNET, VAE = "UNet2DConditionModel", "AutoencoderKL"
RECORDED = Path(__file__).parent / "recorded"

# Keys of a UNet's config that make it read more than latents, a time and the states of a text: at these values they do nothing.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "addition_embed_type": (None,),
    "addition_embed_type_num_heads": (64, None),
    "class_embed_type": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_class_embeds": (None,),
    "time_cond_proj_dim": (None,),
}


def latents(axes: str, scale: float) -> Any:
    """The type of latents; those of another scale mean something else."""
    return port(f"float[{axes}]", space=Space.of("latent", scale=scale))


@component(
    "diffusion/denoise",
    kind="generator",
    module="modelgraft_plugins.diffusion.modules:Denoiser",
    loop="modelgraft_plugins.diffusion.denoising:Denoise",
    exportable=True,
    random=True,
)
class Denoise(Config):
    """Turn noise into latents of a picture, step by step, as the states of a text say.

    unet       the config of the UNet, as in unet/config.json;  scheduler  that of the steps, as in scheduler/scheduler_config.json
    steps      how often the UNet is asked
    guidance   how far the answer is pushed from that to `negative` towards that to `states`; 1 asks with `states` alone
    eta        how much noise DDIM adds at each step; other schedulers have none such
    height, width  of the picture, in pixels: multiples of `shrink`

    `latents` are the noise to begin with; without them it is drawn by the seed, the same for each record of a batch.
    """

    unet: dict[str, Any] = Field({}, description="the config of the UNet")
    scheduler: dict[str, Any] = Field({}, description="the config of the scheduler, with its class under _class_name")
    steps: int = Field(50, gt=0, le=1000)
    guidance: float = Field(7.5, ge=1)
    eta: float = Field(0.0, ge=0, le=1)
    height: int = Field(512, gt=0)
    width: int = Field(512, gt=0)
    shrink: int = Field(8, gt=0, description="pixels of a side for each latent; worked out from the VAE beside the UNet")
    channels: int = Field(4, gt=0, description="channels of latents")
    d: Dim = Field(None, description="width of the text's states")
    scale: float = Field(0.18215, gt=0, description="what latents are multiplied with; worked out from the VAE beside the UNet")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a folder in the layout of diffusers."""
        unet, scheduler = source.config, source.root.get("scheduler_config")
        _refuse_other(unet, UNET)
        if scheduler is None:
            raise ValueError("there is no scheduler/scheduler_config.json beside the UNet: name the whole folder with #unet behind it")
        for key, fine in PLAIN.items():
            if unet.get(key) not in (*fine, None):
                raise ValueError(f"the UNet has {key}: {unet[key]!r}, and diffusion/denoise gives it a text's states alone")
        vae = source.root.get("vae_config") or {}
        shrink = shrink_of(vae)
        size = unet.get("sample_size") or 64
        high, wide = size if isinstance(size, list) else (size, size)
        return {
            "unet": unet,
            "scheduler": scheduler,
            "channels": unet.get("in_channels", 4),
            "d": _width(unet),
            "shrink": shrink,
            "scale": vae.get("scaling_factor", 0.18215),
            "height": high * shrink,
            "width": wide * shrink,
        }

    @property
    def rows(self) -> int:
        """Rows of latents."""
        return self.height // self.shrink

    @property
    def columns(self) -> int:
        """Columns of latents."""
        return self.width // self.shrink

    def ports(self) -> Ports:
        """States of texts in, latents out; `negative` where there is something to be pushed from."""
        grid = latents("batch channels rows columns", self.scale)
        away = {"negative": "float[batch away_tokens d]"} if self.guidance > 1 else {}
        return Ports.of(
            {"states": "float[batch tokens d]", **away, "latents": port(f"optional[{grid}]", space=grid.space)}, {"latents": grid}
        )

    def parts(self) -> Mapping[str, Ports]:
        """The UNet, as one call: latents, a time and states in, the noise in the latents out."""
        grid = "float[batch channels rows columns]"
        return {"unet": Ports.of({"sample": grid, "time": "float[batch]", "states": "float[batch tokens d]"}, {"noise": grid})}

    def parameters(self) -> int | None:
        """Not known by formula: building says it and is remembered, or the headers of the checkpoint say it."""
        return counted(self.unet)

    def export_facts(self) -> Mapping[str, Any]:
        """The UNet and the size of what it reads; the loop changes no graph."""
        return {"unet": self.unet, "channels": self.channels, "rows": self.rows, "columns": self.columns}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Sizes that the grid of latents has no room for, and a UNet that came from nowhere."""
        if not self.unet or not self.scheduler:
            yield "config-mismatch", f"{node.name} has no UNet or no scheduler", "name a folder in the layout of diffusers with `from`"
        for name, pixels in (("height", self.height), ("width", self.width)):
            if pixels % self.shrink:
                nearest = max(1, round(pixels / self.shrink)) * self.shrink
                found = f"{node.name}.{name} is {pixels}, wanted a multiple of {self.shrink}"
                yield "config-mismatch", found, f"write {name}: {nearest}"


@component("diffusion/decode", kind="generator", module="modelgraft_plugins.diffusion.modules:LatentDecoder", exportable=True)
class Decode(Config):
    """Turn latents into pixels from -1 to 1, with the decoder of a VAE.

    vae  its config, as in vae/config.json
    """

    vae: dict[str, Any] = Field({}, description="the config of the VAE")
    channels: int = Field(4, gt=0, description="channels of latents")
    shrink: int = Field(8, gt=0, description="pixels of a side for each latent")
    scale: float = Field(0.18215, gt=0, description="what latents were multiplied with")
    shift: float = Field(0.0, description="what was taken from latents before")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of the VAE."""
        vae = source.config
        _refuse_other(vae, VAE)
        found = {"vae": vae, "channels": vae.get("latent_channels", 4), "shrink": shrink_of(vae), "shift": vae.get("shift_factor") or 0.0}
        return {**found, "scale": vae.get("scaling_factor", 0.18215)}

    def ports(self) -> Ports:
        """Latents in, `shrink` times as many pixels a side out."""
        pixels = f"float[batch 3 {self.shrink}*rows {self.shrink}*columns]"
        return Ports.of(
            {"latents": latents("batch channels rows columns", self.scale)},
            {"pixels": port(pixels, space=Space.of("colours", lowest=-1, highest=1))},
        )

    def parameters(self) -> int:
        """Count the decoder: convolutions of 3 x 3, pairs of them in residual blocks, and one attention in the middle."""
        sizes: list[int] = self.vae.get("block_out_channels", [64])[::-1]
        top, rounds = sizes[0], 1 + int(self.vae.get("layers_per_block", 1))
        middle = 2 * residual(top, top) + (2 * top + 4 * (top * top + top)) * bool(self.vae.get("mid_block_add_attention", True))
        up, before = 0, top
        for index, size in enumerate(sizes):
            up += residual(before, size) + (rounds - 1) * residual(size, size)
            up += (index < len(sizes) - 1) * conv(size, size)
            before = size
        colours: int = self.vae.get("out_channels", 3)
        outside = (self.channels**2 + self.channels) * bool(self.vae.get("use_post_quant_conv", True))
        return conv(self.channels, top) + middle + up + 2 * before + conv(before, colours) + outside


@component(
    "diffusion/picture",
    kind="generator",
    load="modelgraft_plugins.diffusion.pictures:load",
    inputs={"pixels": port("float[batch 3 height width]", space=Space.of("colours", lowest=-1, highest=1))},
    outputs={"image": "image"},
)
class Picture(Config):
    """Turn pixels from -1 to 1 into pictures of 8 bits a colour."""


def shrink_of(vae: Mapping[str, Any]) -> int:
    """Pixels of a side for each latent: every block of a VAE but the last halves."""
    return int(2 ** (len(vae.get("block_out_channels") or (0,) * 4) - 1))


def conv(width: int, out: int) -> int:
    """Parameters of a convolution of 3 x 3 with a bias."""
    return 9 * width * out + out


def residual(width: int, out: int) -> int:
    """Parameters of two convolutions behind a norm each, and of the way past them where the width changes."""
    past = (width * out + out) * (width != out)
    return 2 * width + conv(width, out) + 2 * out + conv(out, out) + past


def _refuse_other(config: Mapping[str, Any], wanted: str) -> None:
    found = config.get("_class_name")
    if found != wanted:
        raise ValueError(f"the config is of class {found!r}, and {wanted} is what is served")


def _width(unet: Mapping[str, Any]) -> int:
    """Width of the states that a UNet reads; one for all of its blocks."""
    width = unet.get("cross_attention_dim", 1280)
    widths = set(width) if isinstance(width, list) else {width}
    if len(widths) != 1:
        raise ValueError(f"the UNet has cross_attention_dim: {width}, and diffusion/denoise gives all blocks the same states")
    return int(widths.pop())


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in (Denoise, Decode, Picture):
        register(declared)


@hookimpl
def register_recorded_configs(register: Callable[[str, Path], None]) -> None:
    """Offer the published sizes of Stable Diffusion 1.5."""
    register("stable-diffusion-v1-5/stable-diffusion-v1-5", RECORDED / "stable-diffusion-v1-5")
