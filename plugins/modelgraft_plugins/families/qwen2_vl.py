"""Qwen2-VL: a picture of any size as many patches as it has, joined four by four, among the words of a Qwen2 (arXiv 2409.12191).

Its language model counts frames, rows and columns of pictures (M-RoPE). Its files hold it at their root, and older configs too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import linear, norm
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_STD, PLAIN

Attend = Callable[[Any, Any, Any], Any]

PICTURES: Mapping[str, Any] = {  # of its image processor, where a file is silent
    "do_resize": True, "min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280, "resample": BICUBIC, "do_convert_rgb": True, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "patch_size": 14, "merge_size": 2,
    "temporal_patch_size": 2,
}  # fmt: skip
MARKS: Mapping[str, Any] = {  # no file names those around a picture: the chat template has them
    "placeholder": ("image_token", "<|image_pad|>"),
    "start": ("vision_start_token", "<|vision_start|>"),
    "end": ("vision_end_token", "<|vision_end|>"),
}
PREPARE: Mapping[str, Any] = {"processors": ("Qwen2VL",), "defaults": PICTURES, "marks": MARKS}

# Fields that mean the same in the config of a Qwen2; its other fields are about media.
SHARED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "use_sliding_window", "sliding_window", "max_window_layers", "layer_types",
    "rope_parameters", "rope_theta", "rope_scaling", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
# What it means where it is silent and a Qwen2 would not mean the same: transformers 5.23, Qwen2VLTextConfig; a test compares them.
SILENT: Mapping[str, Any] = {
    "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_window_layers": 80, "bos_token_id": 151643, "eos_token_id": 151645,
}  # fmt: skip
THETA = 1_000_000.0  # of a config that says no rope_theta
SECTIONS = (16, 24, 24)  # of one that says no mrope_section
OF_MEDIA = frozenset({
    "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "vision_token_id", "vision_config", "text_config",
})  # fmt: skip


def language_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the Qwen2 in that of the whole, which has it at its root or inside."""
    known = {**SILENT, **config}
    found = {name: known[name] for name in SHARED if known.get(name) is not None and name not in ("rope_theta", "rope_scaling")}
    turns = {**(known.get("rope_scaling") or {}), **(known.get("rope_parameters") or {})}
    turns.pop("type", None)
    base = turns.get("rope_theta") or known.get("rope_theta") or THETA
    sections = turns.get("mrope_section") or SECTIONS
    kind = turns.get("rope_type", "default")
    turns |= {"rope_type": "default" if kind == "mrope" else kind, "rope_theta": base, "mrope_section": list(sections)}
    return {**found, "rope_parameters": turns, "model_type": "qwen2"}


class Qwen2VLSteps:
    """One matrix for queries, keys and values; rows and columns turn them."""

    def enter(self, tower: Any, patches: Any) -> Any:
        """Each patch through one matrix, which transformers has as a convolution."""
        from torch.nn import functional

        weight = tower.patch_embed.proj.weight.flatten(1)
        return functional.linear(patches.to(weight.dtype), weight)

    def turns(self, tower: Any, hidden: Any, positions: Any) -> Any:
        """Cosines and sines."""
        return tower.rotary_pos_emb(hidden, positions)

    def layers(self, tower: Any) -> Sequence[Any]:
        """The blocks."""
        return tower.blocks  # type: ignore[no-any-return]

    def layer(self, block: Any, hidden: Any, turns: Any, attend: Attend) -> Any:
        """One of them."""
        from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

        attention = block.attn
        queries, keys, values = attention.qkv(block.norm1(hidden)).unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, *turns)
        hidden = hidden + attention.proj(attend(queries, keys, values))
        return hidden + block.mlp(block.norm2(hidden))


def attention(width: int) -> int:
    """The parameters of a block's attention."""
    return linear(width, 3 * width, bias=True) + linear(width, width, bias=True)


def _count(f: Mapping[str, Any]) -> int:
    width, inner = f["hidden_size"], f["intermediate_size"]
    block = 2 * norm(width) + attention(width) + linear(width, inner, bias=True) + linear(inner, width, bias=True)
    return int(f["patch_values"] * width + f["num_hidden_layers"] * block)


EYE = TowerCard(
    "patches",
    style="qwen2_vl",
    architecture="models.qwen2_vl.modeling_qwen2_vl:Qwen2VisionTransformerPretrainedModel",
    defaults={
        "hidden_size": 1280, "mlp_ratio": 4, "num_hidden_layers": 32, "num_attention_heads": 16, "num_channels": 3, "patch_size": 14,
        "temporal_patch_size": 2, "merge_size": 2, "hidden_act": "quick_gelu", "rope_theta": 10000.0,
    },
    names={
        "hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads", "num_channels": "in_channels",
        "merge_size": "spatial_merge_size",
    },
    settings={
        "hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads", "num_channels": "in_channels",
        "patch_size": "patch_size", "temporal_patch_size": "temporal_patch_size", "merge_size": "spatial_merge_size",
        "hidden_act": "hidden_act", "mlp_ratio": "mlp_ratio",
    },
    fixed={"hidden_size": 1},  # of the merger, which is a component of its own
    pooled=False,
    any_size=True,
    count=_count,
    steps=Qwen2VLSteps(),
    obeyed=frozenset({"hidden_size"}),  # of patches/merger
    idle=frozenset({"in_chans", "spatial_patch_size"}),  # which no class reads
    more={"without": ("merger",)},
)  # fmt: skip


def parts(eye: str) -> dict[str, PartCard]:
    """The parts of a Qwen-VL whose tower is of this type."""
    return {
        "visual": PartCard("vision_config", eye),
        "language_model": PartCard("text_config", "qwen2", also="model", language="always"),
    }


CARD = FamilyCard(
    "qwen2_vl",
    "pictures of any size among the words of a Qwen2 that counts their rows and columns",
    wholes={
        "qwen2_vl": WholeCard(
            parts=parts("qwen2_vl_vision"),
            tied=False,
            language_config=language_config,
            components={
                "patches/prepare": PREPARE,
                "patches/merger": {
                    "family": "layer",
                    "fields": {
                        "in_features": ("vision_config.embed_dim", 1280), "out_features": ("vision_config.hidden_size", 3584),
                        "merge_size": ("vision_config.spatial_merge_size", 2),
                    },
                },
            },
        ),
        "qwen2_vl_vision": WholeCard(parts={"merger": PLAIN}),
    },
    towers={"qwen2_vl_vision": EYE},
)  # fmt: skip
