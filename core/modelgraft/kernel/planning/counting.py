"""Parameters and bytes of nodes: by the component's formula, from the headers of the weight files, or by building."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from modelgraft.kernel.words.errors import GraphError, InputError, PluginError, Problem, choices
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.guard import contained, said, shown
from modelgraft.kernel.words.kinds import Component, Config, defect_of
from modelgraft.kernel.words.plan import Parameters, Totals
from modelgraft.kernel.words.source import Source

# Bytes of one weight by dtype or precision. w8 and w4 hold a float32 scale for every 32 weights beside them.
BYTES: Mapping[str, float] = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "w8": 1 + 4 / 32, "w4": 0.5 + 4 / 32}
CountBuilt = Callable[[Node], int | None]  # the parameters of a module that is built without memory; None for other code


def count(node: Node, *, built: CountBuilt | None = None) -> Parameters:
    """Count the parameters of a node and its adapters. A frozen node trains nothing but its adapters.

    built  counts what is there once the module is built. Raises GraphError `parameter-mismatch` when that is another number
    """
    own, how = _count_part(node.component, node.config, node.source, node.name)
    if built is not None and node.component.module is not None:
        own, how = _compared(node, built(node), own, how), "built"
    grafted = [_count_part(adapter.component, adapter.config, adapter.source, node.name)[0] for adapter in node.adapters]
    added = None if None in grafted else sum(number for number in grafted if number is not None)
    total = None if own is None or added is None else own + added
    return Parameters(total, added if node.frozen else total, how)


def weight_bytes(parameters: Parameters, dtype: str) -> int | None:
    """The size of the weights in the dtype or precision they run in. Raises InputError for a dtype that is not known."""
    if dtype not in BYTES:
        raise InputError(f"dtype '{dtype}' is not known; there are: {choices(BYTES)}")
    return None if parameters.total is None else round(parameters.total * BYTES[dtype])


def add_up(counts: Iterable[tuple[Parameters, int | None]]) -> Totals:
    """Sum what is known; a sum with an unknown part is None."""
    rows = list(counts)
    return Totals(
        _sum(parameters.total for parameters, _ in rows),
        _sum(parameters.trainable for parameters, _ in rows),
        _sum(size for _, size in rows),
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = list(numbers)
    return None if None in known else sum(number or 0 for number in known)


def _count_part(component: Component, config: Config, source: Source | None, node: str) -> tuple[int | None, str]:
    try:
        with contained():
            number = config.parameters()
    except Exception as error:  # a plugin may raise anything while it counts
        found = f"plugin '{component.plugin}': {component.id} could not count the parameters of {node}: {said(error)}"
        raise PluginError(f"{found}\n    {defect_of(component, error)}") from error
    if not (number is None or (isinstance(number, int) and not isinstance(number, bool) and number >= 0)):
        raise PluginError(f"plugin '{component.plugin}': parameters() of {component.id} gave {shown(number)}; wanted: a count, or None")
    is_silent = component.kind == "adapter" and type(config).parameters is Config.parameters  # 0 would be wrong: adapters train
    if number is not None and not is_silent:
        return number, "formula" if number else "none"
    shapes = source.tensor_shapes() if source is not None and source.has_weights else {}
    return (sum(map(math.prod, shapes.values())), "checkpoint") if shapes else (None, "unknown")


def _compared(node: Node, built: int | None, told: int | None, how: str) -> int | None:
    if how in ("formula", "none") and built != told:
        found = f"{node.name} ({node.component.id}) has {told or 0:,} parameters by its formula, but {built or 0:,} when it is built"
        hint = f"this is a defect of the plugin '{node.component.plugin}': its parameters() and its module disagree"
        raise GraphError(Problem("parameter-mismatch", found, node.place, hint, node=node.name))
    return built
