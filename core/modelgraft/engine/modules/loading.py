"""One node loaded in torch: its module built, filled or new, adapted and placed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from modelgraft.engine.backend import LoadContext, Loaded
from modelgraft.engine.driving import driving, loop_of
from modelgraft.engine.modules.calling import in_torch
from modelgraft.engine.modules.filling import fill, filled
from modelgraft.engine.modules.fresh import fresh
from modelgraft.engine.modules.grafting import adapted
from modelgraft.engine.modules.held import Held
from modelgraft.engine.modules.protocol import Prepare
from modelgraft.engine.modules.targets import resolve
from modelgraft.kernel.words.errors import PluginError
from modelgraft.kernel.words.guard import shown
from modelgraft.loops.module import Driven


@torch.inference_mode(mode=False)  # parameters that are made in a caller's inference mode would be of use there alone
def load_module(context: LoadContext, shared: Mapping[str, Loaded]) -> tuple[torch.nn.Module, Held | None, tuple[str, ...]]:
    """The module of a node, ready to be called; what must live as long as it does; and what a user must know of the load.

    Raises SourceError for a checkpoint that does not fit, PluginError for code that cannot be imported or built.
    """
    node, warnings, kept = context.node, tuple[str, ...](), None
    host = shared[node.share].state if node.share else None
    if host is not None:
        module = fill(context, host.state_dict())
    elif context.weights is not None:
        module, kept = filled(context)
    else:
        module, warnings = fresh(context)
    module, remarks = adapted(module, context)
    module.requires_grad_(requires_grad=False)
    module = module.to(device=context.device).eval()
    if isinstance(module, Prepare):
        module.prepare(context)
    return module, kept, (*warnings, *remarks)


def load_driven(module: torch.nn.Module, context: LoadContext) -> Loaded:
    """The loop of a driven component around the parts of its module. Raises PluginError for a module that holds none."""
    node = context.node
    if not isinstance(module, Driven):
        component = node.component
        found = f"{component.module} gave {shown(module)}, wanted a modelgraft.plugin.Driven, because it has a loop"
        raise PluginError(f"plugin '{component.plugin}': {found}")
    loop = loop_of(node, module.facts(), resolve)
    loop.prepare(context)
    parts = module.parts(tuple(node.component.parts(node.config)))

    def giving(wanted: frozenset[str]) -> Callable[..., Any]:
        return in_torch(driving(loop, parts, wanted), context)

    return Loaded(
        giving(frozenset(node.out_ports)),
        state=module,
        bind=loop.bind,
        close=loop.close,
        loop=loop,
        giving=giving if node.component.taps else None,
    )
