"""What could feed a port that nothing feeds."""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft.kernel.checking.drafts import Draft
from modelgraft.kernel.checking.matching import agree, choose
from modelgraft.kernel.checking.wiring import references
from modelgraft.kernel.words.graph import GraphSpec
from modelgraft.kernel.words.ports import Port, PortType, Tensor


def feeding(graph: GraphSpec, drafts: Mapping[str, Draft], end: str, port: Port) -> str:
    """A way out for an input, `node.port`, that must be wired."""
    node, _, name = end.rpartition(".")
    could = givers(graph, drafts, node, name, port)
    more = f"; {', '.join(could[1:4])} would fit as well" if len(could) > 1 else ""
    return f"wire it: in: {{{name}: {could[0]}}}{more}" if could else f"nothing in this graph gives {port} yet"


def givers(graph: GraphSpec, drafts: Mapping[str, Draft], node: str, name: str, port: Port) -> list[str]:
    """What could feed a port: inputs that nothing reads yet, then other inputs, then nodes; of each those of its name first."""
    read = {ref.port for _, ref, _ in references(graph) if ref.is_input}
    could = [(int(other in read), f"inputs.{other}") for other, given in graph.inputs.items() if suits(given.port.type, port)]
    for other in drafts.values():
        if other.name != node:
            could += [(2, f"{other.name}.{out}") for out, giving in other.out_ports.items() if suits(giving.type, port)]
    return [text for _, _, text in sorted((rank, text.rpartition(".")[2] != name, text) for rank, text in could)]


def suits(given: PortType, port: Port) -> bool:
    """A person may well have meant to wire these: tensors agree in dtype and number of axes too."""
    chosen = choose(given, port)
    return chosen is not None and (not isinstance(given, Tensor) or not isinstance(chosen, Tensor) or agree(given, chosen))
