"""What a reader makes of the keys of a file: those that it obeys, those that cannot change the answer, and all others, which it tells.

Light: any plugin may import it. Each table stands near its reader, and a test compares it with the config class of the library
that writes the file, so that a key that is new there is noticed.

    TABLE = Table("generation_config.json", obeyed=frozenset({"num_beams"}), idle=frozenset({"use_cache"}), still={"guidance_scale": (1,)})
    TABLE.unheeded({"num_beams": 2, "guidance_scale": 3}, "org/model")      # one remark, about guidance_scale
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

REMARKS = "modelgraft_remarks"  # a key of the config.json that a reader writes: [[sentence, way out], ...] about what it found
LONGEST_VALUE = 60  # letters of a value in a remark

# What every config of a model may hold beside its own facts: who wrote it, what training or a pipeline made of it, and what a call
# may ask for. None of it changes what a model computes of given tokens. Source: PreTrainedConfig of transformers, 2.0 to 5.23.
ABOUT = frozenset({
    "_name_or_path", "name_or_path", "_commit_hash", "_from_model_config", "architectures", "auto_map", "model_type", "dtype",
    "torch_dtype", "transformers_version", "problem_type", "id2label", "label2id", "num_labels", "finetuning_task",
    "use_bfloat16", "tf_legacy_loss", "is_composition", "output_attentions", "output_hidden_states", "output_past", "return_dict",
    "return_dict_in_generate", "output_scores", "use_cache", "use_return_dict", "torchscript", "chunk_size_feed_forward",
    "initializer_range", "initializer_factor", "task_specific_params", "prefix", "tokenizer_class", "processor_class",
    "xla_device", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "attn_implementation_internal",
    "experts_implementation", "gradient_checkpointing", "pipeline_tag", "library_name", "license", "unsloth_version",
    "unsloth_fixed",
})  # fmt: skip
# Shares of units that are left out while a model is trained, and losses: nothing of them is there when it answers.
TRAINING = frozenset({
    "attention_dropout", "attention_probs_dropout_prob", "hidden_dropout", "hidden_dropout_prob", "dropout", "dropout_rate",
    "activation_dropout", "classifier_dropout", "classifier_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop", "resid_dropout",
    "embd_dropout", "layerdrop", "encoder_layerdrop", "decoder_layerdrop", "drop_path_rate", "initializer_std", "init_std",
    "output_router_logits", "router_aux_loss_coef", "router_jitter_noise",
})  # fmt: skip
# Settings of `generate` that configs of models held before there was a generation_config.json; they belong to who writes text.
FORMER_GENERATION = frozenset({
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences",
    "pad_token_id", "remove_invalid_values", "repetition_penalty", "sep_token_id", "suppress_tokens", "temperature", "top_k", "top_p",
    "typical_p",
})  # fmt: skip
# Further keys that every config held in former times, with the values at which they mean nothing: no decoder, nothing cut off.
WHOLE_DUMP: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,), "is_decoder": (False,), "is_encoder_decoder": (False,), "cross_attention_hidden_size": (),
    "pruned_heads": ({},), "tie_encoder_decoder": (False,), "position_embedding_type": ("absolute",),
}  # fmt: skip


def tower_table(obeyed: Iterable[str], idle: Iterable[str] = (), still: Mapping[str, tuple[Any, ...]] | None = None) -> Table:
    """The table of a tower: what it obeys, and beside what every config may hold what changes nothing in a tower of its kind."""
    return Table(
        "config.json",
        frozenset(obeyed),
        ABOUT | TRAINING | FORMER_GENERATION | {"tie_word_embeddings", *idle},
        {**WHOLE_DUMP, "quantization_config": (), **(still or {})},
    )


@dataclass(frozen=True, slots=True)
class Table:
    """The keys of one kind of file.

    file    its name, for messages
    obeyed  keys that the reader takes
    idle    keys that cannot change the answer
    still   key -> the values at which it changes nothing; at any other it is told
    ways    key -> a way out of its own
    """

    file: str
    obeyed: frozenset[str]
    idle: frozenset[str] = frozenset()
    still: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ways: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        """Every key that the table says something about."""
        return self.obeyed | self.idle | frozenset(self.still)

    def over(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that could change the answer and are not obeyed, with their values. A null states nothing."""
        silent = self.obeyed | self.idle
        return {
            key: value
            for key, value in stated.items()
            if value is not None and key not in silent and not any(_equal(value, harmless) for harmless in self.still.get(key, ()))
        }

    def unheeded(self, stated: Mapping[str, Any], text: str) -> list[tuple[str, str]]:
        """(sentence, way out) for each of them; `text` names the source."""
        return [(self._sentence(key, value, text), self.ways.get(key, _way(key))) for key, value in self.over(stated).items()]

    def _sentence(self, key: str, value: Any, text: str) -> str:
        shown = json.dumps(value, default=repr, ensure_ascii=False)
        shown = shown if len(shown) <= LONGEST_VALUE else f"{shown[: LONGEST_VALUE - 3]}..."
        why = "is not done here" if key in self.still else "is not known here"
        return f"the {self.file} of {text} states {key}: {shown}, which {why}, so that answers may differ"


def told(config: Mapping[str, Any], fields: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Our fields, from where a config has them: field -> (path, what it means where it is silent), None where nothing is then known."""
    found = {name: _at(config, path, default) for name, (path, default) in fields.items()}
    return {name: value for name, value in found.items() if value is not None}


def _at(config: Any, path: str, default: Any) -> Any:
    for step in path.split("."):
        if not isinstance(config, Mapping) or step not in config:
            return default
        config = config[step]
    return config


def _way(key: str) -> str:
    return f"take {key} out of the file where it does not matter to you"


def _equal(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)
