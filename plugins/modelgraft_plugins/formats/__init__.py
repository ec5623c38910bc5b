"""Readers of weight file formats, and configs of published checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelgraft.plugin import hookimpl
from modelgraft_plugins.formats.published import PUBLISHED

RECORDED = Path(__file__).parent / "recorded"


@hookimpl
def register_weight_readers(register: Callable[[str, str], None]) -> None:
    """Offer GGUF language models, Whisper as CTranslate2 keeps it, and the vocabulary of CLIP as its authors keep it."""
    register(".gguf", "modelgraft_plugins.formats.gguf:read")
    register(".bin", "modelgraft_plugins.formats.ctranslate2:read")
    register(".txt.gz", "modelgraft_plugins.formats.clip_bpe:read")


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the folders of `recorded/` under the names of `published.py`."""
    for source, folder in PUBLISHED.items():
        register(source, RECORDED / folder)
