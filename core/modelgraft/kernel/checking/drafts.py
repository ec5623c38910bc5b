"""Nodes on their way from what is written to what is solved: each component found, with its config and its ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelgraft.kernel.words.errors import Place, Problem
from modelgraft.kernel.words.graph import NodeSpec, Origin, Ref, Wire
from modelgraft.kernel.words.kinds import Component, Config, Face
from modelgraft.kernel.words.ports import BATCH, Axis, Port, PortType, Tensor
from modelgraft.kernel.words.source import Source


@dataclass(slots=True)
class Part:
    """A component with its config: a node's own, or one of the adapters grafted into it.

    scope    what its axis names belong to in messages and in the solver: the node's name, or `llm.adapters[0]`
    node     the node that it belongs to;  place  where it is written
    given    the config values that are not defaults;  origins  where each value of the config comes from
    remarks  what its source states and it does not heed
    config, face, symbols   there once `take` was called: the config, its ports, and the symbol in the graph of each axis name
    """

    scope: str
    node: str
    place: Place
    component: Component
    given: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    source: Source | None = None
    remarks: tuple[Problem, ...] = ()
    config: Config = field(init=False)
    face: Face = field(init=False)
    symbols: Mapping[str, str] = field(init=False)

    def take(self, config: Config, face: Face) -> None:
        """Be configured, or configured anew."""
        self.config, self.face = config, face
        self.symbols = {name: name if name == BATCH else f"{self.scope}.{name}" for name in face.names}


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
