"""The llamacpp backend as the core speaks to it. What needs torch or llama.cpp lies in siblings, and is imported when it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from modelgraft.plugin import Backend, LoadContext, Loaded, Node, open_backend, owner_of, resolve
from modelgraft_plugins.llamacpp import notes

INSTALL = "pip install 'modelgraft[llamacpp]' (it compiles llama.cpp, which needs a C++ compiler and CMake)"


class LlamaCppBackend(Backend):
    """Runs the decoder of a GGUF file on llama.cpp, and code that is no module as the torch backend does."""

    name = "llamacpp"

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node: the decoder of a `.gguf` file, compared with torch when it is first used on this kind of machine.

        Raises GraphError `not-exportable` with the node and what llama.cpp cannot run or gives otherwise than torch, InputError for a
        precision that is not the file's, PluginError where llama.cpp is not installed.
        """
        torch = open_backend(context.registry, "torch")
        if context.node.component.module is None:
            return torch.load(context, shared)
        from modelgraft_plugins.llamacpp.loading import load

        return load(context, shared, torch)

    def begin(self, node: Node, *, precision: str, threads: int | None) -> bool:  # noqa: ARG002 there is nothing to begin
        """See Backend: a decoder that was compared with torch needs it no more, where its loop computes with arrays."""
        owner = owner_of(node)
        return owner.loop is not None and notes.facts(node) is not None and bool(resolve(owner.loop, owner).arrays)

    def why_not(self) -> str:
        """The package that it needs, where that is not installed."""
        return "" if importlib.util.find_spec("llama_cpp") is not None else f"not installed: llama-cpp-python; {INSTALL}"

    def recorded(self, node: Node, *, precision: str) -> Mapping[str, Any]:  # noqa: ARG002 it is that of the file
        """How far the node was from torch when it was first used, by the same llama.cpp on this kind of machine."""
        return notes.recorded(node)

    def describe(self) -> str:
        """The version of the bindings, which bring llama.cpp."""
        try:
            return f"llama-cpp-python {version('llama-cpp-python')}"
        except PackageNotFoundError:
            return ""
