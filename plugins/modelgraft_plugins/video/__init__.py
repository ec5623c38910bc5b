"""Films: frames taken out of them, prepared for encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from modelgraft import Ports, component, hookimpl, port
from modelgraft_plugins.pictures import PictureSteps, Side, picture_config, unheeded

if TYPE_CHECKING:
    from modelgraft.plugin import Source

FRAMES_KEY = "num_frames"  # of the configs of encoders that look at films, in transformers


@component("video/frames", kind="preprocess", load="modelgraft_plugins.video.prepare:load", cache=False)
class Frames(PictureSteps):
    """Take frames out of a film, evenly spread in time, and prepare each as vision/preprocess prepares a picture.

    frames    of each clip; the first and the last of them are the first and the last of the clip
    windows   clips of `window_s` seconds, spread evenly: the first begins with the film, the last ends with it; None: one, the whole
    crops     3: the two ends and the middle of the longer side, each a clip of its own; clips of one window stand together
    scaling   pictures: with the filter `resample` of PIL, as vision/preprocess does; floats: bilinear between the pixels that are
              there, without a wider filter where it gets smaller, as the transforms of PyTorchVideo do
    A film that is shorter than a window is one by itself, and a clip of fewer frames than are wanted has some twice: both are said.
    """

    frames: int = Field(16, gt=0, description="pictures that are taken of each clip")
    windows: int | None = Field(None, gt=0, description="clips in time, an axis `clips`; None: one, and no such axis")
    window_s: float | None = Field(None, gt=0, description="seconds of a clip; None: all of the film")
    start_s: float = Field(0.0, ge=0, description="seconds after the first frame at which the part that is looked at begins")
    end_s: float | None = Field(None, gt=0, description="and at which it ends; None: with the film")
    crops: Literal[1, 3] = Field(1, description="crops of each frame; 3 needs do_center_crop, and gives an axis `clips`")
    scaling: Literal["pictures", "floats"] = "pictures"

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the image processor of a checkpoint, and how many frames its config says that it sees."""
        told = source.config.get(FRAMES_KEY)
        return {**picture_config(source), **({"frames": told} if told is not None else {})}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the image processor's file that are not known here."""
        return unheeded(source)

    @model_validator(mode="after")
    def _can_be_taken(self) -> Self:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"start_s is {self.start_s:g} and end_s {self.end_s:g}, wanted an end after the start")
        if self.windows is not None and self.windows > 1 and self.window_s is None:
            raise ValueError(f"windows is {self.windows}, and there is no window_s, so that all of them were the whole film")
        if self.crops > 1 and not self.square and not (self.do_center_crop and self.crop_size):
            raise ValueError(f"crops is {self.crops}, which needs do_center_crop and crop_size, or square")
        if self.scaling == "floats" and not (self.do_rescale and (self.do_resize or self.square)):
            raise ValueError("scaling: floats needs do_resize and do_rescale")
        if self.scaling == "floats" and self.max_num_patches is not None:
            raise ValueError("scaling: floats resizes to `size`, and there is max_num_patches")
        return self

    @property
    def clips(self) -> Side:
        """Clips of each film, crops included; None: one, without an axis of its own."""
        return None if self.windows is None and self.crops == 1 else (self.windows or 1) * self.crops

    def ports(self) -> Ports:
        """A film in; its frames, or those of its clips, in the space of this mean and std out."""
        axes = "batch" if self.clips is None else "batch clips"
        pixels = port(f"float[{axes} 3 frames {self.axes}]", space=self.space)
        return Ports.of({"video": "video"}, {"pixels": pixels})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Frames)
