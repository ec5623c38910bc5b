"""What a module takes and gives as tensors: worked out of the ports of its node, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelgraft.engine.parity import ExportError
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.kinds import Config
from modelgraft.kernel.words.ports import Port, Tensor


@dataclass(frozen=True, slots=True)
class Signature:
    """What a graph made of a module takes and gives: port names with their types, in order.

    most   the largest size of an axis, by its name, where a component takes no more
    times  what the size of an axis is a multiple of, where a component takes no others
    """

    inputs: tuple[tuple[str, Port], ...]
    outputs: tuple[tuple[str, Port], ...]
    most: Mapping[str, int] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)

    @property
    def input_ports(self) -> tuple[Port, ...]:
        """The types of the inputs, in order."""
        return tuple(port for _, port in self.inputs)


def wired_inputs(node: Node) -> tuple[str, ...]:
    """The input ports that something feeds, in order."""
    return tuple(name for name in node.in_ports if node.wired.get(name))


def signature_of(node: Node, names: Sequence[str]) -> Signature:
    """Some inputs and all outputs of a node, as a graph made of its module names them. Raises ExportError for what is no tensor."""
    given = []
    for name in names:
        kind = node.in_ports[name].tensor
        if kind is None or name in node.lists:
            raise ExportError(f"its input {name} is {'a list of wires' if kind is not None else node.in_ports[name]}, not a tensor")
        given.append((name, replace(node.in_ports[name], types=(kind,))))
    for name, port in node.out_ports.items():
        if port.tensor is None or port.optional:
            raise ExportError(f"its output {name} is {port}, not a tensor that is always there")
    limits = list(_by_axis(node, lambda config: config.most()))
    most = {name: min(size for other, size in limits if other == name) for name, _ in limits}
    times = dict(_by_axis(node, lambda config: config.multiples()))
    return Signature(tuple(given), tuple(node.out_ports.items()), most, times)


def _by_axis(node: Node, said: Callable[[Config], Mapping[str, int]]) -> Iterator[tuple[str, int]]:
    """(axis, number) for what configs say of axes by their names. A node that stands for several names its axes after what gives them."""
    if not node.parts:
        yield from said(node.config).items()
        return
    for part in node.parts:
        numbers = said(part.config)
        for port, refs in part.wired.items():
            mine = part.in_ports[port].tensor if port in part.in_ports else None
            for theirs in (node.in_ports[str(ref)].tensor for ref in refs if str(ref) in node.in_ports):
                if numbers and mine is not None and theirs is not None:
                    yield from _renamed(numbers, mine, theirs)


def _renamed(numbers: Mapping[str, int], mine: Tensor, theirs: Tensor) -> Iterator[tuple[str, int]]:
    """The numbers of the axes of one tensor by the names that another has for them."""
    for own, other in zip(mine.axes, theirs.axes, strict=False):
        name = own.symbol if own is not None else None
        if name in numbers and name is not None and other is not None and other.symbol is not None:
            yield other.symbol, numbers[name]
