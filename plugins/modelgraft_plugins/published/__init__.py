"""Configs of published checkpoints, so that graphs are checked and planned without fetching anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelgraft import hookimpl

CHECKPOINTS = (
    "Salesforce/blip2-flan-t5-xl",
    "Salesforce/blip2-opt-2.7b",
    "Salesforce/instructblip-vicuna-7b",
    "google/siglip-base-patch16-224",
    "google/vit-base-patch16-224",
    "llava-hf/llava-1.5-7b-hf",
    "openai/clip-vit-large-patch14",
)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the configs; weights and tokenizers come from the hub."""
    for name in CHECKPOINTS:
        register(name, Path(__file__).parent / name)
