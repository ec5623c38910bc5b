"""A whole text-to-video folder as one node: text encoder, UNet, scheduler and VAE. Light.

What it is made of are the configs of the separate components, and what it does is what they do one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Dim, Ports, component
from modelgraft.plugin import families
from modelgraft_plugins.diffusion.filming import DecodeFilm, DenoiseFilm
from modelgraft_plugins.diffusion.latent import Encode
from modelgraft_plugins.diffusion.whole_folder import OfText, WholeFolder

if TYPE_CHECKING:
    from modelgraft.plugin import Source

SIZES = ("height", "width", "channels", "shrink", "d")  # of the loop, which the ports depend on
KIND = "clip_text_model"
HINT = "name a whole folder of a text-to-video model in the layout of diffusers"


@component(
    "diffusion/text-to-video",
    kind="generator",
    module="modelgraft_plugins.diffusion.whole_films:Whole",
    loop="modelgraft_plugins.diffusion.whole_films:Film",
    exportable=True,
    random=True,
)
class TextToVideo(OfText):
    """Make the film that a text tells of, with a whole folder in the layout of diffusers, such as Zeroscope.

    text, model, vae  configs of the text encoder, of diffusion/denoise-film and of diffusion/decode-film, by the folder
    steps, guidance, eta, seed, frames, height, width  as diffusion/denoise-film has them; None: as the folder has it
    rate_hz           frames per second of the film

    It takes `prompt`, or its states as `prompt_embeds`; and what to avoid as `negative`, or as `negative_prompt_embeds`. The whole
    checkpoint is held, as it was published: of the VAE the encoder too, which makes no film.
    """

    over: ClassVar[tuple[str, ...]] = (*WholeFolder.over, "frames", "height", "width")
    hint: ClassVar[str] = HINT

    frames: int = Field(16, gt=0, le=1024, description="pictures of the film")
    height: int = Field(256, gt=0, description="of a frame; the folder says what it was trained with")
    width: int = Field(256, gt=0)
    rate_hz: float = Field(8.0, gt=0, le=1000, description="frames per second")
    channels: int = Field(4, gt=0, description="channels of latents; worked out from the folder, as what follows")
    shrink: int = Field(8, gt=0, description="pixels of a side for each latent")
    d: Dim = Field(None, description="width of the text's states")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a whole folder."""
        if source.part or source.root.get("_class_name") != "TextToVideoSDPipeline":
            raise ValueError(f"{source.text} is no whole text-to-video model, but {source.root.get('_class_name')!r}: {HINT}")
        text = source.at("text_encoder").config
        if text.get("model_type") != KIND:
            raise ValueError(f"the text encoder of {source.text} is of model_type {text.get('model_type')!r}, and {KIND} is what is served")
        model = DenoiseFilm.from_source(source.at("unet"))
        found = {"text": dict(text), "model": model, "vae": DecodeFilm.from_source(source.at("vae"))}
        return {**found, **{name: model[name] for name in SIZES if name in model}}

    @property
    def denoiser(self) -> DenoiseFilm:
        """The loop."""
        return self.loop_of(DenoiseFilm)

    @property
    def decoder(self) -> DecodeFilm:
        """What makes pixels."""
        return DecodeFilm(**self.vae)

    @property
    def length(self) -> int:
        """Tokens of a text."""
        return int(self.text.get("max_position_embeddings", 77))

    @property
    def rows(self) -> int:
        """Rows of latents."""
        return self.height // self.shrink

    @property
    def columns(self) -> int:
        """Columns of latents."""
        return self.width // self.shrink

    def ports(self) -> Ports:
        """A text, or its states; noise, and a schedule, where they are given; a film and its latents out."""
        return Ports.of(self.inputs(), {"video": "video", "latents": self.denoiser.ports().outputs["latents"]})

    def parts(self) -> Mapping[str, Ports]:
        """The text encoder, the UNet, and the decoder."""
        read = Ports.of({"ids": "int64[batch tokens]"}, {"states": "float[batch tokens d]"})
        pixels = f"float[batch 3 frames {self.shrink}*rows {self.shrink}*columns]"
        decode = Ports.of({"latents": "float[batch channels frames rows columns]"}, {"pixels": pixels})
        return {"text": read, **self.denoiser.parts(), "decode": decode}

    def parameters(self) -> int | None:
        """All of them, as published."""
        unet, card = self.denoiser.parameters(), families().tower(KIND)
        if unet is None or card is None or card.count is None:
            return None
        encoder = Encode(**{name: value for name, value in self.vae.items() if name in Encode.model_fields}).parameters()
        return int(card.count({**card.defaults, **self.text})) + unet + self.decoder.parameters() + encoder
