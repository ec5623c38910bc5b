"""What is known of many families, one thing of each: where their parts lie, their image processor, the head of their language model.

A family that gets a card of its own states this there; what it leaves open is still taken from here.
Source: the classes of transformers 5.23; tests compare these tables with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelgraft.plugin import EVERY, FamilyCard, LanguageCard, PartCard, PictureCard, WholeCard
from modelgraft_plugins.families._shared import (
    BICUBIC,
    BILINEAR,
    CLIP_PICTURES,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LANGUAGE,
    PLAIN,
    picture_defaults,
)

# Parts as most wholes have them. Those without a config of their own are known also where no tensors are at hand.
PARTS: Mapping[str, PartCard] = {
    "language_model": LANGUAGE,
    "text_model": PartCard("text_config", language="nested"),  # of Idefics 2 and 3
    "llm": PartCard("text_config"),
    "vision_model": PartCard("vision_config"),
    "vision_tower": PartCard("vision_config", strip="vision_model."),  # before 5.0
    "visual": PartCard("vision_config"),
    "audio_tower": PartCard("audio_config"),
    "perceiver_resampler": PartCard("perceiver_config"),
    **dict.fromkeys((
        "classifier", "language_projection", "lm_head", "logit_bias", "logit_scale", "model", "multi_modal_projector", "pooler",
        "query_tokens", "text_projection", "visual_projection", "encoder", "decoder",
    ), PLAIN),
}  # fmt: skip

# model_type of a whole that owns the output head -> the type of its language model, and whether the head is tied where it is silent
HEADS: Mapping[str, tuple[str, bool]] = {
    "aria": ("aria_text", False), "aya_vision": ("cohere2", True), "cohere2_vision": ("cohere2", True), "cohere_compass":
    ("cohere_compass_text", False), "cosmos3_omni": ("qwen3_vl_text", False), "deepseek_ocr2": ("deepseek_ocr2_text", False),
    "deepseek_vl": ("llama", True), "deepseek_vl_hybrid": ("llama", True), "dots3_note": ("dots3_note_text", False), "emu3":
    ("emu3_text_model", False), "ernie4_5_vl_moe": ("ernie4_5_vl_moe_text", True), "exaone4_5": ("exaone4", False), "fast_vlm":
    ("qwen2", False), "fuyu": ("persimmon", False), "gemma3n": ("gemma3n_text", True), "gemma4":
    ("gemma4_text", True), "gemma4_unified": ("gemma4_unified_text", True), "glm46v": ("glm4v_text", False), "glm4v": ("glm4v_text",
    False), "glm4v_moe": ("glm4v_moe_text", False), "glm5_next": ("glm5_next_text", False), "glm_ocr": ("glm_ocr_text", False), "glmga":
    ("glm4v_text", False), "got_ocr2": ("qwen2", True), "granite4_vision": ("granite4_vision_text", False), "granite_docling":
    ("granite_docling_text", True), "hunyuan_vl": ("hunyuan_vl_text", True), "hyperclovax_vision_v2": ("hyperclovax", True), "idefics2":
    ("mistral", False), "idefics3": ("llama", False), "internvl": ("qwen2", True), "janus": ("llama", True), "kimi_k25": ("deepseek_v3",
    True), "lfm2_vl": ("lfm2", True), "lfm3_vl": ("lfm3", True), "lighton_ocr": ("qwen3", True), "minicpm_ocr": ("qwen3_5_text", True),
    "minicpmv4_6": ("qwen3_5_text", False), "minicpmv4_7": ("qwen3_5_text", False), "minimax_m3_vl": ("minimax_m3_vl_text", False),
    "mistral3": ("mistral", True), "mistral_large4": ("mistral_large4_text", False), "muse_glimmer": ("muse_glimmer_text", False),
    "ovis2": ("qwen2", True), "paddleocr_vl": ("paddleocr_vl_text", True),  "perception_lm": ("llama",
    False), "pp_chart2table": ("qwen2", True), "qianfan_ocr": ("qwen3", False), "qwen2_5_omni_thinker": ("qwen2_5_omni_text", False),
    "qwen2_5_vl": ("qwen2_5_vl_text", False), "qwen2_vl": ("qwen2_vl_text", False), "qwen3_5": ("qwen3_5_text", False), "qwen3_5_moe":
    ("qwen3_5_moe_text", False), "qwen3_omni_moe_thinker": ("qwen3_omni_moe_text", False), "qwen3_vl": ("qwen3_vl_text", False),
    "qwen3_vl_moe": ("qwen3_vl_moe_text", False), "qwen4_exp": ("qwen4_exp_text", False), "shieldgemma2": ("gemma3_text", True),
    "smolvlm": ("llama", False), "step3p7": ("step3p5", False), "unlimited_ocr": ("unlimited_ocr_text", False), "video_llama_3":
    ("qwen2", False),
}  # fmt: skip
# Wholes whose head is tied as well where only the config of the language model inside says so
TIED_INSIDE = frozenset({
    "fast_vlm", "glm4v", "glm4v_moe", "glm_ocr", "hunyuan_vl", "minimax_m3_vl", "paddleocr_vl", "shieldgemma2", "video_llama_3",
})  # fmt: skip
# Wholes whose classes do to the logits last what their language model does by itself
KEEPS = frozenset({
    "cohere_compass", "gemma3n", "gemma4", "gemma4_unified", "granite4_vision", "granite_docling", "hyperclovax_vision_v2",
    "mistral_large4", "muse_glimmer",
})  # fmt: skip
# model_type of a language model -> what it does to its logits last where its config is silent
LAST: Mapping[str, tuple[str, float]] = {
    **dict.fromkeys(("beam", "gemma3n_text", "inkling2_text", "vaultgemma"), ("final_logit_softcapping", 30.0)),
    "nanochat": ("final_logit_softcapping", 15.0), "cohere": ("logit_scale", 0.0625), "cohere2": ("logit_scale", 0.0625),
    "cohere2_moe": ("logit_scale", 0.0625), "minicpm3": ("logits_scaling", 10.0),
}  # fmt: skip
CROSSING = ("mt5", "umt5", "longt5", "bart", "mbart", "pegasus", "marian", "m2m_100")  # encoder-decoders
# the image processor of a model whose files do not name one
PICTURES: Mapping[str, str] = {
    **dict.fromkeys((
          "altclip", "florence2", "git", "groupvit", "kosmos-2", "metaclip_2", "mlcd", "xclip",
    ), "CLIP"),
    **dict.fromkeys(("bit",  "focalnet", "hiera", "pixio"), "Bit"),
    "blip": "Blip",
    **dict.fromkeys(("colpali", "gemma3n"), "Siglip"),
    **dict.fromkeys(("pvt", "pvt_v2"), "Pvt"),
    **dict.fromkeys((
        "clipseg", "dinat", "ijepa", "mgp-str", "swiftformer", "swin", "swinv2", "trocr", "vit_mae", "vit_msn",
    ), "ViT"),
    "chinese_clip": "ChineseCLIP", "deit": "DeiT", "mobilenet_v1": "MobileNetV1",
}  # fmt: skip


def _whole(kind: str) -> WholeCard:
    parts: dict[str, PartCard] = {}
    if kind in HEADS:
        parts["language_model"] = replace(LANGUAGE, kind=HEADS[kind][0])
    tied = HEADS[kind][1] if kind in HEADS else None
    return WholeCard(
        parts=parts, pictures=PICTURES.get(kind, ""), tied=tied, tied_inside=kind in TIED_INSIDE, keeps=kind in KEEPS,
    )  # fmt: skip


CARD = FamilyCard(
    "others",
    "what is known of many families, one thing of each",
    wholes={EVERY: WholeCard(parts=PARTS), **{kind: _whole(kind) for kind in sorted({*HEADS, *KEEPS, *PICTURES})}},
    languages={
        **{kind: LanguageCard(crosses=True) for kind in CROSSING},
        **{kind: LanguageCard(last=last) for kind, last in LAST.items()},
    },
    pictures={
        "ChineseCLIP": PictureCard(CLIP_PICTURES, is_square=False),
        "DeiT": PictureCard(picture_defaults(256, resample=BICUBIC, mean=HALF, std=HALF, crop=224, rgb=False)),
        "Pvt": PictureCard(picture_defaults(224, resample=BICUBIC, mean=IMAGENET_MEAN, std=IMAGENET_STD, rgb=False)),
        "MobileNetV1": PictureCard(
            picture_defaults(256, resample=BILINEAR, mean=HALF, std=HALF, crop=224, edge=True, rgb=False), is_square=False
        ),
    },
    table=True,
)
