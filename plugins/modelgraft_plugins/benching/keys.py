"""What a cell means, as a digest: the same in every file of results, whatever its axes are called and whichever release measured it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.commands import job_of

if TYPE_CHECKING:
    from modelgraft.plugin import Adapter, Node, Plan, Step

DERIVED = frozenset({"default", "source", "solved"})  # layers of values that nobody wrote


def key_of(plan: Plan, *, batch: int, threads: int | None) -> str:
    """A digest of what a person decided about a cell: parts, settings, sources, wires, and where and how they run.

    What follows from that is not in it, nor are versions: a cell keeps its key when a release adds a setting with a default.
    """
    graph = plan.graph
    whole = {
        "graph": graph.name,
        "nodes": {step.node.name: [_node(step.node), *_place(step)] for step in plan.steps},
        "outputs": {name: str(ref) for name, ref in plan.wanted.items()},
        "limits": dict(plan.limits),
        "batch": batch,
        "threads": threads,
    }
    return _digest(whole)


def digest_of_plan(plan: Plan, *, seed: int, init: str | None) -> str:
    """A digest of all that decides what a graph computes, with versions and contents: other than the key, it tells changes."""
    return _digest(job_of(plan, data=None, seed=seed, init=init))


def _digest(value: Any) -> str:  # Any: plain values
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _node(node: Node) -> list[Any]:  # Any: plain values
    wires = {port: [str(ref) for ref in refs] for port, refs in node.wired.items()}
    adapters = [_part(adapter) for adapter in node.adapters]
    return [_part(node), adapters, wires, str(node.when), node.lazy, node.share]


def _place(step: Step) -> list[Any]:  # Any: plain values
    """Where and how precisely a node runs; what is plain Python runs where it runs."""
    if step.node.component.module is None:
        return []
    return [step.backend, step.device, step.dtype, step.precision, step.threads]


def _part(user: Node | Adapter) -> list[Any]:  # Any: plain values
    return [user.component.id, _written(user), user.source.text if user.source is not None else None]


def _written(user: Node | Adapter) -> Mapping[str, Any]:  # Any: values of a config
    """The settings that somebody wrote, without those that say what silence says as well."""
    fields = type(user.config).model_fields
    found = {name: getattr(user.config, name) for name, origin in user.origins.items() if name in fields and origin.layer not in DERIVED}
    return {name: value for name, value in found.items() if user.source is not None or value != fields[name].default}
