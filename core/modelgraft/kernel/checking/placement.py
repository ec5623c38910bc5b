"""Placement: the backends and devices that `runtime` names, as far as they are wrong on every machine."""

from __future__ import annotations

from collections.abc import Mapping

from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.backends import UNCHOSEN, USUAL, BackendCard
from modelgraft.kernel.words.errors import Collector, InputError, choices, nearest
from modelgraft.kernel.words.graph import GraphSpec, Value


def refuse_device(registry: Registry, backend: str | None, device: str | None) -> None:
    """Raise InputError for a device that is asked for beside the graph, and that the backend knows on no machine."""
    card = _card(registry, backend)
    if device is not None and card is not None and not card.takes(device):
        raise InputError(f"device is {device!r}; wanted: {card.devices_in_words}")


def _card(registry: Registry, backend: object) -> BackendCard | None:
    """What is known of a backend that is asked for, or of the usual one; None where no plugin offers it."""
    name = USUAL if backend in (None, UNCHOSEN) else str(backend)
    return registry.backends.get(name, NOT_INSTALLED if name == USUAL else None)


NOT_INSTALLED = BackendCard("", devices=("cpu", "cuda"))  # the usual backend where no plugin offers it: what "auto" chooses among


def check_placement(graph: GraphSpec, problems: Collector) -> None:
    """Note every backend that no plugin offers, and every device that is none, for the graph and for each node."""
    _check(graph, "runtime", graph.runtime, {}, problems)
    for name, spec in graph.nodes.items():
        _check(graph, f"{name}.runtime", spec.runtime, graph.runtime, problems, node=name)


def _check(
    graph: GraphSpec, where: str, own: Mapping[str, Value], whole: Mapping[str, Value], problems: Collector, *, node: str = ""
) -> None:
    backend, device = own.get("backend"), own.get("device")
    if backend is not None and backend.value not in (UNCHOSEN, USUAL, *graph.registry.backends):
        found = f"{where}.backend is '{backend.value}', which no plugin offers; there is: {choices({UNCHOSEN, *graph.registry.backends})}"
        hint = nearest(backend.value, graph.registry.backends)
        problems.add("unknown-backend", found, place=backend.origin.place, hint=hint, node=node)
    asked = backend or whole.get("backend")
    card = _card(graph.registry, asked and asked.value)
    if device is not None and card is not None and not card.takes(str(device.value)):
        found = f"{where}.device is '{device.value}'; wanted: {card.devices_in_words}"
        is_gpu = "cuda" in card.devices and str(device.value).partition(":")[0].lower() in ("gpu", "nvidia", "rocm", "hip")
        hint = "write cuda" if is_gpu else "write auto to let it choose"
        problems.add("unknown-device", found, place=device.origin.place, hint=hint, node=node)
