"""Declared ports with every number in place that was solved, and `...` replaced by the axes it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelgraft.kernel.checking.drafts import Part
from modelgraft.kernel.checking.unify import Axes, Link, Unified, input_symbol
from modelgraft.kernel.words.graph import GraphInput
from modelgraft.kernel.words.ports import Axis, ListOf, Modality, Port, PortType, Tensor


def concrete_type(type_: PortType, part: Part | None, unified: Unified) -> PortType:
    """One type of a part, or of an input of the graph when there is no part."""
    if isinstance(type_, Modality):
        return type_
    if isinstance(type_, ListOf):
        return ListOf(concrete_type(type_.item, part, unified))
    return concrete_tensor(type_, part, unified)


def concrete_tensor(tensor: Tensor, part: Part | None, unified: Unified) -> Tensor:
    """One tensor type of a part, or of an input of the graph when there is no part."""
    symbols: Mapping[str, str] = part.symbols if part is not None else {name: input_symbol(name) for name in tensor.names}
    values = {name: value for name in tensor.names if (value := unified.dims.value(symbols.get(name, name))) is not None}
    bound = tensor.bind(values) if values else tensor
    rest = unified.rest.get(part.scope) if part is not None else None
    if rest is None or None not in bound.axes:
        return bound
    at = bound.axes.index(None)
    return Tensor(bound.dtype, (*bound.axes[:at], *_read_here(rest, unified), *bound.axes[at + 1 :]))


def types_of(link: Link, unified: Unified) -> tuple[Tensor, Tensor]:
    """What a link gives and takes, with every known number in place; one whose numbers of axes differ takes what it declares."""
    given = concrete_tensor(link.giver, unified.owner_of_giver(link), unified)
    is_odd = link in unified.ranks
    return given, link.taker if is_odd else concrete_tensor(link.taker, unified.owner_of_taker(link), unified)


def concrete_port(port: Port, part: Part, unified: Unified) -> Port:
    """A port of a part."""
    types = tuple(concrete_type(type_, part, unified) for type_ in port.types)
    return port if types == port.types else replace(port, types=types)


def concrete_input(given: GraphInput, unified: Unified) -> GraphInput:
    """An input of the graph, with what its takers say about its axes."""
    types = tuple(concrete_type(type_, None, unified) for type_ in given.port.types)
    return replace(given, port=replace(given.port, types=types))


def _read_here(rest: Axes, unified: Unified) -> Axes:
    """Axes of another node as this one shows them: their numbers, or their names without the node."""
    shown: list[Axis | None] = []
    for axis in rest:
        if axis is None:
            shown.append(None)
            continue
        known = unified.known(axis)
        shown.append(known.rename({name: name.rpartition(".")[2] for name in known.names}))
    return tuple(shown)
