"""The models of the MMBench table: what was published of each, and graphs that count and run them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelgraft.plugin import hookimpl

HERE = Path(__file__).parent
PRESETS = ("instructblip-vicuna-13b", "mpt-7b")  # in the folder presets


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes."""
    for name in PRESETS:
        register(f"preset:{name}", HERE / "presets" / name)


@hookimpl(optionalhook=True)
def register_graph_tables(register: Callable[[str, Path], None]) -> None:
    """Offer the table for `modelgraft graphs --table`."""
    register("mmbench", HERE / "tables" / "mmbench.yaml")
