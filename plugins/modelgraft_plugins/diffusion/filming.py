"""Films out of noise: the loop, the decoder and the finish of text-to-video models such as Zeroscope (arXiv 2308.06571). Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Config, Dim, Ports, component, port
from modelgraft_plugins.counted import counted
from modelgraft_plugins.diffusion.latent import Decode
from modelgraft_plugins.diffusion.painting import Painting, width_of
from modelgraft_plugins.diffusion.spaces import COLOURS, latents, prompt_space
from modelgraft_plugins.diffusion.stepping import Asked, refuse_other, scheduler_beside
from modelgraft_plugins.diffusion.unet_sizes import parameters_of

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

UNET = "UNet3DConditionModel"


@component(
    "diffusion/denoise-film",
    kind="generator",
    module="modelgraft_plugins.diffusion.film_modules:Denoiser",
    loop="modelgraft_plugins.diffusion.denoising:Denoise",
    exportable=True,
    random=True,
)
class DenoiseFilm(Painting):
    """Turn noise into latents of all frames of a film at once, step by step, as the states of a text say.

    unet       the config of the UNet, as in unet/config.json;  scheduler  that of the steps, as in scheduler/scheduler_config.json
    guidance   how far the answer is pushed from that to `negative` towards that to `states`; 1 asks with `states` alone
    frames     of the film;  height, width  of a frame, in pixels: multiples of `shrink`

    `latents` are the noise to begin with; without them it is drawn by the seed, the same for each record of a batch.
    """

    part: ClassVar[str] = "unet"
    axes: ClassVar[str] = "channels frames rows columns"

    unet: dict[str, Any] = Field({}, description="the config of the UNet")
    encoder: dict[str, Any] = Field({}, description="the config of the text encoder that the UNet was trained with")
    guidance: float = Field(9.0, ge=1)
    frames: int = Field(16, gt=0, le=1024, description="pictures of the film")
    d: Dim = Field(None, description="width of the text's states")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a folder in the layout of diffusers."""
        unet = source.config
        refuse_other(unet, UNET)
        found = scheduler_beside(source, name="UNet")
        if unet.get("time_cond_proj_dim") is not None:
            raise ValueError(f"the UNet has time_cond_proj_dim: {unet['time_cond_proj_dim']!r}, and a text's states are all it is given")
        found |= {"unet": unet, "channels": unet.get("in_channels", 4), "d": width_of({"cross_attention_dim": 1024, **unet})}
        return {**found, "encoder": source.root.get("text_encoder_config") or {}, **cls.size_of(source, unet.get("sample_size") or 32)}

    def asked(self) -> tuple[Asked, ...]:
        """The states of a text."""
        return (Asked("states", "negative", "tokens d", "away_tokens d", prompt_space(self.encoder)),)

    def parameters(self) -> int | None:
        """By formula; of a UNet of another kind, building says it and is remembered."""
        found = parameters_of(self.unet)
        return counted(self.unet) if found is None else found

    def export_facts(self) -> Mapping[str, Any]:
        """The UNet and the size of what it reads; the loop changes no graph."""
        return {"unet": self.unet, "channels": self.channels, "frames": self.frames, "rows": self.rows, "columns": self.columns}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A UNet that came from nowhere as well."""
        if not self.unet:
            yield "config-mismatch", f"{node.name} has no UNet", "name a folder in the layout of diffusers with `from`"
        yield from super().review(node)


@component("diffusion/decode-film", kind="generator", module="modelgraft_plugins.diffusion.film_modules:FilmDecoder", exportable=True)
class DecodeFilm(Decode):
    """Turn latents of a film into pixels from -1 to 1, each frame by itself, with the decoder of a VAE.

    vae  its config, as in vae/config.json
    """

    def ports(self) -> Ports:
        """Latents in, `shrink` times as many pixels a side out."""
        grid = latents("batch channels frames rows columns", self.scale, self.shift)
        pixels = port(f"float[batch 3 frames {self.shrink}*rows {self.shrink}*columns]", space=COLOURS)
        return Ports.of({"latents": grid}, {"pixels": pixels})


@component("diffusion/film", kind="generator", load="modelgraft_plugins.diffusion.films:load")
class Film(Config):
    """Turn pixels from -1 to 1 into films of 8 bits a colour."""

    rate_hz: float = Field(8.0, gt=0, le=1000, description="frames per second: 8 is what Zeroscope was trained with")

    def ports(self) -> Ports:
        """Pixels in, films out."""
        return Ports.of({"pixels": port("float[batch 3 frames height width]", space=COLOURS)}, {"video": "video"})


COMPONENTS: tuple[type[Config], ...] = (DenoiseFilm, DecodeFilm, Film)
ON_THE_HUB: Mapping[str, str] = {"cerspense/zeroscope_v2_576w": "zeroscope-v2-576w"}  # a checkpoint of the hub -> its sizes
