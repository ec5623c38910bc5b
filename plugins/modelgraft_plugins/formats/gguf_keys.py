"""The metadata of a GGUF language model: what is read of it, what cannot change an answer, and what is refused.

Keys of the model itself begin with its architecture (`llama.block_count`); they stand here without it, behind `{arch}`.
A test compares the table with the keys of the package `gguf`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from modelgraft_plugins.stated import Table

OBEYED = frozenset({
    "general.architecture", "general.alignment",
    "{arch}.vocab_size", "{arch}.context_length", "{arch}.embedding_length", "{arch}.block_count", "{arch}.feed_forward_length",
    "{arch}.attention.head_count", "{arch}.attention.head_count_kv", "{arch}.attention.key_length", "{arch}.attention.value_length",
    "{arch}.attention.layer_norm_rms_epsilon", "{arch}.attention.sliding_window", "{arch}.rope.freq_base", "{arch}.rope.dimension_count",
    "{arch}.rope.scaling.type", "{arch}.rope.scaling.factor", "{arch}.rope.scale_linear", "{arch}.rope.scaling.original_context_length",
    "{arch}.rope.scaling.attn_factor", "{arch}.rope.scaling.yarn_attn_factor", "{arch}.rope.scaling.yarn_beta_fast",
    "{arch}.rope.scaling.yarn_beta_slow",
    "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.scores",
    "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id", "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_space_prefix", "tokenizer.chat_template", "tokenizer.chat_template.{name}",
})  # fmt: skip
IDLE = frozenset({
    "general.quantization_version", "general.file_type", "general.name", "general.author", "general.version", "general.organization",
    "general.finetune", "general.basename", "general.description", "general.quantized_by", "general.size_label", "general.license",
    "general.license.name", "general.license.link", "general.url", "general.doi", "general.uuid", "general.repo_url", "general.source.url",
    "general.source.doi", "general.source.uuid", "general.source.repo_url", "general.tags", "general.languages", "general.datasets",
    "general.base_model.count", "general.dataset.count", "general.base_model.{id}", "general.dataset.{id}",
    "split.no", "split.tensors.count", "quantize.imatrix", "imatrix.chunk_count", "imatrix.chunk_size", "imatrix.datasets",
    "{arch}.tensor_data_layout", "{arch}.rope.scaling.finetuned", "{arch}.pooling_type", "{arch}.expert_used_count",
    "tokenizer.ggml.token_type_count", "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.cls_token_id", "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.prefix_token_id", "tokenizer.ggml.suffix_token_id", "tokenizer.ggml.middle_token_id",
    "tokenizer.huggingface.json", "tokenizer.chat_templates",
})  # fmt: skip
NONE = (0, 0.0)  # a number that says: there is none
ONE = (1, 1.0)
# What would make another model of it. Key -> the values at which it does nothing; at any other the file is refused.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "general.type": ("model",), "split.count": (0, 1), "adapter.type": (),
    "{arch}.expert_count": NONE, "{arch}.logit_scale": (*NONE, *ONE), "{arch}.residual_scale": (*NONE, *ONE),
    "{arch}.embedding_scale": (*NONE, *ONE), "{arch}.attn_logit_softcapping": NONE, "{arch}.final_logit_softcapping": NONE,
    "{arch}.use_parallel_residual": (False,), "{arch}.attention.causal": (True,), "{arch}.attention.clamp_kqv": NONE,
    "{arch}.attention.max_alibi_bias": NONE, "{arch}.attention.layer_norm_epsilon": NONE, "{arch}.attention.scale": NONE,
    "{arch}.attention.output_scale": (*NONE, *ONE), "{arch}.attention.temperature_length": NONE, "{arch}.attention.temperature_scale": NONE,
    "{arch}.attention.shared_kv_layers": NONE, "{arch}.attention.sliding_window_pattern": (), "{arch}.rope.dimension_sections": (),
    "{arch}.rope.scaling.alpha": (*NONE, *ONE), "{arch}.rope.scaling.yarn_log_multiplier": NONE,
    "{arch}.rope.scaling.yarn_ext_factor": ONE, "{arch}.leading_dense_block_count": NONE, "{arch}.nextn_predict_layers": NONE,
    "tokenizer.ggml.remove_extra_whitespaces": (False,), "tokenizer.ggml.add_sep_token": (False,),
    "tokenizer.ggml.precompiled_charsmap": ([],), "tokenizer.rwkv.world": (),
}  # fmt: skip
# Groups of the package whose keys belong to models that are not read; a file of those read that states one is refused.
FOREIGN = ("{arch}.", "adapter.", "clip.", "diffusion.", "xielu.")
# How a file would like to be sampled: told, because an answer is the likeliest one unless a temperature is set.
SAMPLING = "general.sampling."
TABLE = Table("metadata", OBEYED, IDLE, REFUSED)
_NUMBERED = re.compile(r"^(general\.(?:base_model|dataset))\.\d+\..*$")


def check(metadata: Mapping[str, Any], kind: str, *, head_size: int) -> list[list[str]]:
    """(sentence, way out) for what a file states and nothing is made of.

    Raises ValueError for what would make another model of it.
    """
    plain = {_general(key, kind): (key, value) for key, value in metadata.items()}
    usual = f"{kind}.attention.scale"
    if math.isclose(metadata.get(usual) or 0.0, head_size**-0.5, rel_tol=1e-5):
        plain.pop("{arch}.attention.scale")
    over = TABLE.over({general: value for general, (_, value) in plain.items()})
    for general, value in over.items():
        key = plain[general][0]
        if general in REFUSED or general.startswith(FOREIGN):
            raise ValueError(f"its metadata state {key} = {_short(value)}, which the models read here do not have{_way(general)}")
    return [_told(plain[general][0], value) for general, value in over.items()]


def _general(key: str, kind: str) -> str:
    """A key as the table has it."""
    if key.startswith(f"{kind}."):
        return f"{{arch}}.{key.removeprefix(f'{kind}.')}"
    if key.startswith("quantize.imatrix."):
        return "quantize.imatrix"
    if key.startswith("tokenizer.chat_template."):
        return "tokenizer.chat_template.{name}"
    return _NUMBERED.sub(r"\1.{id}", key)


def _told(key: str, value: Any) -> list[str]:
    if key.startswith(SAMPLING):
        return [
            f"the file recommends {key} = {_short(value)}, and answers are the likeliest unless a temperature is set",
            "set it in `with`",
        ]
    return [f"the file states {key} = {_short(value)}, which is not known here, so that answers may differ", f"{key} may not matter to you"]


def _way(general: str) -> str:
    if general == "split.count":
        return ": it is one of several parts; join them with `llama-gguf-split --merge`"
    if general in ("general.type", "adapter.type"):
        return ": it is no language model by itself"
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
