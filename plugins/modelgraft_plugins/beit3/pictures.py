"""How BEiT-3 and the tokenizer of BEiT v2 have their pictures prepared. Light: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Ports, component, port
from modelgraft_plugins.beit3.sizes import HALF, sizes_of
from modelgraft_plugins.beit3.vqkd import SIGN, vqkd_sizes
from modelgraft_plugins.pictures import PictureSteps

if TYPE_CHECKING:
    from modelgraft.plugin import Source

IMAGENET: Mapping[str, Any] = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}


@component("beit3/preprocess", kind="preprocess", load="modelgraft_plugins.beit3.preparing:load", arrays=True, cache=False)
class Preprocess(PictureSteps):
    """Prepare pictures as BEiT-3 is trained: a square of its own size, bicubic, whatever their shape was, from -1 to 1.

    image_size  side of the square; read from a checkpoint, whose positions say it
    task        "classes": as its ImageNet models alone have them: the shorter side resized, the middle cut out, mean and std of ImageNet
    What is set beside these goes over them.
    """

    image_size: int = Field(224, gt=0, description="side of the prepared picture in pixels")
    task: Literal["pairs", "classes"] = "pairs"

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the side out of the config, or out of the table of positions."""
        shapes = source.tensor_shapes()
        is_vqkd = source.root.get("model_type") == "vqkd" or SIGN in shapes
        side = (vqkd_sizes(source) if is_vqkd else sizes_of(source)).get("image_size")
        return {"image_size": side} if side is not None else {}

    @model_validator(mode="before")
    @classmethod
    def _steps(cls, given: Any) -> Any:  # Any: as pydantic hands it over
        """Fill in the steps that follow from image_size and task."""
        if not isinstance(given, Mapping):
            return given
        side = given.get("image_size", cls.model_fields["image_size"].default)
        if given.get("task") != "classes":
            return {"size": {"height": side, "width": side}, "image_mean": HALF, "image_std": HALF, **given}
        crop = {"height": side, "width": side}
        return {"size": {"shortest_edge": side}, "do_center_crop": True, "crop_size": crop, **IMAGENET, **given}

    def ports(self) -> Ports:
        """A picture in, pixels in the space of their mean and std out."""
        return Ports.of({"image": "image"}, {"pixels": port("float[batch 3 height width]", space=self.space)})
