"""Driven components in the hands of a backend: the loop of a node, and its parts as one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.errors import PluginError
from modelgraft.kernel.words.guard import shown
from modelgraft.kernel.words.kinds import Component
from modelgraft.loops.driven import Loop

if TYPE_CHECKING:
    from modelgraft.kernel.words.graph import Node


def is_driven(node: Node) -> bool:
    """Whether a loop goes around the parts of a node."""
    return owner_of(node).loop is not None


def owner_of(node: Node) -> Component:
    """The component whose loop a node has: its own, or an adapter in place of it, the last one before the others."""
    return next((adapter.component for adapter in reversed(node.adapters) if adapter.component.loop), node.component)


def loop_of(node: Node, facts: Mapping[str, Any], resolve: Callable[[str, Component], Any]) -> Loop:
    """The loop of a node.

    facts    what the module of the node says of itself
    resolve  imports "package.module:Class" of a component

    Raises PluginError for what is no loop.
    """
    owner = owner_of(node)
    made = resolve(owner.loop or "", owner)(node.config, facts)
    if not isinstance(made, Loop):
        raise PluginError(f"plugin '{owner.plugin}': {owner.loop} gave {shown(made)}, wanted a modelgraft.plugin.Loop")
    return made


def driving(loop: Loop, parts: Mapping[str, Any], wanted: frozenset[str]) -> Callable[..., Any]:
    """What a node is called as: its loop, around its parts. Gives what the loop gave for the wanted outputs."""

    loop.hold(parts)

    def run(*values: Any) -> Any:
        return loop.run(values, parts, wanted=wanted)

    return run
