"""What the pipeline knows of the compile backend; what needs torch is imported when a node is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import Backend, ExportError, GraphError, LoadContext, Loaded, Node, Problem, open_backend, option
from modelgraft_plugins.compile import notes

if TYPE_CHECKING:
    from collections.abc import Callable


class CompileBackend(Backend):
    """Runs modules as `torch.compile` makes them, and code that is no module as the torch backend does."""

    name = "compile"

    def __init__(self) -> None:
        self._torch: Backend | None = None

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node on torch, compile its module and compare the two.

        Raises GraphError `not-exportable` with the node and what torch.compile, its compiler or the parity gate said; with
        `context.fallback == "torch"` the node stays as it is on torch, and a warning says why.
        """
        if self._torch is None:
            self._torch = open_backend(context.registry, "torch")
        loaded = self._torch.load(context, shared)
        if context.node.component.module is None:
            return loaded
        from modelgraft_plugins.compile import loading

        return _or_torch(lambda: loading.compiled(loaded, context), loaded, context)

    def close(self) -> None:
        """Free what torch holds beside its nodes."""
        if self._torch is not None:
            self._torch.close()

    def recorded(self, node: Node, *, precision: str) -> Mapping[str, Any]:
        """How far the node was from torch when it was last compiled, by the same versions on this kind of machine."""
        return notes.read(node, precision=precision)


def _or_torch(make: Callable[[], Loaded], loaded: Loaded, context: LoadContext) -> Loaded:
    """What can be made of a node; the node as torch has it, with a warning, where it cannot and that is allowed."""
    try:
        return make()
    except ExportError as error:
        node = context.node
        found = f"{node.name} ({node.component.id}) cannot run on the compile backend: {error}"
        if context.fallback != "torch":
            hint = f"let it stay on torch: {option('fallback', 'torch')}, or nodes.{node.name}.runtime: {{backend: torch}} in the graph"
            raise GraphError(Problem("not-exportable", found, node.place, hint, node=node.name)) from error
        return replace(loaded, warnings=(*loaded.warnings, f"{found}; it stays on torch"))
