"""Nodes on their way from what is written to what is solved: each component found, with its config and its ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelgraft.kernel.words.errors import Place, Problem
from modelgraft.kernel.words.graph import NodeSpec, Origin, Ref, Wire
from modelgraft.kernel.words.kinds import Component, Config, checked_ports
from modelgraft.kernel.words.ports import Axis, Port, Ports, PortType, Tensor, tensor_in
from modelgraft.kernel.words.source import Source

BATCH = "batch"  # the one axis name that means the same in the whole graph


@dataclass(frozen=True, slots=True)
class Face:
    """The ports of a component under one config, shared by all nodes that are configured alike.

    declared  with the axis names as the component wrote them;  names  all of these
    known     the names that are fields or properties of the config, with their numbers
    """

    declared: Ports
    names: tuple[str, ...]
    known: Mapping[str, int]


def face_of(config: Config) -> Face:
    """The ports under a config. Raises whatever the component's code raises."""
    declared = checked_ports(config.ports())
    every = (*declared.inputs.values(), *declared.outputs.values())
    names = dict.fromkeys(name for port in every for type_ in port.types if (t := tensor_in(type_)) for name in t.names)
    values = {name: getattr(config, name, None) for name in names if name != BATCH}
    known = {name: value for name, value in values.items() if isinstance(value, int) and not isinstance(value, bool)}
    return Face(declared, tuple(names), known)


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a part stands.

    scope  what its axis names belong to in messages and in the solver: the node's name, or `llm.adapters[0]`
    """

    scope: str
    node: str
    place: Place


@dataclass(slots=True)
class Part:
    """A component with its config: a node's own, or one of the adapters grafted into it.

    given    the config values that are not defaults;  origins  where each value of the config comes from
    remarks  what its source states and it does not heed
    """

    seat: Seat
    component: Component
    config: Config
    given: dict[str, Any]
    origins: dict[str, Origin]
    source: Source | None
    face: Face
    remarks: tuple[Problem, ...] = ()
    symbols: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.rename()

    @property
    def scope(self) -> str:
        """What its axis names belong to."""
        return self.seat.scope

    @property
    def node(self) -> str:
        """The node that it belongs to."""
        return self.seat.node

    @property
    def place(self) -> Place:
        """Where it is written."""
        return self.seat.place

    def rename(self) -> None:
        """Give each axis name its symbol in the graph; call it when the face has changed."""
        self.symbols = {name: name if name == BATCH else f"{self.seat.scope}.{name}" for name in self.face.names}


@dataclass(slots=True)
class Draft:
    """A node whose components are known, while it is being wired and solved.

    in_ports, out_ports  as declared;  owners  the part that each input port belongs to
    chosen               the type that each wired port takes, among its alternatives
    """

    spec: NodeSpec
    host: Part
    adapters: tuple[Part, ...]
    share: str | None
    wires: Mapping[str, Wire]
    in_ports: dict[str, Port] = field(default_factory=dict)
    owners: dict[str, Part] = field(default_factory=dict)
    wired: dict[str, tuple[Ref, ...]] = field(default_factory=dict)
    chosen: dict[str, PortType] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)
    when: Ref | None = None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.spec.name

    @property
    def parts(self) -> tuple[Part, ...]:
        """The node's own part, and those of its adapters."""
        return (self.host, *self.adapters)

    @property
    def out_ports(self) -> Mapping[str, Port]:
        """The output ports as declared."""
        return self.host.face.declared.outputs

    @property
    def feeders(self) -> set[str]:
        """The nodes that this one waits for."""
        refs = [ref for refs in self.wired.values() for ref in refs]
        return {ref.node for ref in (*refs, *([self.when] if self.when else [])) if not ref.is_input}

    def open_ports(self) -> None:
        """List the input ports: those of the host, then those of its adapters. The first of a name stays."""
        self.in_ports.clear()
        for part in self.parts:
            for name, port in part.face.declared.inputs.items():
                if name not in self.in_ports:
                    self.in_ports[name], self.owners[name] = port, part


def axes_in_graph(tensor: Tensor, symbols: Mapping[str, str]) -> tuple[Axis | None, ...]:
    """The axes of a declared type with their names as symbols of the graph."""
    return tuple(axis if axis is None or not axis.terms else axis.rename(symbols) for axis in tensor.axes)
