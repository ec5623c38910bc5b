"""Which input of a graph takes the files of a folder, and which of its outputs is the vector that is kept for each."""

from __future__ import annotations

from dataclasses import dataclass

from modelgraft.commands import types_of
from modelgraft.plugin import InputError, SolvedGraph, Tensor, choices, nearest

USUAL = "image"  # the medium that a folder is of where a graph embeds several


@dataclass(frozen=True, slots=True)
class Door:
    """An input, the record type of its files, and an output that needs no other input."""

    input: str
    medium: str
    output: str


def door_of(solved: SolvedGraph, output: str | None) -> Door:
    """Find the door of a graph.

    output  the output that is kept, or a port as "node.port"; None: the only one that is a vector of files, or of pictures

    Raises InputError with the outputs that there are.
    """
    found = {name: door for name in ([output] if output is not None else solved.outputs) if (door := _door(solved, name)) is not None}
    if output is not None:
        if not found:
            raise InputError(_why_not(solved, output))
        return found[output]
    pictures = {name: door for name, door in found.items() if door.medium == USUAL} or found
    if len(pictures) == 1:
        return next(iter(pictures.values()))
    told = choices(pictures or solved.outputs, sort=False)
    why = "several outputs are vectors of files" if pictures else "no output is a vector of one file, such as float[batch 512]"
    raise InputError(f"{solved.name}: {why}; name one by --output, of: {told}")


def _door(solved: SolvedGraph, name: str) -> Door | None:
    """The door that an output is; None when it is no vector, or needs anything but files of one kind."""
    found = _vector(solved, name)
    if found is None:
        return None
    asked = {item for item in _inputs_of(solved, found) if not solved.inputs[item].has_default}
    types = types_of(solved.graph.registry)
    if len(asked) != 1:
        return None
    (given,) = asked
    kinds = [getattr(kind, "name", "") for kind in solved.inputs[given].port.types]
    medium = next((kind for kind in kinds if kind in types and types[kind].is_file), None)
    return Door(given, medium, name) if medium is not None else None


def _vector(solved: SolvedGraph, name: str) -> str | None:
    """The node that gives an output, where that is float[batch width]."""
    ref = solved.outputs.get(name)
    node, port_name = (ref.node, ref.port) if ref is not None else (name.partition(".")[0], name.partition(".")[2])
    if node not in solved.nodes:
        return None
    ports = solved.nodes[node].out_ports
    port = ports.get(port_name) if port_name else next(iter(ports.values())) if len(ports) == 1 else None
    fits = (
        port is not None and isinstance(port.type, Tensor) and len(port.type.axes) == 2 and port.type.dtype.startswith(("float", "bfloat"))
    )
    return node if fits else None


def _inputs_of(solved: SolvedGraph, node: str) -> set[str]:
    """The inputs that a node's results depend on."""
    seen, waiting, found = set[str](), [node], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for ref in solved.nodes[name].references:
            if ref.is_input:
                found.add(ref.port)
            else:
                waiting.append(ref.node)
    return found


def _why_not(solved: SolvedGraph, output: str) -> str:
    node = output.partition(".")[0]
    if output not in solved.outputs and node not in solved.nodes:
        return f"there is no output '{output}'; there are: {choices(solved.outputs)}. {nearest(output, solved.outputs)}".rstrip()
    wanted = "a vector for each file, float[batch width], that depends on one input of pictures, sounds or other files"
    return f"the output '{output}' cannot be kept; wanted: {wanted}"
