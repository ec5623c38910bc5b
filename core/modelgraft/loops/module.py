"""The module of a driven component, which holds the parts that its loop calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from modelgraft.kernel.words.errors import PluginError

if TYPE_CHECKING:
    from modelgraft.loops.tracing import Tracer


class Driven(nn.Module):
    """A module that is never called itself: it holds parts. Each stands in it under the name that the component declares."""

    def facts(self) -> Mapping[str, Any]:
        """What the loop must know of the module beside its config, as plain values: an export keeps them, and has no module."""
        return {}

    def parts(self, names: Sequence[str]) -> Mapping[str, Any]:
        """The parts, by the names that the component declares, as a loop calls them. Raises PluginError for one that is not there."""
        children = dict(self.named_children())
        missing = [name for name in names if name not in children]
        if missing:
            there = ", ".join(children) or "no modules at all"
            raise PluginError(f"{type(self).__name__} holds no part '{missing[0]}'; it holds {there}: set it under the declared name")
        return {name: children[name] for name in names}


class Traced(Driven):
    """The module of a component that traces its graphs itself."""

    @abstractmethod
    def trace(self, tracer: Tracer) -> Mapping[str, Any]:
        """Write the graphs; gives what the loop must know to make parts of them, as plain values.

        A text under "remark" is told to the user. Raises ExportError for a model that cannot be exported.
        """
        ...
