"""Graphs checked as this machine sees them: the kernel's checks, with the sources that are here and all advice."""

from __future__ import annotations

from dataclasses import replace

from modelgraft.kernel.checking.checks import solve
from modelgraft.kernel.words.errors import raise_if_any
from modelgraft.kernel.words.graph import GraphSpec, SolvedGraph
from modelgraft.sources.views import MachineSources
from modelgraft.tools.advice import ADVICE


def checked(graph: GraphSpec, *, offline: bool = True) -> SolvedGraph:
    """Check a graph, and make every port and config value concrete.

    offline  look at sources on this machine and at recorded configs alone, never on the network

    Raises GraphError with every problem of the first phase that has any.
    """
    solved = solve(graph, sources=MachineSources(graph.registry, offline=offline), advice=ADVICE)
    if graph.training is not None:
        from modelgraft.tools.training import training_problems, training_warnings  # most graphs are not trained

        raise_if_any(training_problems(solved))
        return replace(solved, forecasts=(*solved.forecasts, *training_warnings(solved)))
    return solved
