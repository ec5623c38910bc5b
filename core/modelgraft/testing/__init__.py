"""For authors of plugins: run one component alone, and prove that it keeps its own declaration.

    from modelgraft.testing import conform, run_node

    def test_linear_conforms():
        conform(Linear, {"in_features": 5, "out_features": 3})

`conform` builds inputs of small, odd, unlike sizes for the declared ports, so that a swapped axis shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names once more, for type checkers and editors
    from modelgraft.testing.conformance import ConformanceError as ConformanceError
    from modelgraft.testing.conformance import Trial as Trial
    from modelgraft.testing.conformance import conform as conform
    from modelgraft.testing.conformance import example as example
    from modelgraft.testing.conformance import imports_of as imports_of
    from modelgraft.testing.conformance import node_of as node_of
    from modelgraft.testing.conformance import open_node as open_node
    from modelgraft.testing.conformance import run_node as run_node
    from modelgraft.testing.likeness import same as same

__all__ = ["ConformanceError", "Trial", "conform", "example", "imports_of", "node_of", "open_node", "run_node", "same"]


def __getattr__(name: str) -> Any:  # Any: the type is that of the name asked for
    if name not in __all__:
        raise AttributeError(f"module 'modelgraft.testing' has no attribute '{name}'")
    from modelgraft.testing import conformance  # on first use: `modelgraft plugins check` starts without it

    return getattr(conformance, name)
