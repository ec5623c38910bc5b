"""Projectors: from the width of one model to that of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, Space, component, hookimpl, port
from modelgraft.plugin import families
from modelgraft_plugins.projectors.abstractors import CAbstractor, DAbstractor
from modelgraft_plugins.projectors.experts import Experts
from modelgraft_plugins.projectors.gated import Gated
from modelgraft_plugins.projectors.grids import torn_grids
from modelgraft_plugins.projectors.joining import Join
from modelgraft_plugins.projectors.memory import Memory
from modelgraft_plugins.projectors.pooling import Merge, Pool

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

# part of a published layout -> the fields of the model's config that give its output width, and whether it has a bias
LAYOUTS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "visual_projection": (("projection_dim",), False),
    "text_projection": (("projection_dim", "image_text_hidden_size"), False),
    "vision_projection": (("image_text_hidden_size",), True),
    "language_projection": (("text_config.hidden_size", "text_config.d_model"), True),
    "classifier": (("num_labels", "id2label"), True),
    "vision_head": (("encoder_embed_dim",), False),
    "language_head": (("encoder_embed_dim",), False),
    "mlm_head": (("vocab_size",), True),
    "head": (("num_classes",), True),
    "llama_proj": (("llm_width",), True),
    "multi_modal_projector": (("text_config.hidden_size",), True),
}
SHARED_SPACES = ("visual_projection", "text_projection", "vision_head", "language_head")  # both lead into the space of their checkpoint
Over = Literal["tokens", "vector"]
MIDDLE: Mapping[str, str] = {"tokens": "tokens ", "vector": ""}


@component("projector/linear", kind="projector", module="modelgraft_plugins.projectors.modules:Linear", exportable=True)
class Linear(Config):
    """Map every vector to another width with one linear layer.

    over   "tokens": a sequence of vectors per record; "vector": one per record
    space  names the space that the results lie in, so that vectors of different models are not compared
    """

    in_features: Dim = None
    out_features: Dim = None
    bias: bool = True
    over: Over = "tokens"
    space: str | None = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shape of the weight, or what the config of the model around it says."""
        part = source.part.rpartition(".")[2]
        space = {"space": source.whole} if part in SHARED_SPACES else {}
        weight = source.shape("weight")
        if weight is not None:
            return {"in_features": weight[1], "out_features": weight[0], "bias": source.shape("bias") is not None, **space}
        fields, bias = LAYOUTS.get(part, ((), True))
        bias = bool(source.root.get(f"{part}_bias", bias))  # of a CLIP with a residual eye, as its layout states it
        width = next((found for name in fields if (found := _width(source.root, name)) is not None), None)
        return {"bias": bias, **({"out_features": width} if width is not None else {}), **space}

    def ports(self) -> Ports:
        """Vectors in, vectors out."""
        middle = MIDDLE[self.over]
        space = Space.of("embedding", model=self.space) if self.space else None
        return Ports.of({"x": f"float[batch {middle}in_features]"}, {"y": port(f"float[batch {middle}out_features]", space=space)})

    def parameters(self) -> int:
        """Count weight and bias."""
        return linear(self.in_features or 0, self.out_features or 0, bias=self.bias)


