"""Who watches the nodes of a run: the hooks of plugins, and whoever takes events. Compiled in only when there is somebody."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pluggy

from modelgraft.graph import Node
from modelgraft.ports import Port
from modelgraft.running.layout import Job

Call = Callable[..., Any]  # what runs a node: takes and gives whatever the ports carry
Emit = Callable[..., None]  # emit(kind, node, **facts)

WATCHING = ("before_node", "after_node", "on_node_error")


def has_watchers(manager: pluggy.PluginManager) -> bool:
    """Say whether a plugin implements a hook that sees nodes run."""
    return any(getattr(manager.hook, name).get_hookimpls() for name in WATCHING)


def observed(
    call: Call,
    job: Job,
    *,
    manager: pluggy.PluginManager,
    emit: Emit,
    wanted: Mapping[str, str],
    show: Callable[[Port, Any], Any],
    measure: Callable[[str, Mapping[str, Any]], None] | None,
) -> Call:
    """Tell hooks and events what a node does.

    wanted   the outputs of the graph that this node gives: name by port;  show  makes of a value what a user gets
    measure  takes the outputs of each node, for a trace; None: nobody asks
    """
    node, hook = job.step.node, manager.hook
    name, component = node.name, node.component.id

    def run(*arguments: Any) -> Any:
        emit("node-started", name)
        hook.before_node(node=name, component=component)
        start = time.perf_counter()
        try:
            result = call(*arguments)
        except BaseException as error:
            hook.on_node_error(node=name, component=component, error=error)
            emit("node-failed", name, error=error)
            raise
        seconds = time.perf_counter() - start
        outputs = by_port(node, result)
        hook.after_node(node=name, component=component, seconds=seconds, outputs=outputs)
        emit("node-finished", name, seconds=seconds)
        if measure is not None:
            measure(name, outputs)
        for port, output in wanted.items():
            emit("output", name, name=output, value=show(node.out_ports[port], outputs.get(port)))
        return result

    return run


def by_port(node: Node, result: Any) -> Mapping[str, Any]:
    """What a node gave, by output port."""
    if len(node.out_ports) == 1:
        return dict.fromkeys(node.out_ports, result)
    return result if isinstance(result, Mapping) else {}
