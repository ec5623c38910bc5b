"""Ports that follow what is wired: configs whose fields take the type and the space of what feeds a port (TypeOf, SpaceOf)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.kernel.checking.configs import Configs
from modelgraft.kernel.checking.drafts import Draft
from modelgraft.kernel.words.graph import GraphSpec, Origin, Ref, Wire
from modelgraft.kernel.words.kinds import SpaceOf, TypeOf, following_fields
from modelgraft.kernel.words.order import find_cycles, topological
from modelgraft.kernel.words.ports import ListOf, Port


def fill_types(graph: GraphSpec, drafts: Mapping[str, Draft], configs: Configs) -> dict[str, Draft]:
    """Fill what such configs leave open, feeders first; give the drafts whose ports are known.

    A draft whose wires lead nowhere is left out: what is wrong with them was told, and its ports would tell it again.
    """
    feeders = {name: _feeders(draft) & drafts.keys() for name, draft in drafts.items()}
    open_drafts = {name for name, draft in drafts.items() if _open(draft)}
    if not open_drafts or find_cycles(feeders):
        return dict(drafts)
    known = dict(drafts)
    for name in topological(feeders):
        if name in open_drafts and not _fill(graph, known, known[name], configs):
            del known[name]
    return known


def _feeders(draft: Draft) -> set[str]:
    return {ref.node for wire in draft.wires.values() for ref in wire.refs}


def _open(draft: Draft) -> dict[str, TypeOf | SpaceOf]:
    marks = following_fields(draft.host.component.config)
    return {name: mark for name, mark in marks.items() if getattr(draft.host.config, name) is None}


def _fill(graph: GraphSpec, drafts: Mapping[str, Draft], draft: Draft, configs: Configs) -> bool:
    """Fill the open fields of a draft. False when it is wired, and none of the wires tells a type."""
    values: dict[str, Any] = {}
    for field, mark in _open(draft).items():
        wire = draft.wires.get(mark.port)
        if wire is None:
            continue  # told as a missing input
        found = next(((ref, port) for ref in wire.refs if (port := _giving(graph, drafts, ref)) is not None), None)
        if found is None:
            return False
        ref, port = found
        value = port.space if isinstance(mark, SpaceOf) else _entry(port, wire)
        if value is not None:
            values[field] = value
            draft.host.origins[field] = Origin("solved", None, f"that of {ref}, which feeds {draft.name}.{mark.port}")
    if values:
        configs.remake(draft.host, values)
        draft.open_ports()
    return True


def _entry(port: Port, wire: Wire) -> str:
    """The type of one option: of a list of wires that of a wire, of a wire that gives a list that of its entries."""
    given = port.type
    return str(given.item if isinstance(given, ListOf) and not wire.is_list else given)


def _giving(graph: GraphSpec, drafts: Mapping[str, Draft], ref: Ref) -> Port | None:
    if ref.is_input:
        ports = {name: given.port for name, given in graph.inputs.items()}
    else:
        ports = dict(drafts[ref.node].out_ports) if ref.node in drafts else {}
    return ports.get(ref.port) if ref.port else next(iter(ports.values())) if len(ports) == 1 else None
