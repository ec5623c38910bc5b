"""Engines that run a graph of nodes that do nothing, for `orchestration.py`; each builds a graph once and then runs it.

This module needs nothing but the standard library until an engine is built, so that a peer in another environment can
be measured with it.
"""

from __future__ import annotations

import graphlib
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

Run = Callable[[Any], Any]
Body = Callable[..., Any]


# -- graphs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A graph: for each node the nodes that it reads, in an order in which they can run; the first reads the payload."""

    name: str
    parents: Mapping[str, tuple[str, ...]]

    @property
    def last(self) -> str:
        return next(reversed(self.parents))


def chain(length: int) -> Shape:
    return Shape(f"chain {length}", {f"n{i}": (f"n{i - 1}",) if i else () for i in range(length)})


def fan(width: int) -> Shape:
    middle = tuple(f"n{i}" for i in range(1, width + 1))
    return Shape(f"fan 1-{width}-1", {"n0": (), **dict.fromkeys(middle, ("n0",)), f"n{width + 1}": middle})


def layered(layers: int, width: int, seed: int = 11) -> Shape:
    """A source, layers whose nodes read one to three of the layer before, and a sink that reads the last layer."""
    source = random.Random(seed)
    parents: dict[str, tuple[str, ...]] = {"n0": ()}
    before: list[str] = ["n0"]
    for layer in range(layers):
        row = [f"n{1 + layer * width + i}" for i in range(width)]
        picks = {name: source.sample(before, min(len(before), source.randint(1, 3))) for name in row}
        unread = set(before).difference(*picks.values())
        for name in sorted(unread):
            picks[source.choice(row)].append(name)  # every value is read, so that nothing can be left out
        parents.update({name: tuple(picks[name]) for name in row})
        before = row
    return Shape(f"layered {layers}x{width}", {**parents, f"n{layers * width + 1}": tuple(before)})


def body(count: int) -> Body:
    """A node with so many inputs that hands the first one on."""
    names = ", ".join(f"x{i}" for i in range(count))
    scope: dict[str, Any] = {}
    exec(f"def join({names}):\n    return x0", scope)
    scope["join"].__doc__ = "Hand the first input on."
    return scope["join"]


def bodies(shape: Shape) -> dict[int, Body]:
    return {count: body(count) for count in {max(1, len(parents)) for parents in shape.parents.values()}}


# -- engines ------------------------------------------------------------------------------------------------------------


def plain(shape: Shape, code: Mapping[int, Body]) -> Run:
    """The graph written out as Python calls: the floor."""
    scope: dict[str, Any] = {f"f{count}": function for count, function in code.items()}
    lines = ["def run(payload):"]
    for name, parents in shape.parents.items():
        lines.append(f"    {name} = f{max(1, len(parents))}({', '.join(parents or ('payload',))})")
    exec("\n".join([*lines, f"    return {shape.last}"]), scope)
    return scope["run"]


def loop(shape: Shape, code: Mapping[int, Body]) -> Run:
    """A list of (function, positions of the inputs), worked through by a loop."""
    position = {name: index + 1 for index, name in enumerate(shape.parents)}
    todo = [(code[max(1, len(parents))], [position[p] for p in parents] or [0]) for parents in shape.parents.values()]

    def run(payload: Any) -> Any:
        values = [payload]
        for function, reads in todo:
            values.append(function(*[values[i] for i in reads]))
        return values[-1]

    return run


def networkx_loop(shape: Shape, code: Mapping[int, Body]) -> Run:
    """A graph object that is sorted and walked in every run."""
    import networkx

    graph = networkx.DiGraph()
    for name, parents in shape.parents.items():
        graph.add_node(name)
        graph.add_edges_from((parent, name) for parent in parents)

    def run(payload: Any) -> Any:
        values: dict[str, Any] = {}
        for name in networkx.topological_sort(graph):
            reads = shape.parents[name]
            values[name] = code[max(1, len(reads))](*([values[read] for read in reads] or [payload]))
        return values[shape.last]

    return run


