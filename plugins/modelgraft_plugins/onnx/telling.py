"""How far the writing of a graph is, told to whoever listens."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from modelgraft.plugin import current_listener


def telling_layers(graph: Any) -> Callable[..., None]:  # Any: of onnx_ir, here and below
    """What hears of each tensor of a graph that is written, and tells which layer of how many that is."""
    layers = {id(value.const_value): _layer_in(name) for name, value in graph.initializers.items()}
    total, tell, told = max(layers.values(), default=0), current_listener(), [0]

    def hear(tensor: Any, *_: Any) -> None:
        layer = layers.get(id(tensor), 0)
        if layer > told[0]:
            told[0] = layer
            tell(layer, total, "writing for onnx, layer")

    return hear


def _layer_in(name: str) -> int:
    """The layer of a model that a tensor belongs to, by the first number in its name, from 1 on; 0: of none.

    Numbers behind the name of a matrix tell which part of it is held there.
    """
    found = re.search(r"\.(\d+)(\.|$)", name.partition(".weight")[0])
    return 0 if found is None else int(found[1]) + 1
