"""Adapters: what they add to the module of their host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from modelgraft.engine.backend import LoadContext, starts_new
from modelgraft.engine.modules.building import build, count_of, dtype_of
from modelgraft.engine.modules.casting import cast
from modelgraft.engine.modules.protocol import ForAdapters
from modelgraft.engine.modules.targets import resolve
from modelgraft.kernel.words.graph import Adapter, Node

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry


def adapted(module: torch.nn.Module, context: LoadContext) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The module with the adapters of its node in it, in their order, and what a user must know of them."""
    node, warnings = context.node, tuple[str, ...]()
    if node.adapters and isinstance(module, ForAdapters):
        module = module.for_adapters()
    for adapter in node.adapters:
        before, is_new, own = count_of(module), starts_new(adapter, context), {id(parameter) for parameter in module.parameters()}
        module = cast(_graft(module, adapter, context), dtype_of(context.dtype))
        for parameter in module.parameters():
            if id(parameter) not in own and parameter.requires_grad:  # not what of the host is held anew, such as a table with one more row
                parameter.is_grafted = True  # type: ignore[attr-defined]  # for training, which may leave the host as it is
        if is_new and (added := count_of(module) - before):
            warnings += (f"{node.name}: {added:,} parameters of {adapter.component.id} start from random numbers (seed {context.seed})",)
    return module, warnings


def _graft(module: torch.nn.Module, adapter: Adapter, context: LoadContext) -> torch.nn.Module:
    """Let an adapter change the host: `load(config, context)` gives a function from module to module."""
    opened = None
    if adapter.source is not None and not starts_new(adapter, context):
        from modelgraft.sources import weights

        opened = weights.open(adapter.source, offline=context.offline)
    change = resolve(adapter.component.load or "", adapter.component)(adapter.config, replace(context, weights=opened))
    grafted: torch.nn.Module = change(module)
    return grafted


def count_adapters(node: Node, registry: Registry) -> int:
    """Count the parameters that the adapters of a node add to it, on the meta device."""
    if not node.adapters:
        return 0
    plain = [replace(adapter, source=None) for adapter in node.adapters]
    context = LoadContext(node, "meta", "float32", None, seed=0, offline=True, registry=registry)
    with torch.device("meta"):
        module = build(node.component, node)
        before = count_of(module)
        for adapter in plain:
            module = _graft(module, adapter, context)
    return count_of(module) - before
