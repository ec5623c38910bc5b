"""Towers that bring pictures, texts, sounds, depth, heat and movement into one space of vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, component, hookimpl, port

if TYPE_CHECKING:
    from modelgraft.plugin import Source

PRESETS = ("imagebind-huge",)
CHANNELS: Mapping[str, int] = {"vision": 3, "audio": 1, "depth": 1, "thermal": 1, "imu": 6}  # of what a tower takes


@component("embedding/tower", kind="encoder", module="modelgraft_plugins.embedding.modules:Tower", exportable=True)
class Tower(Config):
    """Turn one prepared medium into one vector of a space that all media share, with a transformer of its own.

    It takes what a preparation gives: pixels, a spectrogram, a disparity or heat map, a signal of movement, token ids.
    embedding  has the length that the tower was trained with: 20 for sound, the learned scale for text, 1 for pictures
    unit       has the length 1; compare vectors of different media by this one
    """

    modality: Literal["vision", "text", "audio", "depth", "thermal", "imu"]
    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
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
    space: str | None = Field(None, description="names the space of the vectors, so that others are not compared with them")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes of one tower: the source is a preset with a part, such as preset:imagebind-huge#audio."""
        if not source.root:
            return {}  # a file of weights alone: the graph gives the sizes
        if "modality" not in source.config:
            raise ValueError("embedding/tower takes one tower: write #vision, #text, #audio, #depth, #thermal or #imu behind it")
        return {**source.config, "space": source.whole.removeprefix("preset:")}

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
        vector = port("float[batch embedding_size]", space=space)
        before = "batch clips " if self.clips else "batch "
        match self.modality:
            case "text":
                taken = f"int64[{before}context_length]"
            case "imu":
                taken = f"float[{before}channels steps]"
            case "vision" if self.clips:
                taken = "float[batch clips channels frames height width]"
            case _:
                taken = f"float[{before}channels height width]"
        return Ports.of({"x": taken}, {"embedding": vector, "unit": vector})

    def parameters(self) -> int:
        """Count the tower; the fixed scales of sound, depth, heat and movement are no parameters."""
        width, norm = self.hidden_size, 2 * self.hidden_size
        block = 4 * (width * width + width) + 2 * 4 * width * width + 5 * width + 2 * norm + (norm if self.has_normed_stem else 0)
        entry = self.vocab_size * width if self.is_text else self.patch_values * width + width  # and the class token
        norms = norm if self.has_normed_stem or self.modality == "vision" else 0
        head = norm + width * self.embedding_size
        return entry + self.positions * width + norms + self.num_hidden_layers * block + head + int(self.is_text)


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Tower)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes."""
    for name in PRESETS:
        register(f"preset:{name}", Path(__file__).parent / "presets" / name)
