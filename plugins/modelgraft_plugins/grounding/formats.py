"""The formats by their names. A new one is a file beside this with a FORMAT, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft_plugins.grounding import kosmos2, paligemma, qwen, shikra
from modelgraft_plugins.grounding.writing import Format

FORMATS: Mapping[str, Format] = {
    "kosmos2": kosmos2.FORMAT,
    "paligemma": paligemma.FORMAT,
    "qwen": qwen.FORMAT,
    "shikra": shikra.FORMAT,
}
