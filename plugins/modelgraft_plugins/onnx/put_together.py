"""Modules that write their own graph: it is put together from what they hold, and nothing is traced.

See `AsGraph` of the module protocol. A node that stands for several modules is put together where all of them can; what somebody has
hooked into, or given another `forward`, is traced. The parity gate compares what comes out as it does any other graph.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from modelgraft.plugin import AsGraph, Port, Signature
from modelgraft_plugins.onnx.chosen_rows import choose_early
from modelgraft_plugins.onnx.exporting import Flat, Joined
from modelgraft_plugins.onnx.widening import widen

# Value and Model of onnx_ir, which is not among what mypy sees.
Value = Any
Model = Any


def writing_of(module: torch.nn.Module, signature: Signature, *, half: bool) -> Callable[[], Model | None] | None:
    """What puts together the graph of a flat module, whose matrices are read when it is written; None for one that must be traced.

    It looks at nothing of the module that a call changes, so that the module may be called meanwhile. It gives None where a part turns
    out not to say what it computes: then the module must be traced after all.

    half  computes in float16, and takes and gives float32
    """
    if not isinstance(module, Flat) or importlib.util.find_spec("onnx_ir") is None or not all(map(_can_be_named, signature.input_ports)):
        return None
    parts = _parts(module)
    if not all(isinstance(part, AsGraph) and not any(map(_is_changed, part.modules())) for part in parts.values()):
        return None
    tensors = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}
    return partial(_written, module, signature, parts, tensors, torch.float16 if half else torch.float32)


def _written(
    module: Flat, signature: Signature, parts: Mapping[str, torch.nn.Module], tensors: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> Model | None:
    from modelgraft_plugins.graph_writing import GraphWriting  # not at the top: it needs onnx_ir

    graph = GraphWriting(tensors, dtype)
    found = _given(module, parts, graph, [_taken(graph, name, port) for name, port in signature.inputs])
    if found is None:
        return None
    outputs = {name: (graph.widened(value), _axes(port)) for value, (name, port) in zip(found, signature.outputs, strict=True)}
    model = graph.model(outputs, dtype=torch.float32)
    choose_early(model)
    widen(model.graph)
    return model


def _parts(module: Flat) -> dict[str, torch.nn.Module]:
    inner = module.module
    if not isinstance(inner, Joined):
        return {"module": inner}
    return {part.name: one for part, one in zip(inner.parts, inner.inner, strict=True)}


def _is_changed(module: torch.nn.Module) -> bool:
    """Whether somebody has put something beside what a module of its class computes, which no tensor tells of."""
    return "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)


def _can_be_named(port: Port) -> bool:
    """Whether the number of its axes is known, and what it holds is floating."""
    return port.tensor is not None and None not in port.tensor.axes and port.tensor.dtype.startswith("float")


def _taken(graph: Any, name: str, port: Port) -> Value:
    """An input of the graph, in what it computes in."""
    return graph.narrowed(graph.takes(name, torch.float32, _axes(port)))


def _axes(port: Port) -> list[int | str | None]:
    assert port.tensor is not None
    return [None if axis is None else axis.symbol if axis.size is None else axis.size for axis in port.tensor.axes]


def _given(module: Flat, parts: Mapping[str, torch.nn.Module], graph: Any, taken: Sequence[Value]) -> list[Value] | None:
    """What the module gives, in the order of its outputs; None where a part cannot say it."""
    given: list[Value | None] = [None] * module.total
    for place, value in zip(module.places, taken, strict=True):
        given[place] = value
    inner = module.module
    if not isinstance(inner, Joined):
        return _in_order(_of(inner, graph.within("module"), given), module.outputs)
    values = dict(zip(inner.inputs, given, strict=True))
    for part in inner.parts:
        refs = (part.wired.get(name) for name in part.in_ports)
        result = _of(parts[part.name], graph.within(part.name), [None if not ref else values[str(ref[0])] for ref in refs])
        found = _in_order(result, list(part.out_ports))
        if found is None:
            return None
        values |= {f"{part.name}.{name}": value for name, value in zip(part.out_ports, found, strict=True)}
    return [values[name] for name in module.outputs]


def _of(part: Any, graph: Any, given: Sequence[Value | None]) -> Any:
    return part.as_graph(graph, *given)


def _in_order(result: Any, outputs: Sequence[str]) -> list[Value] | None:
    if result is None:
        return None
    return [result] if len(outputs) == 1 else [result[name] for name in outputs]