@component("projector/mlp", kind="projector", module="modelgraft_plugins.projectors.modules:MLP", exportable=True)
class MLP(Config):
    """Map every vector to another width with two linear layers and an activation between them, as LLaVA 1.5 does.

    hidden_features  width between the layers; None: that of the result
    norm             a layer norm before them, as InternVL has
    dropout          the share of what goes into each layer that is left out while it is trained, and only then
    """

    in_features: Dim = None
    out_features: Dim = None
    hidden_features: int | None = Field(None, gt=0)
    hidden_act: str = "gelu"
    bias: bool = True
    norm: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    over: Over = "tokens"

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shapes of the weights, or the config of LLaVA around it."""
        around = source.root
        found: dict[str, Any] = {
            "hidden_act": around.get("projector_hidden_act", "gelu"),
            "bias": around.get("multimodal_projector_bias", True),
            **families().whole(around.get("model_type")).components.get("projector/mlp", {}),
        }
        first, second = source.shape("linear_1.weight"), source.shape("linear_2.weight")
        if first is not None and second is not None:
            found |= {"in_features": first[1], "hidden_features": first[0], "out_features": second[0]}
            found["norm"] = source.shape("layer_norm.weight") is not None
        return found

    @property
    def inner(self) -> int:
        """Width between the two layers."""
        return self.hidden_features or self.out_features or 0

    def ports(self) -> Ports:
        """Vectors in, vectors out."""
        middle = MIDDLE[self.over]
        return Ports.of({"x": f"float[batch {middle}in_features]"}, {"y": f"float[batch {middle}out_features]"})

    def parameters(self) -> int:
        """Count both layers, and the norm."""
        inputs = self.in_features or 0
        layers = linear(inputs, self.inner, bias=self.bias) + linear(self.inner, self.out_features or 0, bias=self.bias)
        return layers + (2 * inputs if self.norm else 0)


@component("projector/pixel_shuffle", kind="projector", module="modelgraft_plugins.projectors.modules:PixelShuffle", exportable=True)
class PixelShuffle(Config):
    """Join square groups of neighbouring patches into one longer vector each: fewer tokens, nothing lost.

    The tokens are the rows of a square grid of patches, without a class token.
    """

    factor: int = Field(2, gt=0, description="side of a group: 2 joins four patches")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the factor of an Idefics 3 or an InternVL, whichever way it is said."""
        factor, ratio = source.root.get("scale_factor"), source.root.get("downsample_ratio")
        if factor is None and ratio is None:
            return {}
        wanted = factor if factor is not None else 1 / ratio if isinstance(ratio, int | float) and ratio else 0
        if not isinstance(wanted, int | float) or wanted < 1 or wanted != int(wanted):
            said = f"scale_factor {factor!r}" if factor is not None else f"downsample_ratio {ratio!r}"
            raise ValueError(f"{source.text} has {said}, wanted a whole number of patches on a side of a group")
        return {"factor": int(wanted)}

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """`factor` squared times fewer tokens, each so many times wider."""
        joined = self.factor**2
        return Ports.of({"x": f"float[batch {joined}*groups width]"}, {"y": f"float[batch groups {joined}*width]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The tokens must be a grid whose side the groups divide."""
        return torn_grids(node, factor=self.factor)


@component("projector/stack", kind="projector", module="modelgraft_plugins.projectors.modules:Stack", exportable=True)
class Stack(Config):
    """Join runs of neighbouring tokens into one longer vector each, as ears before a language model do: fewer tokens, nothing lost."""

    factor: int = Field(4, gt=0, description="tokens of a run")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read how many tokens the projector behind it takes at a time: its width over that of the ear."""
        width, inner = (_width(source.root, f"audio_config.{key}") for key in ("hidden_size", "intermediate_size"))
        return {"factor": inner // width} if width and inner else {}

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """`factor` times fewer tokens, each so many times wider."""
        return Ports.of({"x": f"float[batch {self.factor}*runs width]"}, {"y": f"float[batch runs {self.factor}*width]"})


@component("projector/normed_pool", kind="projector", module="modelgraft_plugins.projectors.modules:NormedPool", exportable=True)
class NormedPool(Config):
    """Average square groups of neighbouring patches, norm each mean, and map it to another width, as Gemma 3 does.

    The tokens are the rows of a square grid of patches, without a class token.
    """

    in_features: Dim = None
    out_features: Dim = None
    side: int = Field(64, gt=0, description="patches of a row, and of a column")
    factor: int = Field(4, gt=0, description="side of a group: 4 averages sixteen patches")
    eps: float = Field(1e-6, gt=0, description="of the norm, whose weight stands around 0")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shape of the map, and the grids before and behind it from the config of the model around it."""
        root = source.root
        patches = (_width(root, "vision_config.image_size") or 224) // (_width(root, "vision_config.patch_size") or 16)
        side = math.isqrt(root.get("mm_tokens_per_image") or 256)
        if side == 0 or patches % side:
            raise ValueError(f"{source.text} makes {side} x {side} tokens of {patches} x {patches} patches, which are no whole groups")
        weight = source.shape("mm_input_projection_weight")
        sizes = {"in_features": weight[0], "out_features": weight[1]} if weight is not None else {}
        return {**sizes, "side": patches, "factor": patches // side, "eps": (root.get("vision_config") or {}).get("layer_norm_eps", 1e-6)}

    @model_validator(mode="after")
    def _has_whole_groups(self) -> NormedPool:
        if self.side % self.factor:
            raise ValueError(f"side is {self.side}, which groups of {self.factor} x {self.factor} do not divide")
        return self

    @property
    def patches(self) -> int:
        """Vectors of the grid."""
        return self.side**2

    @property
    def groups(self) -> int:
        """Vectors that come of them."""
        return (self.side // self.factor) ** 2

    def ports(self) -> Ports:
        """A vector for each patch in, one for each group out."""
        return Ports.of({"x": "float[batch patches in_features]"}, {"y": "float[batch groups out_features]"})

    def parameters(self) -> int:
        """Count the map and the norm."""
        return (self.in_features or 0) * ((self.out_features or 0) + 1)


def linear(inputs: int, outputs: int, *, bias: bool) -> int:
    """Count the parameters of a linear layer."""
    return inputs * outputs + (outputs if bias else 0)


def _width(root: Mapping[str, Any], path: str) -> int | None:
    """A number of a config by its dotted path; of a table of names, how many there are."""
    found: Any = root
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return len(found) if isinstance(found, Mapping) else found


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Linear, MLP, Gated, PixelShuffle, Stack, NormedPool, Pool, Merge, Experts, CAbstractor, DAbstractor, Join, Memory):
        register(subject)
