"""A whole folder of AudioLDM as one node: CLAP, UNet, scheduler, VAE and vocoder. Light.

What it is made of are the configs of the separate components, and what it does is what they do one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Dim, Ports, Space, component, port
from modelgraft_plugins.diffusion.latent import Encode
from modelgraft_plugins.diffusion.sounding import Clap, DecodeMel, DenoiseSound, rows_of
from modelgraft_plugins.diffusion.whole_folder import OfText, WholeFolder
from modelgraft_plugins.vocoder_sizes import hifigan_size

if TYPE_CHECKING:
    from modelgraft.plugin import Source

SIZES = ("seconds", "channels", "shrink", "mels", "hop", "sample_rate_hz", "d")  # of the loop, which the ports depend on
HINT = "name a whole folder of an AudioLDM in the layout of diffusers"


@component(
    "diffusion/text-to-audio",
    kind="generator",
    module="modelgraft_plugins.diffusion.whole_sounds:Whole",
    loop="modelgraft_plugins.diffusion.whole_sounds:Sound",
    exportable=True,
    random=True,
)
class TextToAudio(OfText):
    """Make the sound that a text tells of, with a whole folder in the layout of diffusers: an AudioLDM.

    text, model, vae, vocoder  configs of diffusion/clap, diffusion/denoise-sound, diffusion/decode-mel, and of the vocoder, by the folder
    steps, guidance, eta, seed, seconds  as diffusion/denoise-sound has them; None: as the folder has it

    It takes `prompt`, or its vector as `prompt_embeds`; and what to avoid as `negative`, or as `negative_prompt_embeds`. The whole
    checkpoint is held, as it was published: of the VAE the encoder too, which makes no sound.
    """

    over: ClassVar[tuple[str, ...]] = (*WholeFolder.over, "seconds")
    hint: ClassVar[str] = HINT

    vocoder: dict[str, Any] = Field({}, description="the config of the vocoder, as in vocoder/config.json")
    seconds: float = Field(5.12, gt=0, le=600, description="length of the sound; the folder says what it was trained with")
    channels: int = Field(8, gt=0, description="channels of latents; worked out from the folder, as what follows")
    shrink: int = Field(4, gt=0, description="frames, and bands, for each latent")
    mels: int = Field(64, gt=0, description="bands")
    hop: int = Field(160, gt=0, description="samples of a frame")
    sample_rate_hz: int = Field(16_000, gt=0)
    d: Dim = Field(None, description="width of the text's vector")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a whole folder."""
        if source.part or source.root.get("_class_name") != "AudioLDMPipeline":
            raise ValueError(f"{source.text} is no whole AudioLDM, but {source.root.get('_class_name')!r}: {HINT}")
        model = DenoiseSound.from_source(source.at("unet"))
        found = {"text": Clap.from_source(source.at("text_encoder")), "model": model, "vae": DecodeMel.from_source(source.at("vae"))}
        return {**found, **{name: model[name] for name in SIZES if name in model}, "vocoder": source.at("vocoder").config}

    @property
    def reader(self) -> Clap:
        """The text encoder."""
        return Clap(**self.text)

    @property
    def denoiser(self) -> DenoiseSound:
        """The loop."""
        return self.loop_of(DenoiseSound)

    @property
    def decoder(self) -> DecodeMel:
        """What makes bands."""
        return DecodeMel(**self.vae)

    @property
    def rows(self) -> int:
        """Rows of latents: time."""
        return rows_of(self.seconds, frame_s=self.hop / self.sample_rate_hz, shrink=self.shrink)

    @property
    def columns(self) -> int:
        """Columns of latents: bands."""
        return self.mels // self.shrink

    @property
    def frames(self) -> int:
        """Frames of bands."""
        return self.rows * self.shrink

    def ports(self) -> Ports:
        """A text, or a vector; noise, and a schedule, where they are given; a sound and its latents out."""
        denoiser = self.denoiser
        sound = port("audio", space=Space.of("sound", sample_rate_hz=denoiser.sample_rate_hz))
        return Ports.of(self.inputs(), {"audio": sound, "latents": denoiser.ports().outputs["latents"]})

    def parts(self) -> Mapping[str, Ports]:
        """The text encoder, the UNet, the decoder and the vocoder."""
        read = Ports.of({"ids": "int64[batch text_tokens]", "mask": "bool[batch text_tokens]"}, {"prompt_embeds": "float[batch d]"})
        decode = Ports.of({"latents": "float[batch channels rows columns]"}, {"mel": "float[batch frames mels]"})
        speak = Ports.of({"mel": "float[batch frames mels]"}, {"samples": "float[batch samples]"})
        return {"text": read, **self.denoiser.parts(), "decode": decode, "vocoder": speak}

    def parameters(self) -> int | None:
        """All of them, as published."""
        unet = self.denoiser.parameters()
        if unet is None or not self.vocoder:
            return None
        encoder = Encode(**{name: value for name, value in self.vae.items() if name in Encode.model_fields}).parameters()
        return self.reader.parameters() + unet + self.decoder.parameters() + encoder + hifigan_size(self.vocoder)

    def export_facts(self) -> Mapping[str, Any]:
        """Those of the parts, the vocoder among them."""
        return {**super().export_facts(), "vocoder": self.vocoder}
