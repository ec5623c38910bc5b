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
FILMS: Mapping[str, Any] = {  # of its video processor: transformers 5.23, Qwen2VLVideoProcessor
    **PICTURES, "min_pixels": 128 * 28 * 28, "max_pixels": 28 * 28 * 768, "min_frames": 4, "max_frames": 768, "fps": None,
}  # fmt: skip
PREPARE: Mapping[str, Any] = {"processors": ("Qwen2VL",), "defaults": PICTURES, "marks": MARKS}

# Fields of the language model where a config has them at its root; the others there are about media.
OF_TEXT = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "use_sliding_window", "sliding_window", "max_window_layers", "layer_types",
    "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
SECTIONS = [16, 24, 24]  # of a config that says no mrope_section: Qwen2VLRotaryEmbedding of transformers 5.23


def language(kind: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What makes the config of the language model of that of the whole, which has it at its root or inside."""

    def made(config: Mapping[str, Any]) -> dict[str, Any]:
        found = {name: config[name] for name in OF_TEXT if config.get(name) is not None}
        turns = {"mrope_section": SECTIONS, **(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
        named = {turns.pop(key, None) for key in ("type", "rope_type")} - {None, "mrope", "default"}
        turns["rope_type"] = named.pop() if named else "default"
        if config.get("rope_theta") is not None:
            turns.setdefault("rope_theta", config["rope_theta"])
        return {**found, "rope_parameters": turns, "model_type": kind}

    return made


class Qwen2VLSteps:
    """One matrix for queries, keys and values; rows and columns turn them."""

    def enter(self, tower: Any, patches: Any) -> Any:
        """Each patch through one matrix, which transformers has as a convolution."""
        from torch.nn import functional

        matrix = tower.patch_embed.proj
        return functional.linear(patches.to(matrix.weight.dtype), matrix.weight.flatten(1), matrix.bias)

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


def parts(kind: str) -> dict[str, PartCard]:
    """The parts of a Qwen-VL of this type."""
    return {
        "visual": PartCard("vision_config", f"{kind}_vision"),
        "language_model": PartCard("text_config", f"{kind}_text", also="model", language="always"),
        "model": PartCard("text_config", language="always"),  # as its files call it
    }


CARD = FamilyCard(
    "qwen2_vl",
    "pictures of any size among the words of a Qwen2 that counts their rows and columns",
    wholes={
        "qwen2_vl": WholeCard(
            parts=parts("qwen2_vl"),
            tied=False,
            tied_inside=True,
            language_config=language("qwen2_vl_text"),
            components={
                "patches/prepare": PREPARE,
                "patches/frames": {"defaults": FILMS, "marks": MARKS, "fields": {}},
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
    graphs={"qwen2_vl": "qwen2_vl"},
)  # fmt: skip
