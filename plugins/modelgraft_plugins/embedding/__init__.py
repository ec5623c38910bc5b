"""Towers that bring pictures, texts, sounds, depth, heat and movement into one space of vectors, and what makes these ready for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from modelgraft import Config, Port, Ports, Space, component, hookimpl, port
from modelgraft_plugins.embedding.preparing import PUBLISHED, Brightness, Disparity, Filterbank, Movement
from modelgraft_plugins.embedding.sizes import CHANNELS, MODALITIES, TABLE, by_shapes, by_words
from modelgraft_plugins.pictures import pixel_space

if TYPE_CHECKING:
    from modelgraft.plugin import Source

PRESETS = ("imagebind-huge",)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of the pictures of CLIP, from which the eye is
MODULE = "modelgraft_plugins.embedding.modules:Tower"


@component("embedding/tower", kind="encoder", module=MODULE, exportable=True)
class Tower(Config):
    """Turn one prepared medium into one vector of a space that all media share, with a transformer of its own.

    It takes what a preparation gives: pixels, a spectrogram, a disparity or heat map, a signal of movement, token ids.
    head       what the tower gives before its length is set; of clips, one for each
    embedding  has the length that the tower was trained with: 20 for sound, the learned scale for text, 1 for pictures
    unit       has the length 1; compare vectors of different media by this one
    Of clips the vectors are averaged as they were trained, with their lengths; `unit` is the direction of that.
    """

    modality: Literal["vision", "text", "audio", "depth", "thermal", "imu"]
    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int | None = Field(None, gt=0, description="of each layer; a file of weights alone does not say it")
    embedding_size: int = Field(1024, gt=0)
    height: int = Field(224, gt=0, description="of a picture, or mel bands of a spectrogram")
    width: int = Field(224, gt=0, description="of a picture, or frames of a spectrogram")
    kernel: int = Field(16, gt=0, description="side of a patch; of movement: samples of a block")
    stride: int = Field(16, gt=0, description="from patch to patch")
    frames: int = Field(2, gt=0, description="vision: pictures that a patch reaches through; a still picture is repeated")
    steps: int = Field(2000, gt=0, description="imu: samples of the signal")
    context_length: int = Field(77, gt=0, description="text: token ids of every text, filled up with 0")
    vocab_size: int = Field(49408, gt=0, description="text: token ids there are")
    clips: bool = Field(False, description="each record is several clips, whose vectors are averaged")
    many: bool = Field(False, description="text: each record is a list of texts, such as the labels to choose from")
    places: int | None = Field(None, gt=0, description="positions that the weights have, where they are known; None: as the sizes say")
    published: bool = Field(False, description="what goes in is made ready as it was for the published weights, which the wires prove")
    space: str | None = Field(None, description="names the space of the vectors, so that others are not compared with them")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes of one tower: the source has a part, such as preset:imagebind-huge#audio."""
        if not source.part and not source.root:
            return {}  # a file of weights alone: the graph gives the modality and the sizes
        if source.part not in MODALITIES:
            raise ValueError("embedding/tower takes one tower: write #vision, #text, #audio, #depth, #thermal or #imu behind it")
        return {**read_sizes(source, source.part), "modality": source.part}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """What a config in the words of the published code states and this does not know."""
        return TABLE.unheeded(source.root, source.text) if source.root else ()

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.num_attention_heads is None:
            way = f"no published tower for {self.modality} is {self.hidden_size} wide: give with: {{num_attention_heads: ...}}"
            raise ValueError(f"the weights do not say how many heads attention has, and {way}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads do not share a width of {self.hidden_size} evenly")
        if self.places is not None and self.positions != self.places:
            sizes = f"{self.height} x {self.width} in patches of {self.kernel} every {self.stride} are {self.positions} places"
            raise ValueError(f"{sizes}, and the weights have {self.places}: give with: {{height: ..., width: ..., stride: ...}}")
        if self.many and (not self.is_text or self.clips):
            raise ValueError("many is for lists of texts")
        return self

    @property
    def is_text(self) -> bool:
        """The tower reads token ids."""
        return self.modality == "text"

    @property
    def has_normed_stem(self) -> bool:
        """Patches are normed, and attention has one learned key and value more: every medium but pictures and texts."""
        return self.modality not in ("vision", "text")

    @property
    def channels(self) -> int:
        """Colours, or axes of movement."""
        return CHANNELS.get(self.modality, 0)

    @property
    def positions(self) -> int:
        """Number of places: the class token and the patches, or the token ids."""
        match self.modality:
            case "text":
                return self.context_length
            case "imu":
                return self.steps // self.kernel + 1
        rows, columns = ((side - self.kernel) // self.stride + 1 for side in (self.height, self.width))
        return rows * columns + 1

    @property
    def patch_values(self) -> int:
        """Numbers that one patch is made of."""
        if self.modality == "imu":
            return self.channels * self.kernel
        return self.channels * self.kernel**2 * (self.frames if self.modality == "vision" else 1)

    def ports(self) -> Ports:
        """One medium in; its vector, as trained and with the length 1, out."""
        space = Space.of("embedding", model=self.space) if self.space else None
        texts = "texts " if self.many else ""
        vector = port(f"float[batch {texts}embedding_size]", space=space)
        before = f"batch {'clips ' if self.clips else texts}"
        match self.modality:
            case "text":
                taken = f"int64[{before}context_length]"
            case "imu":
                taken = f"float[{before}channels steps]"
            case "vision" if self.clips:
                taken = "float[batch clips channels frames height width]"
            case _:
                taken = f"float[{before}channels height width]"
        outputs: dict[str, str | Port] = {"head": f"float[{before}embedding_size]", "embedding": vector, "unit": vector}
        return Ports.of({"x": port(taken, space=self._prepared() if self.published else None)}, outputs)

    def _prepared(self) -> Space | None:
        """The space of what the published towers take; None: nothing is known of it, as of the ids of a text."""
        return pixel_space(MEAN, STD) if self.modality == "vision" else PUBLISHED.get(self.modality)

    def parameters(self) -> int:
        """Count the tower; the fixed scales of sound, depth, heat and movement are no parameters."""
        width, norm = self.hidden_size, 2 * self.hidden_size
        block = 4 * (width * width + width) + 2 * 4 * width * width + 5 * width + 2 * norm + (norm if self.has_normed_stem else 0)
        entry = self.vocab_size * width if self.is_text else self.patch_values * width + width  # and the class token
        norms = norm if self.has_normed_stem or self.modality == "vision" else 0
        head = norm + width * self.embedding_size
        return entry + self.positions * width + norms + self.num_hidden_layers * block + head + int(self.is_text)


def read_sizes(source: Source, modality: str) -> dict[str, Any]:
    """The sizes of one tower, by the words of a config.json or by the shapes of the tensors; the rest as it was published.

    Raises ValueError for a source of another kind.
    """
    if source.root:
        if (kind := source.root.get("model_type")) != "imagebind":
            raise ValueError(f"its towers are those of an imagebind, and the config states model_type: {kind!r}")
        found = by_words(source.root, modality)
    else:
        shapes = source.tensor_shapes()
        found = by_shapes(shapes, modality) if shapes else {}
    return {**found, "space": source.whole.removeprefix("preset:"), "published": True}


class OneTower(Tower):
    """A tower whose medium is settled, so that it finds itself in a whole checkpoint."""

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes of this tower out of the whole: a preset, imagebind_huge.pth, or a folder with a config.json."""
        modality = cls.model_fields["modality"].default
        if source.part not in ("", modality):
            raise ValueError(f"embedding/{modality} is its own part of the whole, and the source has #{source.part} behind it")
        return read_sizes(source, modality)


@component("embedding/vision", kind="encoder", module=MODULE, exportable=True, keywords=("eye",))
class Vision(OneTower):
    """Turn pictures, or with `clips` films, into vectors that all media of ImageBind share. Ports and fields: `embedding/tower`."""

    modality: Literal["vision"] = "vision"


@component("embedding/text", kind="encoder", module=MODULE, exportable=True)
class Text(OneTower):
    """Turn token ids of CLIP's vocabulary into vectors that all media of ImageBind share. Ports and fields: `embedding/tower`."""

    modality: Literal["text"] = "text"


@component("embedding/audio", kind="encoder", module=MODULE, exportable=True, keywords=("ear",))
class Sound(OneTower):
    """Turn spectrograms into vectors that all media of ImageBind share. Ports and fields: `embedding/tower`."""

    modality: Literal["audio"] = "audio"


@component("embedding/depth", kind="encoder", module=MODULE, exportable=True)
class Depths(OneTower):
    """Turn disparity maps into vectors that all media of ImageBind share. Ports and fields: `embedding/tower`."""

    modality: Literal["depth"] = "depth"


@component("embedding/thermal", kind="encoder", module=MODULE, exportable=True)
class Heat(OneTower):
    """Turn grey pictures of heat into vectors that all media of ImageBind share. Ports and fields: `embedding/tower`."""

    modality: Literal["thermal"] = "thermal"


@component("embedding/imu", kind="encoder", module=MODULE, exportable=True)
class Motion(OneTower):
    """Turn signals of movement into vectors that all media of ImageBind share. Ports and fields: `embedding/tower`."""

    modality: Literal["imu"] = "imu"


@component("embedding/combine", kind="projector", module="modelgraft_plugins.embedding.modules:Combine", exportable=True)
class Combine(Config):
    """Add up vectors of one space, such as those of a picture and of a sound: each at the length 1, times its weight.

    weights  by the names of the input ports, {picture: 0.5, sound: 0.5}
    sum      has the length that comes of it;  unit  the length 1
    The lengths that the vectors come with are left out of account: ImageBind's sounds have 20, and would drown pictures, which have 1.
    Source: arXiv 2305.05665, section 4.4, and issue 60 of its repository.
    """

    weights: Mapping[str, float] = Field({"x": 0.5, "y": 0.5}, min_length=1, description="weight of each input, by its name")
    space: str | None = Field(None, description="the model whose vectors are added; None: any")

    @field_validator("weights")
    @classmethod
    def _are_names(cls, weights: Mapping[str, float]) -> Mapping[str, float]:
        if wrong := [name for name in weights if not name.isidentifier()]:
            raise ValueError(f"weights has {wrong[0]!r}; wanted: names of input ports, such as picture")
        if not any(weights.values()):
            raise ValueError("every weight is 0, so that nothing would be left")
        return weights

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """A vector for each weight in; their sum out."""
        space = Space.of("embedding", model=self.space) if self.space else None
        vector = port("float[batch width]", space=space)
        return Ports.of(dict.fromkeys(self.weights, vector), {"sum": vector, "unit": vector})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Tower, Vision, Text, Sound, Depths, Heat, Motion, Combine, Filterbank, Disparity, Brightness, Movement):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes."""
    for name in PRESETS:
        register(f"preset:{name}", Path(__file__).parent / "presets" / name)
