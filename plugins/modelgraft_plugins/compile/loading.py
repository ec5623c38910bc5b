"""Nodes as `torch.compile` makes them: compiled on sizes made from their ports, and compared with eager torch on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from modelgraft.plugin import (
    CHECKED,
    DTYPES,
    TOLERANCES,
    ExportError,
    LoadContext,
    Loaded,
    NodeRuntime,
    Parity,
    Port,
    driving,
    dynamic_axes,
    in_torch,
    is_driven,
    make_inputs,
    parity_of,
    signature_of,
    wired_inputs,
)
from modelgraft_plugins.compile import notes
from modelgraft_plugins.compile.entry import Compiled, why_not

# Largest accepted difference beside those for exports, relative to the largest value of an output, and why.
ACCEPTED: Mapping[str, tuple[float, str]] = {
    **TOLERANCES,
    "float64": (1e-10, "other orders of summation"),
    "bfloat16": (6e-2, "8 bits of mantissa; compiled code keeps more of them between operations than eager torch does"),
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a module is tried with: all its inputs in order, those of them that are fed, and its outputs."""

    inputs: tuple[str, ...]
    fed: Mapping[str, Port]
    outputs: tuple[str, ...]
    most: Mapping[str, int]


def compiled(loaded: Loaded, context: LoadContext) -> Loaded:
    """The node as torch has it, with its module compiled; of a driven one, each of its parts.

    Raises ExportError for what cannot be compiled, or does not give torch's numbers.
    """
    if reason := why_not(context.device):
        raise ExportError(reason)
    node = context.node
    if is_driven(node):
        return _driven(loaded, context)
    signature = signature_of(node, wired_inputs(node))
    shape = _Shape(tuple(node.in_ports), dict(signature.inputs), tuple(node.out_ports), signature.most)
    entry = Compiled(node.name, loaded.state, shape.inputs)
    parity = _gate(entry, shape, context)
    notes.write(node, asdict(parity), precision=context.dtype)
    return replace(loaded, call=in_torch(entry, context), bind=_binding(loaded, (entry,)))


def _driven(loaded: Loaded, context: LoadContext) -> Loaded:
    """The loop of a node around its parts, each compiled."""
    node = context.node
    declared = node.component.parts(node.config)
    if not declared or loaded.loop is None:
        raise ExportError("its decoder reads a cache that is longer with every token, and would be compiled anew for each")
    modules, entries = loaded.state.parts(tuple(declared)), dict[str, Compiled]()
    for name, ports in declared.items():
        entries[name] = Compiled(f"{node.name}.{name}", modules[name], tuple(ports.inputs))
        shape = _Shape(tuple(ports.inputs), ports.inputs, tuple(ports.outputs), node.config.most())
        try:
            _gate(entries[name], shape, context)
        except ExportError as error:
            raise ExportError(f"its part {name}: {error}") from error
    loop = loaded.loop

    def giving(wanted: frozenset[str]) -> Callable[..., Any]:
        return in_torch(driving(loop, entries, wanted), context)

    has_taps = loaded.giving is not None
    made = replace(loaded, call=giving(frozenset(node.out_ports)), giving=giving if has_taps else None)
    return replace(made, bind=_binding(loaded, entries.values()))


def _gate(entry: Compiled, shape: _Shape, context: LoadContext) -> Parity:
    """Compile for the sizes of the gate, and compare. Raises ExportError."""
    ports, dtype = list(shape.fed.values()), DTYPES[context.dtype]
    odd = [f"{name} is {port}, not a tensor" for name, port in shape.fed.items() if port.tensor is None]
    if odd:
        raise ExportError(f"its input {odd[0]}")
    cases = [
        tuple(value.to(context.device, dtype if value.is_floating_point() else None) for value in made)
        for made in (make_inputs(ports, choice, seed=seed, most=shape.most) for seed, choice in enumerate(reversed(CHECKED), start=1))
    ]
    for value, axes in zip(cases[0], dynamic_axes(ports, shape.most), strict=True):
        for axis in axes:
            torch._dynamo.maybe_mark_dynamic(value, axis)
    got = iter([_flat(entry.compile(_all(shape, case)), shape) for case in cases])
    parity = parity_of(
        lambda *case: _flat(entry.module(*_all(shape, case)), shape), lambda *_case: next(got), cases, tolerance=ACCEPTED[context.dtype][0]
    )
    if not parity.holds:
        raise ExportError(f"what is compiled differs from torch: {parity}")
    return parity


def _all(shape: _Shape, given: Sequence[Any]) -> list[Any]:
    """All inputs in order: None for those that nothing feeds."""
    fed = dict(zip(shape.fed, given, strict=True))
    return [fed.get(name) for name in shape.inputs]


def _flat(result: Any, shape: _Shape) -> tuple[torch.Tensor, ...]:
    return (result,) if len(shape.outputs) == 1 else tuple(result[name] for name in shape.outputs)


def _binding(loaded: Loaded, entries: Iterable[Compiled]) -> Any:
    """What takes the runtime: the compiled code, which tells of what it compiles, and what the node had."""
    told = tuple(entries)

    def bind(runtime: NodeRuntime) -> None:
        for entry in told:
            entry.runtime = runtime
        if loaded.bind is not None:
            loaded.bind(runtime)

    return bind
