"""A small maker of pictures: a rectified flow that a perceptron sees, what it is trained on, and the loop that draws with it. Light.

It works on pixels and says what picture stands under noise, so that no autoencoder is needed and a narrow perceptron suffices.

Source: Rectified Flow, arXiv 2209.03003; to say the picture and not the flow, arXiv 2511.13720; guidance without a classifier,
arXiv 2207.12598; a perceptron that is told by shift, scale and gate, arXiv 2406.11838.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Config, Dim, Port, Ports, component, port
from modelgraft_plugins.diffusion.counts import linear
from modelgraft_plugins.diffusion.spaces import COLOURS
from modelgraft_plugins.diffusion.stepping import Asked, Denoising

if TYPE_CHECKING:
    from modelgraft.plugin import Source

TIMES = 1000  # the time of pure noise, as schedulers of flow matching count
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": TIMES}
PIXELS = port("float[batch channels height width]", space=COLOURS)


class Perceptron(Config):
    """How large the perceptron is.

    hidden     width of what flows through it;  blocks  how many
    condition  width of what tells time, text and style to each block
    channels, height, width  of the picture
    """

    hidden: int = Field(512, gt=0)
    blocks: int = Field(3, gt=0)
    condition: int = Field(224, gt=0, multiple_of=2)
    d: Dim = Field(None, description="width of the vector of a text")
    style_size: Dim = Field(None, description="width of the vector of a style")
    channels: Dim = Field(None, description="colours of a picture")
    height: Dim = Field(None, description="of the picture, in pixels")
    width: Dim = Field(None, description="of the picture, in pixels")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the widths from the shapes of the weights; the size of the picture is said beside them, by `with` or by who trained it."""
        into, text, style = (source.shape(f"{name}.weight") for name in ("into", "text", "style"))
        if into is None or text is None or style is None:
            return {}
        blocks = next(number for number in count() if source.shape(f"blocks.{number}.tell.weight") is None)
        return {"hidden": into[0], "condition": text[0], "d": text[1], "style_size": style[1], "blocks": blocks}

    def parameters(self) -> int:
        """Count what tells, the blocks, and a map to and from them."""
        hidden, inner, numbers = self.hidden, self.condition, (self.channels or 0) * (self.height or 0) * (self.width or 0)
        telling = 2 * linear(inner, inner) + linear(self.d or 0, inner) + linear(self.style_size or 0, inner)
        each = linear(inner, 3 * hidden) + 2 * linear(hidden, hidden)
        return linear(numbers, hidden) + telling + self.blocks * each + linear(inner, 2 * hidden) + linear(hidden, numbers)

    def export_facts(self) -> Mapping[str, Any]:
        """The sizes; a loop around it changes no graph."""
        return {name: getattr(self, name) for name in Perceptron.model_fields}


@component("diffusion/picture-mlp", kind="generator", module="modelgraft_plugins.diffusion.rectified_modules:Unveil", exportable=True)
class PictureMLP(Perceptron):
    """Say what picture stands under noise, by its time and the vectors of a text and a style: trained so, `diffusion/flow-mlp` draws by it.

    time  of each record: 0 for a picture, 1000 for noise
    """

    def ports(self) -> Ports:
        """A picture under noise, its time, and what it is asked with, in; the picture out."""
        inputs: dict[str, str | Port] = {
            "sample": PIXELS,
            "time": "float[batch]",
            "text": "float[batch d]",
            "style": "float[batch style_size]",
        }
        return Ports.of(inputs, {"pixels": PIXELS})


@component(
    "diffusion/flow-mlp",
    kind="generator",
    module="modelgraft_plugins.diffusion.rectified_modules:Flowing",
    loop="modelgraft_plugins.diffusion.denoising:Denoise",
    exportable=True,
    random=True,
)
class FlowMLP(Perceptron, Denoising):
    """Turn noise into a small picture along a rectified flow that a perceptron sees, as the vectors of a text and of a style say.

    `from` names what a node of `diffusion/picture-mlp` was trained to be. What is to be avoided (`negative`) need not be said: then it
    is asked with zeros, as it was trained without a text. `latents` are the noise to begin with; without them it is drawn by the seed,
    the same for each record of a batch.
    """

    part: ClassVar[str] = "network"
    axes: ClassVar[str] = "channels height width"

    scheduler: dict[str, Any] = Field(SCHEDULER, description="the config of the scheduler, with its class under _class_name")
    trained: dict[str, Any] = Field(SCHEDULER, description="the config of the scheduler that the model was trained with")
    steps: int = Field(32, gt=0, le=1000)
    guidance: float = Field(2.5, ge=1)
    scale: float = Field(1.0, gt=0, description="of pixels, which nothing is multiplied with")

    def asked(self) -> tuple[Asked, ...]:
        """The vector of a text, which may be nothing, and that of a style, the same on both sides."""
        return (Asked("text", "negative", "d", unsaid="zeros"), Asked("style", "", "style_size"))

    def ports(self) -> Ports:
        """As all loops have them, and pixels in place of latents."""
        loop = super().ports()
        given = {name: PIXELS if name == "start" else found for name, found in loop.inputs.items()}
        given["latents"] = port("optional[float[batch channels height width]]", doc="the noise to begin with")
        return Ports.of(given, {"pixels": PIXELS})


@component("diffusion/interpolate", kind="generator", load="modelgraft_plugins.diffusion.interpolating:load", random=True, cache=False)
class Interpolate(Config):
    """Draw for each record a time and noise, and put its picture so far on the straight way to the noise: what a flow is trained on.

    drop      the share of records whose text becomes zeros, so that the model knows what pictures are without one
    sample    (1 - t) pixels + t noise, at a time 1000 t that is drawn evenly
    Source: arXiv 2209.03003, equation 1, with the picture at time 0, as diffusers counts; `drop` after arXiv 2207.12598, algorithm 1.
    """

    drop: float = Field(0.1, ge=0, le=1)

    def ports(self) -> Ports:
        """A picture and the vector of a text in; what a model reads out."""
        given: dict[str, str | Port] = {"pixels": PIXELS, "text": "float[batch d]"}
        return Ports.of(given, {"sample": PIXELS, "time": "float[batch]", "text": "float[batch d]"})
