"""What a map is made of, as digests: two maps with the same job write the same rows, and one can go on where the other stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.kernel.words.graph import Adapter, Node
from modelgraft.kernel.words.plan import Plan, Step
from modelgraft.kernel.words.wording import option
from modelgraft.records.homes import home_read
from modelgraft.sources.own_files import is_of_checkpoint
from modelgraft.sources.source_view import viewed
from modelgraft.sources.storage import stamp_of

if TYPE_CHECKING:
    from modelgraft.kernel.words.source import Source

DERIVED = ("source", "solved")  # layers of values that follow from the source and from the neighbours of a node
MapJob = dict[str, Any]  # plain values, so that it can lie beside the results as JSON


def job_of(plan: Plan, *, data: str | None, seed: int, init: str | None, asked: str | None = None) -> MapJob:
    """The job of a map: what each node computes, what is wanted, from which data, with which seed. Device and batch size are not in it.

    data   the digest of the data; None for what cannot be read again
    asked  a digest of what else decides what is made of the data, such as the settings of who puts questions about them
    """
    graph = plan.graph
    return {
        "nodes": {step.node.name: _step_digest(step, plan) for step in plan.steps},
        "inputs": {name: [str(item.port), repr(item.default) if item.has_default else None] for name, item in graph.inputs.items()},
        "outputs": {name: str(ref) for name, ref in plan.wanted.items()},
        "data": data,
        "seed": seed,
        "init": init,
        **({} if asked is None else {"asked": asked}),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say what differs between two jobs, the plainest first."""
    for name, what in (("outputs", "the outputs are"), ("seed", "the seed is"), ("init", f"what {option('init', 'random')} decides is")):
        if before.get(name) != now[name]:
            yield f"{what} {_shown(now[name])}, not {_shown(before.get(name))}"
    if before.get("data") is None or before["data"] != now["data"]:
        yield "the data are others"
    if before.get("asked") != now.get("asked"):
        yield "what is asked of the data is other, by a setting, a name or a limit"
    then = before.get("nodes") or {}
    if changed := sorted(name for name in {*then, *now["nodes"]} if then.get(name) != now["nodes"].get(name)):
        yield f"the graph, its sources, params or backend are others at: {', '.join(changed)}"
    elif before.get("inputs") != now["inputs"]:
        yield "the inputs of the graph are others"


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, Mapping) else "none" if value is None else str(value)


def _step_digest(step: Step, plan: Plan) -> str:
    nodes = plan.graph.nodes
    weights = nodes[step.node.share] if step.node.share else None
    whole: list[Any] = [_node_parts(node, plan) for node in (step.node, *step.node.parts, weights) if node is not None]
    whole += [step.backend, step.dtype, step.precision]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=repr).encode()).hexdigest()


def _node_parts(node: Node, plan: Plan) -> list[Any]:
    """All that decides what a node computes. What its source says or its neighbours decide is in them already."""
    plugins = plan.graph.graph.registry.plugins
    parts: list[Any] = []
    users: list[Node | Adapter] = [node, *node.adapters]
    for user in users:
        plugin, config = user.component.plugin, user.config
        own = [name for name in type(config).model_fields if name not in user.origins or user.origins[name].layer not in DERIVED]
        parts += [user.component.id, user.component.version, plugins[plugin].version if plugin in plugins else ""]
        parts += [{name: getattr(config, name) for name in own}, _source_key(user.source, node)]
    wires = {port: [str(ref) for ref in refs] for port, refs in node.wired.items()}
    return [*parts, wires, str(node.when), sorted(node.lists), node.name]


def _source_key(source: Source | None, node: Node) -> list[str]:
    """What tells a source from others, the same before its files are fetched or converted and after it."""
    if source is None:
        return []
    ref = viewed(source).ref
    named = [ref.kind, ref.name, ref.member, ref.part, ref.revision, ref.sha256]
    for path in (home_read(ref.name), Path(node.place.file).parent / ref.name):
        with contextlib.suppress(OSError):
            if ref.kind in ("folder", "hub") and path.is_dir():
                return [*named, *(f"{file.name} {stamp_of(file)}" for file in sorted(path.iterdir()) if is_of_checkpoint(file))]
            if ref.kind == "file" and path.is_file():
                return [*named, stamp_of(path)]
    return named
