"""The loops that paint: a UNet of Stable Diffusion asked step by step. Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Dim, component
from modelgraft_plugins.counted import counted
from modelgraft_plugins.diffusion.latent import shrink_of
from modelgraft_plugins.diffusion.spaces import prompt_space
from modelgraft_plugins.diffusion.stepping import Asked, Denoising, refuse_other, scheduler_beside

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

UNET = "UNet2DConditionModel"

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


class Painting(Denoising):
    """What a loop is told whose latents are those of a picture: its size, and how many pixels stand behind a latent."""

    height: int = Field(512, gt=0)
    width: int = Field(512, gt=0)
    shrink: int = Field(8, gt=0, description="pixels of a side for each latent; worked out from the VAE beside the model")
    channels: int = Field(4, gt=0, description="channels of latents")

    @property
    def rows(self) -> int:
        """Rows of latents."""
        return self.height // self.shrink

    @property
    def columns(self) -> int:
        """Columns of latents."""
        return self.width // self.shrink

    @classmethod
    def size_of(cls, source: Source, size: Any) -> dict[str, Any]:
        """The size of pictures and the space of latents, by the size that a model was trained at and the VAE beside it."""
        vae = source.root.get("vae_config") or {}
        shrink = shrink_of(vae)
        high, wide = size if isinstance(size, list) else (size, size)
        scale, shift = vae.get("scaling_factor", cls.model_fields["scale"].default), vae.get("shift_factor") or 0.0
        return {"shrink": shrink, "scale": scale, "shift": shift, "height": high * shrink, "width": wide * shrink}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Sizes that the grid of latents has no room for as well."""
        yield from super().review(node)
        for name, pixels in (("height", self.height), ("width", self.width)):
            if pixels % self.shrink:
                nearest = max(1, round(pixels / self.shrink)) * self.shrink
                found = f"{node.name}.{name} is {pixels}, wanted a multiple of {self.shrink}"
                yield "config-mismatch", found, f"write {name}: {nearest}"


@component(
    "diffusion/denoise",
    kind="generator",
    module="modelgraft_plugins.diffusion.unet:Denoiser",
    loop="modelgraft_plugins.diffusion.denoising:Denoise",
    exportable=True,
    random=True,
)
class Denoise(Painting):
    """Turn noise into latents of a picture, step by step, as the states of a text say.

    unet       the config of the UNet, as in unet/config.json;  scheduler  that of the steps, as in scheduler/scheduler_config.json
    steps      how often the UNet is asked
    guidance   how far the answer is pushed from that to `negative` towards that to `states`; 1 asks with `states` alone
    eta        how much noise DDIM adds at each step; other schedulers have none such
    height, width  of the picture, in pixels: multiples of `shrink`
    strength   begin with the latents `start` of a picture, under so much noise

    `latents` are the noise to begin with; without them it is drawn by the seed, the same for each record of a batch.
    """

    part: ClassVar[str] = "unet"

    unet: dict[str, Any] = Field({}, description="the config of the UNet")
    encoder: dict[str, Any] = Field({}, description="the config of the text encoder that the UNet was trained with")
    d: Dim = Field(None, description="width of the text's states")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a folder in the layout of diffusers."""
        unet = source.config
        refuse_other(unet, UNET)
        found = scheduler_beside(source, name="UNet")
        for key, fine in PLAIN.items():
            if unet.get(key) not in (*fine, None):
                raise ValueError(f"the UNet has {key}: {unet[key]!r}, and diffusion/denoise gives it a text's states alone")
        found |= {"unet": unet, "channels": unet.get("in_channels", 4), "d": width_of(unet)}
        return {**found, "encoder": source.root.get("text_encoder_config") or {}, **cls.size_of(source, unet.get("sample_size") or 64)}

    def asked(self) -> tuple[Asked, ...]:
        """The states of a text."""
        return (Asked("states", "negative", "tokens d", "away_tokens d", prompt_space(self.encoder)),)

    def parameters(self) -> int | None:
        """Not known by formula: building says it and is remembered, or the headers of the checkpoint say it."""
        return counted(self.unet)

    def export_facts(self) -> Mapping[str, Any]:
        """The UNet and the size of what it reads; the loop changes no graph."""
        return {"unet": self.unet, "channels": self.channels, "rows": self.rows, "columns": self.columns}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A UNet that came from nowhere as well."""
        if not self.unet:
            yield "config-mismatch", f"{node.name} has no UNet", "name a folder in the layout of diffusers with `from`"
        yield from super().review(node)


def width_of(unet: Mapping[str, Any]) -> int:
    """Width of the states that a UNet reads; one for all of its blocks."""
    width = unet.get("cross_attention_dim", 1280)
    widths = set(width) if isinstance(width, list) else {width}
    if len(widths) != 1:
        raise ValueError(f"the UNet has cross_attention_dim: {width}, and diffusion/denoise gives all blocks the same states")
    return int(widths.pop())
