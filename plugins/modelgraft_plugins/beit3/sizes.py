"""What a checkpoint of BEiT-3 says of its own sizes: in the words of the code it was published with, or by the shapes of its tensors.

Light: no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from modelgraft import Config
from modelgraft_plugins.stated import Table, tower_table

if TYPE_CHECKING:
    from modelgraft.plugin import Source

HEAD_WIDTH = 64  # of every published model
LEAD = 3  # rows of a picture's table of positions before its first patch: two that nothing uses, and the class token
FRONT = 2  # rows of a text's table that nothing uses
PREFIX = "beit3."  # of the trunk in a file that holds heads as well
HALF = (0.5, 0.5, 0.5)

# our word -> the word of the published code
WORDS: Mapping[str, str] = {
    "hidden_size": "encoder_embed_dim", "intermediate_size": "encoder_ffn_embed_dim", "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads", "image_size": "img_size", "patch_size": "patch_size", "num_channels": "in_chans",
    "vocab_size": "vocab_size", "max_position_embeddings": "max_source_positions", "layer_norm_eps": "layernorm_eps",
    "normalize_output": "normalize_output", "attention": "attention", "vl_expert_layers": "vl_expert_layers",
}  # fmt: skip

# settings of that code at the values that BEiT-3 has: at any other it would be another model
STILL: Mapping[str, tuple[Any, ...]] = {
    "multiway": (True,), "subln": (True,), "encoder_normalize_before": (True,), "no_scale_embedding": (True,), "no_output_layer": (True,),
    "layernorm_embedding": (False,), "share_encoder_input_output_embed": (False,), "deepnorm": (False,), "activation_fn": ("gelu",),
    "moe_freq": (0,), "rel_pos_buckets": (0,), "max_rel_pos": (0,), "xpos_rel_pos": (False,), "xpos": (False,), "task": (),
}  # fmt: skip
IDLE = frozenset(
    {"num_classes", "checkpoint_activations", "fsdp", "bert_init", "drop_path_rate", "mlp_ratio", "ddp_rank"}
)  # of heads and training
TABLE: Table = tower_table(WORDS.values(), IDLE, STILL)


class Sizes(Config):
    """The sizes of a multiway transformer; by default those of the published base model."""

    hidden_size: int = Field(768, gt=0)
    intermediate_size: int = Field(3072, gt=0, description="width inside of the experts")
    num_hidden_layers: int = Field(12, gt=0)
    num_attention_heads: int | None = Field(None, gt=0, description="None: one for each 64 of the width, as in all that are published")
    image_size: int = Field(224, gt=0, description="side of the pictures in pixels; learned positions of another side are resized")
    patch_size: int = Field(16, gt=0)
    num_channels: int = Field(3, gt=0)
    vocab_size: int = Field(64010, gt=0)
    max_position_embeddings: int = Field(1024, gt=FRONT, description="rows of the table of a text's positions, two of which nothing uses")
    layer_norm_eps: PositiveFloat = 1e-5
    normalize_output: bool = Field(True, description="there is a norm behind the last layer: all but VQA and ImageNet models have it")
    attention: Literal["decoupled", "shared"] = Field("decoupled", description="shared: one for pictures and texts, as in the paper")
    vl_expert_layers: int = Field(0, ge=0, description="top layers that have an expert for pairs, as in the paper; the published have none")
    interpolate: bool = Field(False, description="take pictures of any size, with positions resized for each")
    image_mean: tuple[float, ...] | None = Field(HALF, description="mean that the pictures must have been normalised with; None: any")
    image_std: tuple[float, ...] | None = HALF

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config; what it does not say is said by the shapes of the tensors."""
        return sizes_of(source)

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """What the config states and is not known here."""
        return TABLE.unheeded(source.root, source.text)

    @model_validator(mode="after")
    def _can_be_built(self) -> Sizes:
        if self.num_attention_heads is None and self.hidden_size % HEAD_WIDTH:
            found = f"hidden_size is {self.hidden_size}, no multiple of {HEAD_WIDTH}, so that the number of heads is not known"
            raise ValueError(f"{found}: set num_attention_heads")
        if self.image_size % self.patch_size:
            raise ValueError(uneven_patches(self.image_size, self.patch_size))
        if self.vl_expert_layers > self.num_hidden_layers:
            raise ValueError(f"vl_expert_layers is {self.vl_expert_layers}, and there are {self.num_hidden_layers} layers")
        return self

    @property
    def heads(self) -> int:
        """Heads of the attention."""
        return self.num_attention_heads or self.hidden_size // HEAD_WIDTH

    @property
    def patches(self) -> int:
        """Patches of a picture of `image_size`."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def text_positions(self) -> int:
        """The most tokens of a text."""
        return self.max_position_embeddings - FRONT

    @property
    def side(self) -> int | None:
        """Side of the pictures in pixels; None when they may have any size."""
        return None if self.interpolate else self.image_size

    def count(self, ways: str) -> int:
        """Parameters of the trunk with the branches `A` (pictures), `B` (texts) or `AB`."""
        width, inner = self.hidden_size, self.intermediate_size
        seeing = 4 * (width * width + width) + 2 * width + 2 * width  # four linear layers, the norm inside and the norm before
        expert = 2 * width * inner + inner + width + 2 * inner + 2 * width  # two linear layers, the norm inside and the norm before
        layer = seeing * (1 if self.attention == "shared" else len(ways)) + expert * len(ways)
        pairs = expert * self.vl_expert_layers * (len(ways) > 1)
        picture = 2 * width + self.num_channels * self.patch_size**2 * width + width + (LEAD + self.patches) * width
        text = (self.vocab_size + self.max_position_embeddings) * width
        entries = picture * ("A" in ways) + text * ("B" in ways)
        return entries + self.num_hidden_layers * layer + pairs + 2 * width * len(ways) * self.normalize_output


def uneven_patches(side: int, patch: int) -> str:
    """The sentence about a side that the patch does not divide."""
    below = side // patch * patch
    ways = f"{below} or {below + patch}" if below else f"{patch}"
    return f"image_size is {side}, which the patch_size {patch} does not divide: set image_size to {ways}"


def must_be(source: Source, kind: str, name: str) -> None:
    """Raise ValueError for a source whose config says that it is of another kind; one that says nothing is looked at by its tensors."""
    found = source.root.get("model_type", kind)
    if found != kind:
        raise ValueError(f"{source.text} is no {name}: its model_type is '{found}', and wanted is '{kind}'")


def sizes_of(source: Source) -> dict[str, Any]:
    """The fields of Sizes that a source decides. Raises ValueError for a source of something else."""
    must_be(source, "beit3", "BEiT-3")
    stated = {word: source.root[key] for word, key in WORDS.items() if source.root.get(key) is not None}
    if "hidden_size" in stated and "intermediate_size" not in stated and (ratio := source.root.get("mlp_ratio")):
        stated["intermediate_size"] = int(stated["hidden_size"] * ratio)
    return {**_by_shapes(source), **stated}


def _by_shapes(source: Source) -> dict[str, Any]:
    """What the tensors say; empty where there are none that can be looked at."""
    shapes = trunk_shapes(source)
    if not shapes:
        return {}
    picture, text = shapes.get("encoder.embed_positions.A.weight"), shapes.get("text_embed.weight")
    inner = shapes.get("encoder.layers.0.ffn.A.fc1.weight") or shapes.get("encoder.layers.0.ffn.B.fc1.weight")
    if inner is None:
        known = "a file of BEiT-3 has beit3.encoder.layers.0.ffn.A.fc1.weight"
        raise ValueError(f"{source.text} holds no multiway transformer: {known}")
    found: dict[str, Any] = {
        "intermediate_size": inner[0], "hidden_size": inner[1], "normalize_output": any("encoder.layer_norm." in key for key in shapes),
        "num_hidden_layers": len({key.split(".")[2] for key in shapes if key.startswith("encoder.layers.")}),
        "vl_expert_layers": len({key.split(".")[2] for key in shapes if ".ffn.VL." in key}),
        "attention": "shared" if any(".self_attn.q_proj.AB." in key for key in shapes) else "decoupled",
    }  # fmt: skip
    if text is not None:
        found["vocab_size"] = text[0]
    if (table := shapes.get("encoder.embed_positions.B.weight")) is not None:
        found["max_position_embeddings"] = table[0]
    if (patch := shapes.get("vision_embed.proj.weight")) is not None:
        found |= {"num_channels": patch[1], "patch_size": patch[2]}
        found |= {"image_size": _side(source, picture[0] - LEAD) * patch[2]} if picture is not None else {}
    return found


def trunk_shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """The shapes of the trunk's tensors by the names that they have below `beit3.`; what beside it is a head is left out."""
    shapes = source.tensor_shapes()
    inside = {key.removeprefix(PREFIX): shape for key, shape in shapes.items() if key.startswith(PREFIX)}
    return inside or dict(shapes)


def _side(source: Source, patches: int) -> int:
    side = math.isqrt(max(patches, 0))
    if side * side != patches or not side:
        raise ValueError(f"{source.text} has positions for {patches} patches, which are no square: set image_size")
    return side
