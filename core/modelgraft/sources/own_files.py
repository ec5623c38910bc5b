"""Which files of a folder belong to the checkpoint in it: results and notes may lie beside them."""

from __future__ import annotations

from pathlib import Path

from modelgraft.sources.refs import WEIGHT_SUFFIXES

# What the files of a checkpoint end with, and how those begin whose ending says little.
ENDINGS = (*WEIGHT_SUFFIXES, ".model", ".jinja", ".tiktoken")
BEGINNINGS = (
    "config", "generation_config", "preprocessor_config", "processor_config", "image_processor", "video_preprocessor", "adapter_config",
    "tokenizer", "special_tokens", "added_tokens", "vocab", "merges", "chat_template", "model", "pytorch_model", "label",
)  # fmt: skip


def is_of_checkpoint(path: Path) -> bool:
    """Whether a file in the folder of a checkpoint is one of its own."""
    name = path.name.lower()
    return name.endswith(ENDINGS) or (name.endswith((".json", ".txt")) and name.startswith(BEGINNINGS))
