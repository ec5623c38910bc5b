"""The torch backend: modules as they are, called eagerly and without gradients, and plain code as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from modelgraft.plugin import (
    DTYPES,
    Backend,
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


class TorchBackend(Backend):
    """Runs modules in eager torch, and plain code as it is."""

    name = "torch"

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node.

        Raises SourceError for a checkpoint that does not fit, PluginError for code that cannot be imported or built, InputError for
        a device that is not there.
        """
        context, component = placed(context), context.node.component
        if context.precision not in ("", context.dtype):
            found = f"{context.node.name}: the torch backend has no precision '{context.precision}'"
            raise InputError(f"{found}; run the node on onnx, or choose a dtype: {choices(DTYPES)}")
        if component.function is not None:
            return Loaded(bound_function(component.function, context.node))
        if component.load is not None:
            return load_code(context)
        module, kept, warnings = load_module(context, shared)
        if context.threads is not None:
            warnings = (*warnings, f"{context.node.name}: torch has one number of threads for the whole process; `threads` is for onnx")
        if is_driven(context.node):
            return replace(load_driven(module, context), warnings=warnings, keeps=kept)
        bind = module.bind if isinstance(module, Bind) else None
        return Loaded(in_torch(module, context), state=module, bind=bind, warnings=warnings, keeps=kept)

    def close(self) -> None:
        """Give cached device memory back."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
