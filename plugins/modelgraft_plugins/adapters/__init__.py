"""Adapters: small trained parts that are grafted into the modules of a host node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from modelgraft import Config, component, hookimpl


@component("adapter/lora", kind="adapter", load="modelgraft_plugins.adapters.lora:graft", inputs={}, outputs={})
class Lora(Config):
    """Add low-rank updates to linear layers of the host (LoRA, arXiv 2106.09685)."""

    rank: int = Field(8, gt=0, description="width of the update")
    alpha: int = Field(16, gt=0, description="the update is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(("q_proj", "v_proj"), min_length=1, description="names of the linear layers to update, as in the host")


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the adapters."""
    register(Lora)
