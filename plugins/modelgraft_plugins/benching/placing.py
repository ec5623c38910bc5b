"""What the nodes of a graph may be placed on: torch, compiled torch, or ONNX at several precisions, and why not where one may not.

A unit is a node as the document has it: a graph that stands as a node is one, because its `runtime` is that of all its nodes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelgraft.plugin import PRECISIONS

if TYPE_CHECKING:
    from modelgraft.plugin import BackendCard, Plan, Step

Placement = Mapping[str, str]  # the option of each unit that does not stay as it is, by the names of both
Keys = Mapping[str, str]  # of `runtime`

AS_IT_IS = "as it is"  # the option that every unit starts with


@dataclass(frozen=True, slots=True)
class Option:
    """A way to run a unit.

    name   what people call it: "torch", "compile", "onnx int8"
    keys   of the `runtime` of the node that ask for it
    fuses  neighbours that run so become one call
    """

    name: str
    keys: Keys
    fuses: bool = False


@dataclass(frozen=True, slots=True)
class Unit:
    """A node of the document with all that it may be placed on.

    nodes    of the solved graph that it stands for
    start    the name of the option that it runs on now;  options  by name, that one included
    refused  by the name of an option: why it is none
    """

    name: str
    nodes: tuple[str, ...]
    start: str
    options: Mapping[str, Option]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Places:
    """What may be placed in a graph.

    units  by name
    calls  groups of units that would run as one call, if all of them ran on a backend that fuses
    plain  units that are plain code alone: there is nothing to place
    """

    units: Mapping[str, Unit]
    calls: Sequence[tuple[str, ...]] = ()
    plain: Sequence[str] = ()

    def keys_of(self, placement: Placement) -> dict[str, Keys]:
        """The keys of `runtime` that a placement asks for, by unit."""
        return {name: self.units[name].options[option].keys for name, option in placement.items()}


# The ways that are tried: backend and precision; "" is that of the dtype.
TRIED = (("torch", ""), ("compile", ""), ("onnx", ""), ("onnx", "int8"), ("onnx", "w8"))
NEEDED: Mapping[str, tuple[str, ...]] = {"onnx": ("onnxruntime", "onnx", "onnxscript")}  # to export and to run


def places_of(plan: Plan, *, together: Sequence[tuple[str, ...]] = ()) -> Places:
    """Find what may be placed; nothing is loaded.

    plan      of the graph as it stands
    together  the nodes that run as one call where all are on the backend that fuses, each such group
    """
    cards = plan.graph.graph.registry.backends
    of_unit: dict[str, list[Step]] = {}
    for step in plan.steps:
        of_unit.setdefault(unit_of(step.node.name), []).append(step)
    placed = {name: [step for step in steps if step.node.component.module is not None] for name, steps in of_unit.items()}
    units = {name: _unit(name, steps, cards) for name, steps in placed.items() if steps}
    calls = {tuple(dict.fromkeys(unit_of(node) for node in call)) for call in together}
    grouped = sorted(call for call in calls if len(call) > 1 and all(name in units for name in call))
    return Places(units, grouped, [name for name, steps in placed.items() if not steps])


def unit_of(node: str) -> str:
    """The node of the document that a node of the solved graph belongs to."""
    return node.partition("/")[0]


def _unit(name: str, steps: Sequence[Step], cards: Mapping[str, BackendCard]) -> Unit:
    ways = {(step.backend, step.precision) for step in steps}
    start = _named(*next(iter(ways)), steps[0].dtype) if len(ways) == 1 else AS_IT_IS
    options, refused = {AS_IT_IS: Option(AS_IT_IS, {})} if len(ways) > 1 else {}, dict[str, str]()
    if len(ways) == 1:
        options[start] = Option(start, {}, fuses=steps[0].fuses)
    for backend, precision in TRIED:
        option = _named(backend, precision, steps[0].dtype)
        if option in options:
            continue
        why = next(filter(None, (_why_not(step, backend, precision, cards.get(backend)) for step in steps)), "")
        if why:
            refused[option] = why
        else:
            options[option] = Option(option, _keys(backend, precision, steps), fuses=cards[backend].fuses)
    return Unit(name, tuple(step.node.name for step in steps), start, options, refused)


def _named(backend: str, precision: str, dtype: str) -> str:
    return f"{backend} {precision or dtype}" if backend == "onnx" else backend


def _keys(backend: str, precision: str, steps: Sequence[Step]) -> Keys:
    """What asks for a way; the precision is named where another stands there now."""
    if precision:
        return {"backend": backend, "precision": precision}
    return {"backend": backend, "precision": steps[0].dtype} if any(step.precision for step in steps) else {"backend": backend}


def _why_not(step: Step, backend: str, precision: str, card: BackendCard | None) -> str:
    """Why a node cannot run so, as far as that is known without loading it; "" otherwise."""
    wanted, component = precision or step.dtype, step.node.component
    if card is None:
        return f"no plugin offers the backend {backend}: modelgraft plugins list says why"
    if not card.takes(step.device):
        return f"the backend {backend} does not know the device {step.device}"
    if card.precisions and wanted not in card.precisions:
        return f"the backend {backend} has no {wanted}"
    if step.precision and not precision and step.dtype not in PRECISIONS:
        return f"{step.precision} is written for {step.node.name}, and no precision stands for {step.dtype}"
    if card.exports and not component.exportable:
        return f"{component.id} cannot be exported"
    lacking = [name for name in NEEDED.get(backend, ()) if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(lacking)} (pip install 'modelgraft[{backend}]')" if lacking else ""
