"""The loops that paint, a UNet or a transformer asked step by step, and their schedulers. Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Config, Dim, Ports, component, port
from modelgraft_plugins.counted import counted
from modelgraft_plugins.diffusion import counts
from modelgraft_plugins.diffusion.latent import shrink_of
from modelgraft_plugins.diffusion.spaces import prompt_space, schedule_space
from modelgraft_plugins.diffusion.stepping import Asked, Denoising, refuse_other, scheduler_beside
from modelgraft_plugins.diffusion.unet_sizes import parameters_of

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

UNET = "UNet2DConditionModel"

TEXT_TIME = "text_time"  # SDXL: a vector of the text, and six numbers about sizes, are added to the time

# Keys of a UNet's config that make it read more than latents, a time and the states of a text: at these values they do nothing.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "addition_embed_type": (None, TEXT_TIME),
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
    seen       of a UNet such as SDXL's: height and width of the picture that this is taken from; None: its own
    crop       top and left of what was cut out of that

    `latents` are the noise to begin with; without them it is drawn by the seed, the same for each record of a batch.
    """

    part: ClassVar[str] = "unet"

    unet: dict[str, Any] = Field({}, description="the config of the UNet")
    encoder: dict[str, Any] = Field({}, description="the config of the text encoder that the UNet was trained with")
    d: Dim = Field(None, description="width of the text's states")
    pooled_size: int = Field(0, ge=0, description="width of the vector of a text; 0: the UNet reads none")
    seen: tuple[int, int] | None = Field(None, description="height and width of what the picture was cut out of; None: its own")
    crop: tuple[int, int] = Field((0, 0), description="top and left of the picture in that")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a folder in the layout of diffusers."""
        unet = source.config
        refuse_other(unet, UNET)
        found = scheduler_beside(source, name="UNet")
        for key, fine in PLAIN.items():
            if unet.get(key) not in (*fine, None):
                raise ValueError(f"the UNet has {key}: {unet[key]!r}, and diffusion/denoise gives it a text's states alone")
        found |= {"unet": unet, "channels": unet.get("in_channels", 4), "d": width_of(unet), "pooled_size": pooled_of(unet)}
        return {**found, "encoder": source.root.get("text_encoder_config") or {}, **cls.size_of(source, unet.get("sample_size") or 64)}

    @property
    def is_added(self) -> bool:
        """A vector of the text and sizes are added to the time."""
        return self.unet.get("addition_embed_type") == TEXT_TIME

    @property
    def sizes(self) -> tuple[int, ...]:
        """What SDXL is told of sizes: those of what the picture was cut out of, where, and those of the picture."""
        return (*(self.seen or (self.height, self.width)), *self.crop, self.height, self.width)

    def asked(self) -> tuple[Asked, ...]:
        """The states of a text, and its vector where one is added."""
        states = Asked("states", "negative", "tokens d", "away_tokens d", prompt_space(self.encoder))
        return (states, Asked("pooled", "negative_pooled", "pooled_size")) if self.is_added else (states,)

    def parameters(self) -> int | None:
        """Count the UNet; one of other blocks is counted when it is built, and remembered."""
        return parameters_of(self.unet) or counted(self.unet)

    def export_facts(self) -> Mapping[str, Any]:
        """The UNet and the size of what it reads; the loop changes no graph."""
        facts = {"unet": self.unet, "channels": self.channels, "rows": self.rows, "columns": self.columns}
        return {**facts, "sizes": list(self.sizes)} if self.is_added else facts

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


def pooled_of(unet: Mapping[str, Any]) -> int:
    """Width of the vector that is added to the time: what a projection reads, less six sizes of it. 0: there is none."""
    if unet.get("addition_embed_type") != TEXT_TIME:
        return 0
    whole, each = unet.get("projection_class_embeddings_input_dim"), unet.get("addition_time_embed_dim")
    if not whole or not each or whole <= 6 * each:
        found = f"addition_time_embed_dim: {each!r} and projection_class_embeddings_input_dim: {whole!r}"
        raise ValueError(f"the UNet has addition_embed_type: 'text_time' with {found}, which leave no room for the vector of a text")
    return int(whole) - 6 * int(each)


TRANSFORMER = "SD3Transformer2DModel"


@component(
    "diffusion/flow",
    kind="generator",
    module="modelgraft_plugins.diffusion.transformer:Flowing",
    loop="modelgraft_plugins.diffusion.denoising:Denoise",
    exportable=True,
    random=True,
)
class Flow(Painting):
    """Turn noise into latents of a picture along the flow that a transformer of Stable Diffusion 3 sees, as states of a text say.

    transformer  its config, as in transformer/config.json;  scheduler  that of the steps, as in scheduler/scheduler_config.json
    steps      how often it is asked
    guidance   how far the answer is pushed from that to `negative` towards that to `states`; 1 asks with `states` alone
    height, width  of the picture, in pixels: multiples of `shrink` times the patch

    `latents` are the noise to begin with; without them it is drawn by the seed, the same for each record of a batch.
    """

    part: ClassVar[str] = "transformer"

    transformer: dict[str, Any] = Field({}, description="the config of the transformer")
    steps: int = Field(28, gt=0, le=1000)
    guidance: float = Field(7.0, ge=1)
    channels: int = Field(16, gt=0, description="channels of latents")
    scale: float = Field(1.5305, gt=0, description="what latents are multiplied with; worked out from the VAE beside the model")
    shift: float = Field(0.0609, description="what was taken from latents before; worked out from the VAE beside the model")
    d: Dim = Field(None, description="width of the text's states")
    pooled_size: Dim = Field(None, description="width of the vector of a text")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a folder in the layout of diffusers."""
        model = source.config
        refuse_other(model, TRANSFORMER)
        found = {**scheduler_beside(source, name="transformer"), **cls.size_of(source, model.get("sample_size", 128))}
        widths = {"d": model.get("joint_attention_dim", 4096), "pooled_size": model.get("pooled_projection_dim", 2048)}
        return {**found, **widths, "transformer": model, "channels": model.get("in_channels", 16)}

    @property
    def patch(self) -> int:
        """Latents of a side of a patch."""
        return int(self.transformer.get("patch_size", 2))

    @property
    def places(self) -> int:
        """How many patches there are."""
        return (self.rows // self.patch) * (self.columns // self.patch)

    def asked(self) -> tuple[Asked, ...]:
        """The states of a text, and its vector."""
        states = Asked("states", "negative", "tokens d", "away_tokens d", prompt_space(None))
        return (states, Asked("pooled", "negative_pooled", "pooled_size"))

    def parameters(self) -> int | None:
        """Count the transformer."""
        return counts.sd3(self.transformer)

    def export_facts(self) -> Mapping[str, Any]:
        """The transformer and the size of what it reads; the loop changes no graph."""
        return {"transformer": self.transformer, "channels": self.channels, "rows": self.rows, "columns": self.columns}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A transformer that came from nowhere, and sizes that make no whole patches or more than it has places for."""
        if not self.transformer:
            yield "config-mismatch", f"{node.name} has no transformer", "name a folder in the layout of diffusers with `from`"
        yield from super().review(node)
        side, most = self.shrink * self.patch, int(self.transformer.get("pos_embed_max_size") or 0) * self.shrink * self.patch
        for name, pixels in (("height", self.height), ("width", self.width)):
            if pixels % self.shrink == 0 and pixels % side:
                nearest = max(1, round(pixels / side)) * side
                found = f"{node.name}.{name} is {pixels}, wanted a multiple of {side}, the side of a patch"
                yield "config-mismatch", found, f"write {name}: {nearest}"
            elif most and pixels > most:
                yield "config-mismatch", f"{node.name}.{name} is {pixels}, and the model has places for {most}", f"write {name}: {most}"


@component("diffusion/scheduler", kind="generator", load="modelgraft_plugins.diffusion.schedulers:load")
class Scheduler(Config):
    """Give a loop another scheduler than the one that lies beside its model: how its steps are taken.

    config  as in scheduler/scheduler_config.json, or of the folder in the layout of diffusers that `from` names
    name    a class of diffusers in place of the one that the config names, which takes over what it knows of it
    """

    config: dict[str, Any] = Field({}, description="the config of the scheduler, with its class under _class_name")
    name: str | None = Field(None, min_length=1, description="another class, such as EulerDiscreteScheduler")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read scheduler/scheduler_config.json of a whole folder, or a scheduler_config.json alone."""
        found = source.root.get("scheduler_config") or source.json("scheduler_config.json")
        if not found:
            raise ValueError("there is no scheduler/scheduler_config.json in it: name a folder in the layout of diffusers")
        return {"config": dict(found)}

    @property
    def whole(self) -> dict[str, Any]:
        """The config under the class that is wanted."""
        if not self.name:
            return self.config
        return {**self.config, "_class_name": self.name, "_taken_from": self.config.get("_class_name")}

    def ports(self) -> Ports:
        """A schedule, by what it takes the answers of a model for."""
        return Ports.of({}, {"schedule": port("object", space=schedule_space(self.whole))})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A scheduler that is none."""
        if not self.whole.get("_class_name"):
            yield (
                "config-mismatch",
                f"{node.name} has no scheduler",
                "name a folder in the layout of diffusers with `from`, or a class with `name`",
            )
