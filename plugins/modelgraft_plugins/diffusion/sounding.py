"""Sounds out of noise: the loop, the text encoder and the decoder of AudioLDM (arXiv 2301.12503). Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, prod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, Space, component, port
from modelgraft_plugins.counted import counted
from modelgraft_plugins.diffusion.latent import Decode, shrink_of
from modelgraft_plugins.diffusion.painting import PLAIN, UNET
from modelgraft_plugins.diffusion.spaces import prompt_space
from modelgraft_plugins.diffusion.stepping import Asked, Denoising, refuse_other, scheduler_beside
from modelgraft_plugins.diffusion.unet_sizes import parameters_of
from modelgraft_plugins.stated import Table, tower_table
from modelgraft_plugins.tokens import token_space, tokenizer_identity

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

CLAP = "ClapTextModelWithProjection"
TOLD = "simple_projection"  # how a UNet of AudioLDM is told of a text: one vector, beside the time
WORDS = (  # keys of the config of a text encoder, and fields of ours
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "max_position_embeddings",
    "type_vocab_size", "layer_norm_eps", "projection_dim", "pad_token_id", "projection_hidden_act",
)  # fmt: skip


def table() -> Table:
    """What the config of a text encoder states -> what becomes of it; a test compares it with the library."""
    return tower_table(WORDS, {"bos_token_id", "eos_token_id"})


@component("diffusion/clap", kind="encoder", module="modelgraft_plugins.diffusion.sound_modules:Clap", exportable=True)
class Clap(Config):
    """Turn a text into the vector of CLAP that a denoising loop for sounds is asked with, of the length 1 (arXiv 2211.06687).

    Longer texts than `max_position_embeddings` less two are none that it was trained for: let the tokenizer cut them.
    """

    vocab_size: int = Field(50265, gt=0)
    hidden_size: int = Field(768, gt=0)
    num_hidden_layers: int = Field(12, gt=0)
    num_attention_heads: int = Field(12, gt=0)
    intermediate_size: int = Field(3072, gt=0)
    hidden_act: str = "gelu"
    max_position_embeddings: int = Field(514, gt=2)
    type_vocab_size: int = Field(1, gt=0)
    layer_norm_eps: float = 1e-12
    projection_dim: int = Field(512, gt=0)
    pad_token_id: int = Field(1, ge=0, description="places are counted from behind it")
    projection_hidden_act: str = "relu"
    identity: str | None = Field(None, description="names the vocabulary that the ids must be of")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of the text encoder."""
        kind = source.config.get("model_type")
        if kind != "clap_text_model":
            raise ValueError(
                f"diffusion/clap serves clap_text_model, and {source.text} is of model_type {kind!r}: name #text_encoder of an AudioLDM"
            )
        found = {word: source.config[word] for word in WORDS if word in source.config}
        return {**found, "identity": tokenizer_identity(source)}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config states and is not known here."""
        return table().unheeded(source.config, source.text)

    @property
    def facts(self) -> dict[str, Any]:
        """The config that transformers builds it from."""
        return {"model_type": "clap_text_model", **{word: getattr(self, word) for word in WORDS}}

    def ports(self) -> Ports:
        """Ids in, one vector for the text out."""
        ids = port("int64[batch text_tokens]", space=token_space(self.identity))
        vector = port("float[batch projection_dim]", space=prompt_space(self.facts))
        return Ports.of({"ids": ids, "mask": "optional[bool[batch text_tokens]]"}, {"prompt_embeds": vector})

    def most(self) -> Mapping[str, int]:
        """Places begin behind that of the filling."""
        return {"text_tokens": self.max_position_embeddings - self.pad_token_id - 1}

    def parameters(self) -> int:
        """Embeddings and their norm, blocks, the pooler, and the two layers of the projection."""
        width, inner, out = self.hidden_size, self.intermediate_size, self.projection_dim
        entry = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size) * width + 2 * width
        each = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
        return entry + self.num_hidden_layers * each + width * width + width + width * out + out + out * out + out


@component(
    "diffusion/denoise-sound",
    kind="generator",
    module="modelgraft_plugins.diffusion.sound_modules:Denoiser",
    loop="modelgraft_plugins.diffusion.denoising:Denoise",
    exportable=True,
    random=True,
)
class DenoiseSound(Denoising):
    """Turn noise into latents of the mel bands of a sound, step by step, as one vector of a text says.

    unet       the config of the UNet, as in unet/config.json;  scheduler  that of the steps, as in scheduler/scheduler_config.json
    guidance   how far the answer is pushed from that to `negative` towards that to `prompt_embeds`; 1 asks with `prompt_embeds` alone
    seconds    of the sound; latents stand for whole frames, of which `shrink` make one: vocoder/sound cuts what is more
    hop, sample_rate_hz, mels  how the vocoder beside the UNet reads bands

    `latents` are the noise to begin with; without them it is drawn by the seed, the same for each record of a batch.
    """

    part: ClassVar[str] = "unet"

    unet: dict[str, Any] = Field({}, description="the config of the UNet")
    encoder: dict[str, Any] = Field({}, description="the config of the text encoder that the UNet was trained with")
    guidance: float = Field(2.5, ge=1)
    d: Dim = Field(None, description="width of the text's vector")
    seconds: float = Field(5.12, gt=0, le=600, description="length of the sound")
    channels: int = Field(8, gt=0, description="channels of latents")
    shrink: int = Field(4, gt=0, description="frames, and bands, for each latent; worked out from the VAE beside the UNet")
    mels: int = Field(64, gt=0, description="bands; worked out from the vocoder beside the UNet")
    hop: int = Field(160, gt=0, description="samples of a frame; worked out from the vocoder beside the UNet")
    sample_rate_hz: int = Field(16_000, gt=0, description="of the vocoder beside the UNet")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a folder in the layout of diffusers."""
        unet = source.config
        refuse_other(unet, UNET)
        found = {"unet": unet, **scheduler_beside(source, name="UNet"), **heard_by(source)}
        for key, fine in {**PLAIN, "class_embed_type": (TOLD,)}.items():
            if unet.get(key) not in fine and (unet.get(key) is not None or key == "class_embed_type"):
                raise ValueError(f"the UNet has {key}: {unet.get(key)!r}, and diffusion/denoise-sound gives it one vector of a text alone")
        vae = source.root.get("vae_config") or {}
        shrink = shrink_of(vae)
        found |= {"channels": unet.get("in_channels", 4), "d": unet.get("projection_class_embeddings_input_dim"), "shrink": shrink}
        found |= {"scale": vae.get("scaling_factor", cls.model_fields["scale"].default), "shift": vae.get("shift_factor") or 0.0}
        hop, rate = found.get("hop", 160), found.get("sample_rate_hz", 16_000)
        size = unet.get("sample_size") or 128
        return {**found, "encoder": source.root.get("text_encoder_config") or {}, "seconds": _first(size) * shrink * (hop / rate)}

    @model_validator(mode="after")
    def _is_heard(self) -> DenoiseSound:
        if not self.rows:
            least = self.shrink * self.hop / self.sample_rate_hz
            raise ValueError(f"seconds is {self.seconds:g}, which is no frame: write seconds: {least:g} or more")
        return self

    @property
    def frames(self) -> int:
        """Frames of bands: whole latents, so that the sound is at least as long as it is asked to be."""
        return rows_of(self.seconds, frame_s=self.hop / self.sample_rate_hz, shrink=self.shrink) * self.shrink

    @property
    def rows(self) -> int:
        """Rows of latents: time."""
        return self.frames // self.shrink

    @property
    def columns(self) -> int:
        """Columns of latents: bands."""
        return self.mels // self.shrink

    def asked(self) -> tuple[Asked, ...]:
        """One vector of a text."""
        return (Asked("prompt_embeds", "negative", "d", "d", prompt_space(self.encoder)),)

    def parameters(self) -> int | None:
        """By formula; of a UNet of another kind, building says it and is remembered."""
        found = parameters_of(self.unet)
        return counted(self.unet) if found is None else found

    def export_facts(self) -> Mapping[str, Any]:
        """The UNet and the size of what it reads; the loop changes no graph."""
        return {"unet": self.unet, "channels": self.channels, "rows": self.rows, "columns": self.columns}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A UNet that came from nowhere, and bands that make no whole latents."""
        if not self.unet:
            yield "config-mismatch", f"{node.name} has no UNet", "name a folder in the layout of diffusers with `from`"
        if self.mels % self.shrink:
            found = f"{node.name}.mels is {self.mels}, wanted a multiple of {self.shrink}"
            yield "config-mismatch", found, "take the vocoder that the VAE was trained for"
        yield from super().review(node)


@component("diffusion/decode-mel", kind="generator", module="modelgraft_plugins.diffusion.sound_modules:MelDecoder", exportable=True)
class DecodeMel(Decode):
    """Turn latents into log-mel bands of a sound, with the decoder of a VAE.

    vae  its config, as in vae/config.json
    hop, sample_rate_hz, mels  how the vocoder beside the VAE reads bands; where there is none, any takes them
    """

    channels: int = Field(8, gt=0, description="channels of latents")
    shrink: int = Field(4, gt=0, description="frames, and bands, for each latent")
    mels: int = Field(64, gt=0, description="bands of a frame")
    hop: int | None = Field(None, gt=0, description="samples of a frame")
    sample_rate_hz: int | None = Field(None, gt=0)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of the VAE, and of the vocoder beside it."""
        if source.config.get("out_channels", 3) != 1:
            found = f"the VAE gives {source.config.get('out_channels', 3)} channels, and bands are one: diffusion/decode gives colours"
            raise ValueError(found)
        return {**super().from_source(source), **heard_by(source)}

    @property
    def columns(self) -> int:
        """Columns of latents."""
        return self.mels // self.shrink

    def ports(self) -> Ports:
        """Latents in, `shrink` times as many frames out."""
        mel = Space.of("mel", sample_rate_hz=self.sample_rate_hz, hop=self.hop)
        return Ports.of({"latents": self.latents}, {"mel": port(f"float[batch {self.shrink}*rows mels]", space=mel)})


def rows_of(seconds: float, *, frame_s: float, shrink: int) -> int:
    """Rows of latents of a sound. Source: AudioLDMPipeline of diffusers 0.42, whose arithmetic this follows to the last bit."""
    return ceil(int(seconds / frame_s) / shrink)


def heard_by(source: Source) -> dict[str, Any]:
    """How the vocoder that lies beside a part reads bands; nothing where there is none."""
    vocoder = source.root.get("vocoder_config")
    if vocoder is None:
        return {}
    rates = vocoder.get("upsample_rates", (4, 4, 4, 4))
    return {"mels": vocoder.get("model_in_dim", 80), "hop": prod(rates), "sample_rate_hz": vocoder.get("sampling_rate", 16_000)}


def _first(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)


COMPONENTS: tuple[type[Config], ...] = (Clap, DenoiseSound, DecodeMel)
ON_THE_HUB: Mapping[str, str] = {
    "cvssp/audioldm-l-full": "audioldm-l-full",
    "cvssp/audioldm-s-full-v2": "audioldm-s-full",
}  # a checkpoint of the hub -> its sizes