def graphlib_loop(shape: Shape, code: Mapping[int, Body]) -> Run:
    """The sorter of the standard library, asked for what is ready."""

    def run(payload: Any) -> Any:
        values: dict[str, Any] = {}
        sorter = graphlib.TopologicalSorter(shape.parents)
        sorter.prepare()
        while sorter.is_active():
            for name in sorter.get_ready():
                reads = shape.parents[name]
                values[name] = code[max(1, len(reads))](*([values[read] for read in reads] or [payload]))
                sorter.done(name)
        return values[shape.last]

    return run


def modelgraft_graph(shape: Shape, code: Mapping[int, Body]) -> Any:
    """The graph read from YAML and checked, with these functions as its components."""
    import modelgraft as mg

    registry = modelgraft_registry(code)
    with tempfile.TemporaryDirectory() as folder:
        return mg.check(mg.load(modelgraft_file(shape, Path(folder)), registry=registry))


def modelgraft_registry(code: Mapping[int, Body]) -> Any:
    """What is installed when nothing is but these functions."""
    import modelgraft as mg
    from modelgraft.installed.discovery import assemble

    parts = []
    for count, function in code.items():
        ports = {f"x{i}": "object" for i in range(count)}
        parts.append(mg.component(f"bench/join{count}", kind="head", inputs=ports, outputs={"out": "object"})(function))

    @mg.hookimpl
    def register_components(register):
        for part in parts:
            register(part)

    plugin = ModuleType("bench")
    plugin.register_components = register_components
    return assemble({"bench": plugin})


def modelgraft_file(shape: Shape, folder: Path) -> Path:
    """The graph as a YAML file in a folder."""
    import yaml

    nodes = {
        name: {"use": f"bench/join{max(1, len(reads))}", "in": {f"x{i}": read for i, read in enumerate(reads or ("inputs.x",))}}
        for name, reads in shape.parents.items()
    }
    document = {"modelgraft": 1, "name": "bench", "inputs": {"x": "object"}, "nodes": nodes, "outputs": {"out": shape.last}}
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def modelgraft(shape: Shape, code: Mapping[int, Body], *, timings: bool) -> Run:
    """This runtime: results, timings, errors that name the node, release of values."""
    import modelgraft as mg

    pipeline = mg.open(modelgraft_graph(shape, code), timings=timings)
    return lambda payload: pipeline.run(x=payload)["out"]


def onnxruntime_nodes(shape: Shape, code: Mapping[int, Body]) -> Run:  # noqa: ARG001 its nodes are native
    """Identity and Sum nodes in C++, on a tensor of one number; no Python between them."""
    import numpy
    import onnxruntime
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Identity" if len(reads) <= 1 else "Sum", [*reads] or ["payload"], [name])
        for name, reads in shape.parents.items()
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("payload", shape.last)]
    model = helper.make_model(
        helper.make_graph(nodes, "bench", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"payload": onnxruntime.OrtValue.ortvalue_from_numpy(numpy.ones(1, numpy.float32))}

    def run(payload: Any) -> Any:
        session.run_with_ort_values([shape.last], feed)
        return payload

    return run


ENGINES: Mapping[str, Callable[[Shape, Mapping[int, Body]], Run]] = {
    "modelgraft": lambda shape, code: modelgraft(shape, code, timings=True),
    "modelgraft, timings off": lambda shape, code: modelgraft(shape, code, timings=False),
    "plain calls": plain,
    "loop over a list": loop,
    "networkx loop": networkx_loop,
    "graphlib loop": graphlib_loop,
    "onnxruntime (C++)": onnxruntime_nodes,
}
NATIVE = ("onnxruntime (C++)",)  # nodes are not Python functions, so calls cannot be counted
SHAPES: Mapping[str, Callable[[], Shape]] = {
    "one": lambda: chain(1),
    "chain": lambda: chain(100),
    "fan": lambda: fan(100),
    "layered": lambda: layered(10, 10),
    "thousand": lambda: layered(50, 20),
}
