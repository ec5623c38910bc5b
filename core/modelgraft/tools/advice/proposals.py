"""What could stand between two ports that do not fit: every projector and resampler that is installed is tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from modelgraft.kernel.checking.drafts import axes_in_graph
from modelgraft.kernel.checking.matching import ANYTHING, choose, dtypes_meet
from modelgraft.kernel.checking.solver import Dims
from modelgraft.kernel.checking.unify import align
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import choices
from modelgraft.kernel.words.guard import contained
from modelgraft.kernel.words.kinds import Component, Config, Face, checked_ports, dimension_fields, face_of
from modelgraft.kernel.words.ports import Axis, Port, Ports, PortType, Tensor

INSERTED = ("projector", "resampler")
MOST = 2  # proposals in one message


@dataclass(frozen=True, slots=True)
class Proposal:
    """A component that would fit: `insert projector/linear (1408 -> 2560, 3.6 M parameters)`."""

    component: str
    change: str
    parameters: int | None
    choice: str = ""

    def __str__(self) -> str:
        cost = "" if self.parameters is None else f", {in_words(self.parameters)} parameters"
        return f"insert {self.component} {self.choice and f'with {self.choice} '}({self.change}{cost})"


def between(registry: Registry, given: Tensor, wanted: Tensor) -> list[Proposal]:
    """The smallest components that take the given type and give the wanted one; axis names in it are open."""
    found = []
    for component in registry.components.values():
        if component.kind in INSERTED and not looks_at_sizes_only(component):
            tried = (_try(component, choice, given, wanted) for choice in _choices(component))
            found.extend([proposal for proposal in tried if proposal][:1])
    found.sort(key=lambda proposal: (proposal.parameters is None, proposal.parameters or 0, proposal.component))
    return found[:MOST]


def looks_at_sizes_only(component: Component) -> bool:
    """Nothing of what comes in goes through it (`sizes_only` of its config says so): it would fit, and connect nothing."""
    return bool(getattr(component.config, "sizes_only", False))


def makers(registry: Registry, given: PortType, wanted: Port) -> str:
    """What makes a value that a port takes of one that is given, as a way out."""
    found = converters(registry, given, wanted)
    if found:
        return f"components that make {wanted} of {given}: {choices(found, most=4)}"
    return f"no installed component makes {wanted} of {given}: wire something that gives {wanted}"


def converters(registry: Registry, given: PortType, wanted: Port) -> list[str]:
    """Components that need nothing but a value of the given kind, and give one that the port takes."""
    found = []
    for id, component in registry.components.items():
        ports = _as_it_comes(component)
        needed = [port for port in ports.inputs.values() if not port.optional]
        takes = (
            len(needed) == 1 and not isinstance(given, Tensor) and needed[0].types != (ANYTHING,) and choose(given, needed[0]) is not None
        )
        if takes and any(choose(port.type, wanted) is not None for port in ports.outputs.values()):
            found.append(id)
    return found


def _as_it_comes(component: Component) -> Ports:
    """The ports of a component that nobody configured; none when it must be."""
    try:
        with contained():
            return checked_ports(component.config.model_validate({}).ports())
    except Exception:  # noqa: BLE001 a component that cannot be tried is not proposed
        return Ports()


def in_words(count: int) -> str:
    """A count as a person says it: 3.6 M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return str(count)


def _choices(component: Component) -> Iterator[dict[str, Any]]:
    """The default config, then every other value of the fields that are a choice between a few words."""
    yield {}
    for name, field in component.config.model_fields.items():
        if get_origin(field.annotation) is Literal:
            yield from ({name: word} for word in get_args(field.annotation) if word != field.default)


def _try(component: Component, choice: dict[str, Any], given: Tensor, wanted: Tensor) -> Proposal | None:
    try:
        with contained():
            config = component.config.model_validate(choice)
            config = component.config.model_validate({**choice, **_solve(face_of(config), config, given, wanted)})
            if any(getattr(config, name) is None for name in dimension_fields(component.config)):
                return None
            _solve(face_of(config), config, given, wanted)
            words = ", ".join(f"{name}: {word}" for name, word in choice.items())
            return Proposal(component.id, _change(given, wanted), config.parameters(), words)
    except Exception:  # noqa: BLE001 a component that cannot be tried is not proposed
        return None


class _DoesNotFitError(Exception):
    pass


def _solve(face: Face, config: Config, given: Tensor, wanted: Tensor) -> dict[str, int]:
    """The config fields that make the component fit; raises when it cannot."""
    [taker] = [port.tensor for port in face.declared.inputs.values() if not port.optional]
    [giver] = [port.tensor for port in face.declared.outputs.values()]
    if taker is None or giver is None or not dtypes_meet(given.dtype, taker.dtype) or not dtypes_meet(giver.dtype, wanted.dtype):
        raise _DoesNotFitError
    dims = Dims()
    for name, value in face.known.items():
        dims.know(f"it.{name}", value)
    own = {name: name if name == "batch" else f"it.{name}" for name in face.names}
    for left, right in _pairs(given, "giver", taker, own):
        dims.equate(left, right)
    for left, right in _pairs(wanted, "taker", giver, own):
        dims.equate(left, right)
    if dims.conflicts:
        raise _DoesNotFitError
    open_fields = [name for name in dimension_fields(type(config)) if getattr(config, name) is None]
    return {name: size for name in open_fields if (size := dims.value(f"it.{name}")) is not None}


def _pairs(outside: Tensor, scope: str, inside: Tensor, own: dict[str, str]) -> Iterator[tuple[Axis, Axis]]:
    names = {name: name if name == "batch" else f"{scope}.{name}" for name in outside.names}
    pairs = align(axes_in_graph(outside, names), axes_in_graph(inside, own))
    if pairs is None:
        raise _DoesNotFitError
    yield from pairs


def _change(given: Tensor, wanted: Tensor) -> str:
    """What differs: the widths when it is these, else the whole types."""
    ends = [tensor.axes[-1] for tensor in (given, wanted)]
    if all(axis is not None and axis.size is not None for axis in ends) and ends[0] != ends[1]:
        return f"{ends[0]} -> {ends[1]}"
    return f"{given} -> {wanted}"
