"""EfficientNet-lite: an image classifier of a few million parameters, an eye for graphs; and the names of its classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft_plugins.efficientnet.architecture import HEAD_WIDTH, STEM_WIDTH, VARIANTS, Block, blocks

# (x - 127) / 128 on 0..255, as the authors of the lite variants normalise, in the units of pixels in 0..1
PIXEL_MEAN, PIXEL_STD = (127 / 255,) * 3, (128 / 255,) * 3
REDUCTION = 32  # five strides of 2


@component(
    "vision/efficientnet", kind="encoder", module="modelgraft_plugins.efficientnet.modules:EfficientNet", exportable=True, keywords=("eye",)
)
class EfficientNet(Config):
    """Classify prepared pictures, and give one vector per cell of a coarse grid over them.

    The pixels are normalised as (x - 127) / 128: vision/preprocess with image_mean 127/255 and image_std 128/255.
    """

    variant: Literal["lite0", "lite1", "lite2", "lite3", "lite4"] = Field("lite0", description="width and depth of the network")
    num_labels: int = Field(1000, gt=0, description="number of classes")
    image_size: int | None = Field(None, gt=0, description="side of the pictures in pixels; None: the one that the variant was trained at")

    @property
    def side(self) -> int:
        """Side of the pictures in pixels."""
        return self.image_size or VARIANTS[self.variant].image_size

    @property
    def tokens(self) -> int:
        """Number of cells."""
        return (-(-self.side // REDUCTION)) ** 2

    @property
    def hidden_size(self) -> int:
        """Width of the vectors: the same in every lite variant."""
        return HEAD_WIDTH

    def ports(self) -> Ports:
        """Pixels in; class logits, the cells row by row, and their mean out."""
        pixels = port(f"float[batch 3 {self.side} {self.side}]", space=Space.of("pixels", mean=PIXEL_MEAN, std=PIXEL_STD))
        outputs = {"logits": "float[batch num_labels]", "tokens": "float[batch tokens hidden_size]", "pooled": "float[batch hidden_size]"}
        return Ports.of({"pixels": pixels}, outputs)

    def parameters(self) -> int:
        """Count convolutions (without biases), the two numbers per channel of each norm, and the classifier."""
        chain = blocks(self.variant)
        stem = 3 * STEM_WIDTH * 3 * 3 + 2 * STEM_WIDTH
        head = chain[-1].out_width * HEAD_WIDTH + 2 * HEAD_WIDTH
        return stem + sum(map(_count, chain)) + head + (HEAD_WIDTH + 1) * self.num_labels


@component("label/imagenet", kind="head", load="modelgraft_plugins.efficientnet.labels:load", arrays=True, cache=False)
class ImageNetLabels(Config):
    """Name the likeliest of ImageNet's 1,000 classes with their probabilities: `Egyptian cat (62 %), tabby (20 %)`.

    top, names  the names, as labels and as texts
    shares      how much each name counts in a vector that is made of theirs: the root of its probability, all of them together 1
    """

    count: int = Field(3, gt=0, le=1000, description="at most so many classes")
    least: float = Field(0.0, ge=0, le=1, description="classes less likely than this are left out, but never the first")

    def ports(self) -> Ports:
        """Logits in; a line of text, the names alone, what each counts, and the probability of every class out."""
        named = {"labels": "text", "top": "list[label]", "names": "list[text]"}
        outputs = {**named, "shares": "float[batch 1 names]", "probabilities": "float[batch 1000]"}
        return Ports.of({"logits": "float[batch 1000]"}, outputs)


def _count(block: Block) -> int:
    wide = block.in_width * block.expansion
    expand = block.in_width * wide + 2 * wide if block.expansion > 1 else 0
    return expand + wide * block.kernel**2 + 2 * wide + wide * block.out_width + 2 * block.out_width


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(EfficientNet)
    register(ImageNetLabels)
