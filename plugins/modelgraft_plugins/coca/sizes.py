"""The sizes of a CoCa, from where they stand: a config in the words of open_clip, or the shapes of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.stated import ABOUT, Table

if TYPE_CHECKING:
    from modelgraft.plugin import Source

HEAD_WIDTH = 64  # of the eye's heads in open_clip, and of the texts' in every file that was published
POOLER_HEADS, QUERIES = 8, 256  # of every file that was published
Shapes = Mapping[str, tuple[int, ...]]

# what open_clip's configs state: by the part of the config, the keys that are read, and those that change no answer, or only at some values
WHOLE = Table(
    "config", frozenset({"embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg"}),
    ABOUT | {"custom_text", "preprocess_cfg", "model_cfg", "init_logit_scale", "cast_dtype", "output_dict"},
    {"quick_gelu": (False,), "init_logit_bias": (), "nonscalar_logit_scale": (False,)},
)  # fmt: skip
EYE = Table(
    "config",
    frozenset({
        "image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio", "attentional_pool", "attn_pooler_queries",
        "attn_pooler_heads", "class_token",
    }),
    frozenset({"patch_dropout", "output_tokens"}),
    {"ls_init_value": (), "no_ln_pre": (False,), "final_ln_after_pool": (False,), "pool_type": ("tok",), "timm_model_name": ()},
)  # fmt: skip
TEXT = Table(
    "config",
    frozenset({"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "decoder_layer"}),
    frozenset({"output_tokens", "dim_head", "n_queries", "attn_pooler_heads", "hf_tokenizer_name", "embed_cls"}),
    {"ls_init_value": (), "pad_id": (0,), "no_causal_mask": (False,), "pool_type": ("argmax",), "proj_bias": (False,), "hf_model_name": ()},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sizes:
    """All sizes of a CoCa. The texts of its two halves are cut alike; their widths are those of the vectors."""

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    class_token: bool
    pooling: str
    queries: int
    pooler_heads: int
    embedding_size: int
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int
    text_heads: int
    decoder_layers: int
    decoder_heads: int
    decoder_layer: str


def words_of(source: Source, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes among the fields of a component that a source decides; none where there is no source. Raises ValueError."""
    if not source.root and not source.tensor_shapes():
        return {}
    found = asdict(sizes_of(source))
    return {name: found[name] for name in wanted if name in found}


def sizes_of(source: Source) -> Sizes:
    """The sizes of a whole source. Raises ValueError for a source of something else."""
    root = source.root.get("model_cfg", source.root)
    if root:
        if "multimodal_cfg" not in root:
            raise ValueError(f"{source.text} is no CoCa: its config has no multimodal_cfg")
        return _of_config(root)
    return _of_shapes(source.at("").tensor_shapes(), source.text)


def _of_config(root: Mapping[str, Any]) -> Sizes:
    eye, text, decoder = ({**silent, **root.get(name, {})} for name, silent in _SILENT.items())
    pooled = eye["attentional_pool"]
    return Sizes(
        image_size=eye["image_size"], patch_size=eye["patch_size"], vision_width=eye["width"], vision_layers=eye["layers"],
        vision_heads=eye["width"] // eye["head_width"], class_token=eye["class_token"],
        pooling=pooled if isinstance(pooled, str) else "openclip", queries=eye["attn_pooler_queries"],
        pooler_heads=eye["attn_pooler_heads"], embedding_size=root["embed_dim"], context_length=text["context_length"],
        vocab_size=text["vocab_size"], text_width=text["width"], text_layers=text["layers"], text_heads=text["heads"],
        decoder_layers=decoder["layers"], decoder_heads=decoder["heads"], decoder_layer=decoder["decoder_layer"],
    )  # fmt: skip


_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "decoder_layer": "openclip"}
_SILENT: Mapping[str, Mapping[str, Any]] = {  # open_clip 3.3: CLIPVisionCfg, CLIPTextCfg, MultimodalCfg
    "vision_cfg": {
        "image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "head_width": HEAD_WIDTH, "attentional_pool": True,
        "attn_pooler_queries": QUERIES, "attn_pooler_heads": POOLER_HEADS, "class_token": True,
    },
    "text_cfg": _TEXT,
    "multimodal_cfg": _TEXT,
}  # fmt: skip


def _of_shapes(shapes: Shapes, text: str) -> Sizes:
    """A file says all but its heads: those are as in every file that was published, of 64 each, the pooler's 8."""
    needed = ("visual.conv1.weight", "visual.positional_embedding", "visual.attn_pool.query", "visual.proj", "text.positional_embedding")
    if missing := [key for key in needed if key not in shapes]:
        raise ValueError(f"{text} is no CoCa of open_clip: it has no tensor {missing[0]}")
    width, _, patch, _ = shapes["visual.conv1.weight"]
    side = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
    vocabulary, text_width = shapes["text.token_embedding.weight"]
    return Sizes(
        image_size=side * patch, patch_size=patch, vision_width=width, vision_layers=_layers(shapes, "visual.transformer.resblocks."),
        vision_heads=_heads(width), class_token=True, pooling="openclip", queries=shapes["visual.attn_pool.query"][0],
        pooler_heads=POOLER_HEADS, embedding_size=shapes["visual.proj"][1], context_length=shapes["text.positional_embedding"][0] - 1,
        vocab_size=vocabulary, text_width=text_width, text_layers=_layers(shapes, "text.transformer.resblocks."),
        text_heads=_heads(text_width), decoder_layers=_layers(shapes, "text_decoder.resblocks."), decoder_heads=_heads(text_width),
        decoder_layer="openclip",
    )  # fmt: skip


def _layers(shapes: Shapes, prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})


def _heads(width: int) -> int:
    return max(width // HEAD_WIDTH, 1)


def unheeded(source: Source) -> list[tuple[str, str]]:
    """What a config states and nobody here knows."""
    root = source.root.get("model_cfg", source.root)
    found = WHOLE.unheeded(root, source.text)
    for name, table in (("vision_cfg", EYE), ("text_cfg", TEXT), ("multimodal_cfg", TEXT)):
        found += table.unheeded(root.get(name, {}), f"{source.text} ({name})")
    return found
