"""Models of transformers that own the output head of the language model inside them, and what that means for it.

Such a whole decides whether the head is the embedding table (`tie_word_embeddings` of its own config, not that of the part),
and most of them leave out what the language model by itself does to its logits last: a scale, a soft cap.
Source: the classes of transformers 5.23; tests compare the table with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# model_type of a whole -> the type of its language model, and whether the head is tied, where its config is silent
WHOLES: Mapping[str, tuple[str, bool]] = {
    "aria": ("aria_text", False), "aya_vision": ("cohere2", True), "cohere2_vision": ("cohere2", True), "cohere_compass":
    ("cohere_compass_text", False), "cosmos3_omni": ("qwen3_vl_text", False), "deepseek_ocr2": ("deepseek_ocr2_text", False),
    "deepseek_vl": ("llama", True), "deepseek_vl_hybrid": ("llama", True), "dots3_note": ("dots3_note_text", False), "emu3":
    ("emu3_text_model", False), "ernie4_5_vl_moe": ("ernie4_5_vl_moe_text", True), "exaone4_5": ("exaone4", False), "fast_vlm":
    ("qwen2", False), "fuyu": ("persimmon", False), "gemma3": ("gemma3_text", True), "gemma3n": ("gemma3n_text", True), "gemma4":
    ("gemma4_text", True), "gemma4_unified": ("gemma4_unified_text", True), "glm46v": ("glm4v_text", False), "glm4v": ("glm4v_text",
    False), "glm4v_moe": ("glm4v_moe_text", False), "glm5_next": ("glm5_next_text", False), "glm_ocr": ("glm_ocr_text", False),
    "glmga": ("glm4v_text", False), "got_ocr2": ("qwen2", True), "granite4_vision": ("granite4_vision_text", False),
    "granite_docling": ("granite_docling_text", True), "hunyuan_vl": ("hunyuan_vl_text", True), "hyperclovax_vision_v2":
    ("hyperclovax", True), "idefics2": ("mistral", False), "idefics3": ("llama", False), "internvl": ("qwen2", True), "janus":
    ("llama", True), "kimi_k25": ("deepseek_v3", True), "lfm2_vl": ("lfm2", True), "lfm3_vl": ("lfm3", True), "lighton_ocr":
    ("qwen3", True), "llava": ("llama", False), "llava_next": ("llama", False), "llava_next_video": ("llama", False),
    "llava_onevision": ("qwen2", False), "minicpm_ocr": ("qwen3_5_text", True), "minicpmv4_6": ("qwen3_5_text", False),
    "minicpmv4_7": ("qwen3_5_text", False), "minimax_m3_vl": ("minimax_m3_vl_text", False), "mistral3": ("mistral", True),
    "mistral_large4": ("mistral_large4_text", False), "muse_glimmer": ("muse_glimmer_text", False), "ovis2": ("qwen2", True),
    "paddleocr_vl": ("paddleocr_vl_text", True), "paligemma": ("gemma", True), "perception_lm": ("llama", False), "pp_chart2table":
    ("qwen2", True), "qianfan_ocr": ("qwen3", False), "qwen2_5_omni_thinker": ("qwen2_5_omni_text", False), "qwen2_5_vl":
    ("qwen2_5_vl_text", False), "qwen2_vl": ("qwen2_vl_text", False), "qwen3_5": ("qwen3_5_text", False), "qwen3_5_moe":
    ("qwen3_5_moe_text", False), "qwen3_omni_moe_thinker": ("qwen3_omni_moe_text", False), "qwen3_vl": ("qwen3_vl_text", False),
    "qwen3_vl_moe": ("qwen3_vl_moe_text", False), "qwen4_exp": ("qwen4_exp_text", False), "shieldgemma2": ("gemma3_text", True),
    "smolvlm": ("llama", False), "step3p7": ("step3p5", False), "unlimited_ocr": ("unlimited_ocr_text", False), "video_llama_3":
    ("qwen2", False), "video_llava": ("llama", False), "vipllava": ("llama", False),
}  # fmt: skip
# The key of a language model's config that says what is done to its logits last -> the value at which that is nothing
LAST: Mapping[str, Any] = {"logit_scale": 1.0, "final_logit_softcapping": None, "logits_scaling": 1.0, "lm_head_multiplier": 1.0}
# Families that do something where their config is silent
SILENT: Mapping[str, tuple[str, float]] = {
    **dict.fromkeys(("beam", "gemma2", "gemma3n_text", "inkling2_text", "vaultgemma"), ("final_logit_softcapping", 30.0)),
    "nanochat": ("final_logit_softcapping", 15.0), "cohere": ("logit_scale", 0.0625), "cohere2": ("logit_scale", 0.0625),
    "cohere2_moe": ("logit_scale", 0.0625), "minicpm3": ("logits_scaling", 10.0),
}  # fmt: skip
# Wholes whose classes do it as well
KEEPS = frozenset({
    "cohere_compass", "gemma3n", "gemma4", "gemma4_unified", "granite4_vision", "granite_docling", "hyperclovax_vision_v2",
    "mistral_large4", "muse_glimmer", "paligemma",
})  # fmt: skip


def head_is_tied(root: Mapping[str, Any]) -> bool | None:
    """Whether a whole ties the head of its language model; None for one that leaves this to the language model."""
    if root.get("model_type") not in WHOLES:
        return None
    stated = root.get("tie_word_embeddings")
    return WHOLES[root["model_type"]][1] if stated is None else bool(stated)


def language_type(root: Mapping[str, Any]) -> str | None:
    """The type of a language model whose config does not state it, by the whole around it."""
    return WHOLES.get(str(root.get("model_type")), (None, False))[0]


def left_out(root: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What a language model does to its logits last, by key, and the whole around it leaves out."""
    outer = root.get("model_type")
    return last_of(config) if outer in WHOLES and outer not in KEEPS else {}


def last_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a language model does to its logits last, by key; nothing where it does nothing."""
    silent = dict([SILENT[kind]]) if (kind := str(config.get("model_type"))) in SILENT else {}
    stated = {key: config[key] for key in LAST if key in config}
    return {key: value for key, value in {**silent, **stated}.items() if value not in (None, LAST[key])}
