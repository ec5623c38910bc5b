"""Who watches the nodes of a run: the hooks of plugins, and whoever takes events. Compiled in only when there is somebody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pluggy

from modelgraft.engine.backend import Call
from modelgraft.engine.events import NodeFailed, NodeFinished, NodeSkipped, NodeStarted, Output, Sink, Warned
from modelgraft.engine.forms import in_tensors_at
from modelgraft.engine.layout import Job
from modelgraft.engine.run import SERVING
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.guard import contained, place_of, said
from modelgraft.kernel.words.ports import Port
from modelgraft.records.batch import Batch
from modelgraft.records.owning import Handed, own

Emit = Callable[..., None]  # emit(class of event, node, **facts)

WATCHING = ("before_node", "after_node", "on_node_error", "on_event")


def has_watchers(manager: pluggy.PluginManager) -> bool:
    """Say whether a plugin implements a hook that sees nodes run."""
    return any(getattr(manager.hook, name).get_hookimpls() for name in WATCHING)


def hearing(manager: pluggy.PluginManager) -> Sink | None:
    """What hands events on to the plugins that hear them; None when there is none. One that fails is a warning of the run."""
    if not manager.hook.on_event.get_hookimpls():
        return None

    def warn(text: str) -> None:
        run = SERVING.get()
        if run is not None and text not in run.said:
            run.note(text)  # not as an event: it would be handed to the same plugin

    return lambda event: call_watchers(manager, "on_event", warn=warn, event=event)


def observed(
    call: Call,
    job: Job,
    *,
    manager: pluggy.PluginManager,
    emit: Emit,
    wanted: Mapping[str, str],
    show: Callable[[Port, Any], Any],
    measure: Callable[[str, Mapping[str, Any]], int | None] | None,
) -> Call:
    """Tell hooks and events what a node does.

    wanted   the outputs of the graph that this node gives: name by port;  show  makes of a value what a user gets
    measure  takes the outputs of each node and gives their bytes, for a trace; None: nobody asks
    """
    node = job.step.node
    name, component = node.name, node.component.id

    def tell(hook: str, **facts: Any) -> None:
        call_watchers(manager, hook, warn=lambda text: emit(Warned, name, text=text), node=name, component=component, **facts)

    def run(*arguments: Any) -> Any:
        emit(NodeStarted, name)
        tell("before_node")
        start = time.perf_counter()
        try:
            result = call(*arguments)
        except BaseException as error:
            tell("on_node_error", error=error)
            emit(NodeFailed, name, error=error)
            raise
        seconds = time.perf_counter() - start
        outputs = by_port(node, result)
        tell(
            "after_node",
            seconds=seconds,
            outputs=Handed({port: (node.out_ports.get(port), value) for port, value in outputs.items()}, _ready),
        )
        if all(isinstance(value, Batch) and value.value is None for value in outputs.values()):
            emit(NodeSkipped, name, reason="it failed" if _has_failed(name) else "no record came to it")
        else:
            size = measure(name, outputs) if measure is not None else None
            emit(NodeFinished, name, seconds=seconds, thread=threading.current_thread().name, bytes=size)
        for port, output in wanted.items():
            emit(Output, name, name=output, value=show(node.out_ports[port], outputs.get(port)))
        return result

    return run


def _ready(found: tuple[Port | None, Any]) -> Any:
    """What a hook gets of the value of a port: in memory of its own, with tensors where a node gave arrays."""
    return own(in_tensors_at(*found))


def _has_failed(node: str) -> bool:
    run = SERVING.get()
    return run is not None and node in run.failed


def call_watchers(manager: pluggy.PluginManager, hook: str, *, warn: Callable[[str], None], **facts: Any) -> None:
    """Call a hook that sees things happen, plugin by plugin. One that fails is told as a warning, and changes nothing else.

    warn  takes the sentence that names the plugin, the hook and what it raised
    """
    found = getattr(manager.hook, hook)
    there = {id(one.plugin): one.plugin for one in found.get_hookimpls()}.values()
    for plugin in there:
        others = [other for other in there if other is not plugin]
        try:
            with contained():
                manager.subset_hook_caller(hook, others)(**facts)
        except Exception as error:  # noqa: BLE001 who watches is code of a plugin, which may raise anything
            place = place_of(error)
            where = f" ({place})" if place is not None else ""
            warn(f"plugin '{manager.get_name(plugin)}': its hook {hook} failed: {said(error)}{where}")


def by_port(node: Node, result: Any) -> Mapping[str, Any]:
    """What a node gave, by output port."""
    if len(node.out_ports) == 1:
        return dict.fromkeys(node.out_ports, result)
    return result if isinstance(result, Mapping) else {}
