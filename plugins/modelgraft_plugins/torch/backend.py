"""The torch backend as the core speaks to it: torch itself is imported when the first node is loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import version

from modelgraft.plugin import Backend, LoadContext, Loaded, load_code


class TorchBackend(Backend):
    """Runs modules in eager torch, and plain code as it is."""

    name = "torch"

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node.

        Raises SourceError for a checkpoint that does not fit, PluginError for code that cannot be imported or built, InputError for
        a device that is not there.
        """
        if context.node.component.load is not None and context.device == "cpu" and context.precision in ("", context.dtype):
            return load_code(context)  # which imports torch where it needs it
        if context.weights is not None:
            context.weights.begin()
        from modelgraft_plugins.torch.loading import load

        return load(context, shared)

    def close(self) -> None:
        """Give cached device memory back."""
        cuda = getattr(sys.modules.get("torch"), "cuda", None)  # None: another thread is still importing it
        if cuda is not None and cuda.is_available():
            cuda.empty_cache()

    def describe(self) -> str:
        """The version of torch, which says what it was built for."""
        return f"torch {version('torch')}"
