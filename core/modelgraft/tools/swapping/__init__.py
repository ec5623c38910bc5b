"""Putting something else into a node by its name: `--set eye=google/siglip-base-patch16-224`, where `eye` is no param of the graph.

A name means, the first that there is: a param; a node; the one node of that kind (`llm`, `encoder`); the one node whose component has it
among its keywords (`eye`, `ear`, `tongue`). What is put there is a source, a component, or a graph (`graph:NAME`). What depends on
the node follows: see `swap_following.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from modelgraft.kernel.language.interpolate import user_place
from modelgraft.kernel.words.errors import GraphError, Problem
from modelgraft.kernel.words.graph import GraphSpec
from modelgraft.tools.swapping.changes import changes_of
from modelgraft.tools.swapping.names import names_of, node_named
from modelgraft.tools.swapping.swap_following import follow

ReadGiven = Callable[[Mapping[str, Any]], GraphSpec]  # Any: as `load` takes params


def read_swapped(read: ReadGiven, params: Mapping[str, Any]) -> tuple[GraphSpec, dict[str, Any], list[str]]:
    """Read a graph with what the user sets; names that are no params of it put something else into its nodes.

    read    reads it with params and dotted keys, and raises GraphError with what is wrong

    Gives the graph, what was set without such names, and in sentences what else was changed. Raises what `read` raises.
    """
    try:
        return read(params), dict(params), []
    except GraphError as error:
        names = _unknown(error, params)
        if not names:
            raise
        told = error
    plain = {name: value for name, value in params.items() if name not in names}
    spec = read(plain)
    nodes = {name: node_named(name, spec) for name in names}
    if lost := [name for name, node in nodes.items() if node is None]:
        raise GraphError([_with_nodes(problem, spec) for problem in told.noted if _name_of(problem, names) in lost])
    swaps = {node: params[name] for name, node in nodes.items() if node is not None}
    theirs = tuple(f"nodes.{node}." for node in swaps)
    own = {name: value for name, value in plain.items() if not name.startswith(theirs)}
    spec = read(own) if own != plain else spec  # what is set of a new part means nothing to the old one
    found = changes_of(swaps, spec)
    settings, notes = follow(found, spec, lambda settings: read({**settings, **plain}))
    return read({**settings, **plain}), plain, [*found.notes, *notes]


def _unknown(error: GraphError, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that the graph has no param for, where nothing else is wrong."""
    names = tuple(name for name in params if any(_name_of(problem, (name,)) for problem in error.noted))
    return names if len(names) == len(error.noted) else ()


def _name_of(problem: Problem, names: tuple[str, ...]) -> str:
    is_unknown = problem.code == "unknown-param"
    return next((name for name in names if is_unknown and problem.place == user_place(name)), "")


def _with_nodes(problem: Problem, spec: GraphSpec) -> Problem:
    """The problem with the nodes that can be named as well."""
    nodes = f"nodes that can be set by name: {', '.join(names_of(spec))}"
    return replace(problem, hint=f"{problem.hint} {nodes}".lstrip())
