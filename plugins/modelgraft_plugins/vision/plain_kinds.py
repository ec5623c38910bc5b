"""Which vision transformers `plain.py` builds, and how each calls its parts: ViT, CLIP's and SigLIP's eyes, DINOv2.

They are one tower: patches and their places, layers with a norm before each of their halves, a norm behind. Names are those that
transformers has in memory, so that a tower may be exchanged for one of its own; those of published files are brought to them. A config
with anything that is not known here has transformers build its tower.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import AUTO

if TYPE_CHECKING:
    from modelgraft_plugins.vision import Encoder

ACTIVATIONS = frozenset({"gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu"})
# Of configs that are read whole: keys that are obeyed, keys that change nothing, and those that are obeyed at one value alone.
OBEYED = frozenset({
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "hidden_act", "layer_norm_eps", "image_size",
    "patch_size", "num_channels", "qkv_bias", "use_mask_token",
})  # fmt: skip
SILENT = frozenset({
    "architectures", "_name_or_path", "transformers_version", "torch_dtype", "dtype", "initializer_range", "layerscale_value",
    "intermediate_size", "attention_probs_dropout_prob", "hidden_dropout_prob", "drop_path_rate", "apply_layernorm",
    "reshape_hidden_states", "out_features", "out_indices", "stage_names", "id2label", "label2id", "problem_type",
})  # fmt: skip
ONLY: Mapping[str, tuple[Any, ...]] = {"use_swiglu_ffn": (False,)}


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of tower is made, and what its parts are called.

    patches   the convolution that makes them;  places  their table;  first  the class token;  unread  a token of pre-training
    before    a norm before the first layer;  layers  the list of them;  after  a norm behind the last
    halves    of a layer: the norms before attention and feed-forward, attention, the last matrix in it, and scales of what both give
    is_normed   the tokens are behind the last norm; otherwise the class token alone is
    renamed   patterns of names of published files, and what stands in their place
    """

    patches: str
    places: str
    layers: str
    halves: tuple[str, str, str, str, tuple[str, ...]]
    after: str
    first: str = ""
    unread: str = ""
    before: str = ""
    patch_bias: bool = True
    is_normed: bool = True
    has_head: bool = False
    renamed: tuple[tuple[str, Any], ...] = ()  # Any: a text, or a function of the match


CLIP_HALVES = ("layer_norm1", "layer_norm2", "self_attn", "out_proj", ())
WITHIN = (r"^vision_model\.", "")  # of files of the whole, and of the tower alone
KINDS: Mapping[str, Kind] = {
    "vit": Kind(
        patches="embeddings.patch_embeddings.projection",
        places="embeddings.position_embeddings",
        first="embeddings.cls_token",
        layers="layers",
        halves=("layernorm_before", "layernorm_after", "attention", "o_proj", ()),
        after="layernorm",
        renamed=(
            (r"^encoder\.layer\.", "layers."),
            (r"\.attention\.attention\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
            (r"\.attention\.output\.dense\.", ".attention.o_proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
        ),
    ),
    "clip": Kind(
        patches="embeddings.patch_embedding",
        places="embeddings.position_embedding.weight",
        first="embeddings.class_embedding",
        before="pre_layrnorm",
        layers="encoder.layers",
        halves=CLIP_HALVES,
        after="post_layernorm",
        patch_bias=False,
        is_normed=False,
        renamed=(WITHIN,),
    ),
    "siglip": Kind(
        patches="embeddings.patch_embedding",
        places="embeddings.position_embedding.weight",
        layers="encoder.layers",
        halves=CLIP_HALVES,
        after="post_layernorm",
        has_head=True,
        renamed=(WITHIN,),
    ),
    "dinov2": Kind(
        patches="embeddings.patch_embeddings.projection",
        places="embeddings.position_embeddings",
        first="embeddings.cls_token",
        unread="embeddings.mask_token",
        layers="encoder.layer",
        halves=("norm1", "norm2", "attention", "o_proj", ("layer_scale1", "layer_scale2")),
        after="layernorm",
        renamed=(
            (r"\.attention\.attention\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
            (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a tower is built with.

    sides    height and width in pixels of the pictures that its places were trained at;  scale  where scales of halves begin
    """

    kind: Kind
    width: int
    inner: int
    layers: int
    heads: int
    sides: tuple[int, int]
    patch: int
    channels: int
    activation: str
    epsilon: float
    qkv_bias: bool
    has_head: bool
    has_unread: bool
    scale: float = 1.0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.sides[0] // self.patch, self.sides[1] // self.patch

    @property
    def lead(self) -> int:
        """Tokens before those of the patches."""
        return 1 if self.kind.first else 0


def sizes_of(config: Encoder) -> Sizes | None:
    """What a tower is built with; None where transformers builds it."""
    name, facts = (config.model.get("model_type"), config.facts()) if config.family == AUTO else (config.family, config.facts())
    kind = KINDS.get(str(name))
    is_open = config.family == AUTO  # its config may say anything
    if kind is None or config.shapes or config.pre_logits is not None or (is_open and not _is_known(facts)):
        return None
    if config.hidden_act not in ACTIVATIONS or config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
        return None
    if name != "vit" and config.sides[0] != config.sides[1] and config.positions == "hf":
        return None  # what transformers says of it
    return Sizes(
        kind,
        width=config.hidden_size,
        inner=int(config.hidden_size * facts.get("mlp_ratio", 4)) if is_open else config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        sides=config.sides,
        patch=config.patch_size,
        channels=config.num_channels,
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        qkv_bias=config.qkv_bias if name in {"vit", "dinov2"} else True,
        has_head=kind.has_head and config.attention_head,
        has_unread=bool(kind.unread and facts.get("use_mask_token", True)),
        scale=float(facts.get("layerscale_value", 1.0)),
    )


def _is_known(facts: Mapping[str, Any]) -> bool:
    """Whether a config says nothing but what is known here."""
    return facts.keys() <= OBEYED | SILENT | ONLY.keys() and all(facts[key] in allowed for key, allowed in ONLY.items() if key in facts)


def renamed(names: Iterable[str], kind: Kind) -> dict[str, str]:
    """Names of published files -> those in memory."""
    found = {}
    for name in names:
        mine = name
        for pattern, other in kind.renamed:
            mine = re.sub(pattern, other, mine)
        found[name] = mine
    return found
