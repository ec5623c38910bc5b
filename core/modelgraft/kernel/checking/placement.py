"""Placement: the backends and devices that `runtime` names, as far as they are wrong on every machine."""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft.kernel.language.document import DEVICE, DEVICES
from modelgraft.kernel.words.errors import Collector, choices, nearest
from modelgraft.kernel.words.graph import GraphSpec, Value

AUTO = "auto"
USUAL = "torch"  # the backend that "auto" means
OURS = (USUAL, "onnx")  # the backends whose devices are known here


def check_placement(graph: GraphSpec, problems: Collector) -> None:
    """Note every backend that no plugin offers, and every device that is none, for the graph and for each node."""
    _check(graph, "runtime", graph.runtime, {}, problems)
    for name, spec in graph.nodes.items():
        _check(graph, f"{name}.runtime", spec.runtime, graph.runtime, problems, node=name)


def _check(
    graph: GraphSpec, where: str, own: Mapping[str, Value], whole: Mapping[str, Value], problems: Collector, *, node: str = ""
) -> None:
    backend, device = own.get("backend"), own.get("device")
    if backend is not None and backend.value not in (AUTO, USUAL, *graph.registry.backends):
        found = f"{where}.backend is '{backend.value}', which no plugin offers; there is: {choices({AUTO, *graph.registry.backends})}"
        hint = nearest(backend.value, graph.registry.backends)
        problems.add("unknown-backend", found, place=backend.origin.place, hint=hint, node=node)
    asked = backend or whole.get("backend")
    is_ours = asked is None or asked.value in (AUTO, *OURS)
    if device is not None and is_ours and DEVICE.fullmatch(str(device.value)) is None:
        found = f"{where}.device is '{device.value}'; wanted: {DEVICES}"
        is_gpu = str(device.value).partition(":")[0].lower() in ("gpu", "nvidia", "rocm", "hip")
        hint = "write cuda" if is_gpu else "write auto to let it choose"
        problems.add("unknown-device", found, place=device.origin.place, hint=hint, node=node)
