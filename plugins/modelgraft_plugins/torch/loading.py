"""How torch loads a node: modules as they are, called eagerly and without gradients, and plain code as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelgraft.plugin import (
    DTYPES,
    Bind,
    InputError,
    LoadContext,
    Loaded,
    bound_function,
    choices,
    in_torch,
    is_driven,
    load_code,
    load_driven,
    load_module,
    placed,
)


def load(context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
    """Load one node, as `TorchBackend.load` says."""
    context, component = placed(context), context.node.component
    if context.precision not in ("", context.dtype):
        found = f"{context.node.name}: the torch backend has no precision '{context.precision}'"
        raise InputError(f"{found}; run the node on a backend that has it, or choose a dtype: {choices(DTYPES)}")
    if component.function is not None:
        return Loaded(bound_function(component.function, context.node))
    if component.load is not None:
        return load_code(context)
    module, kept, warnings = load_module(context, shared)
    if is_driven(context.node):
        return replace(load_driven(module, context), warnings=warnings, keeps=kept)
    bind = module.bind if isinstance(module, Bind) else None
    return Loaded(in_torch(module, context), state=module, bind=bind, warnings=warnings, keeps=kept)
