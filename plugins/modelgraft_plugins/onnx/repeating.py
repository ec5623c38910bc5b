"""Layers that are alike are traced once: the others stand in the trace as one operator each, which becomes a copy of the first.

A tower is the same layer many times, and tracing takes as long for each of them. While a module is traced here, the first layer of
every kind runs between two marks, and what follows of its kind is called only by name; `unfolding.py` puts the copies in. What
stands around the layers is traced as it is, so whichever of them it takes an output of, it gets that one's.

Two layers are of a kind when they are built alike: of the same classes, with tensors of the same shapes, and with the same settings but
for their number. A layer that is called otherwise than the first of its kind (with other sizes, settings or things that are no
tensors) is traced by itself. That is a well-founded guess, no proof: the parity gate compares the graph with the module as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import CellType, FunctionType
from typing import Any

import torch
from torch.utils import _pytree as pytree

DOMAIN = "modelgraft"
ENTER, LEAVE, LAYER = "Enter", "Leave", "Layer"  # marks around the layer that is traced, and what stands for the others
LEAST = 2  # layers of a kind from which on one of them is traced for all
NUMBERS = frozenset({"layer_idx", "layer_id", "layer_index", "layer_number", "idx", "index", "block_idx"})  # which layer it is, no more
PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)


@dataclass(frozen=True, slots=True)
class Alike:
    """Layers of a kind, by their names in the module that is traced; the first is traced.

    calls  for each way in which the first was called, what it gave: see `_Call`
    """

    layers: Mapping[str, torch.nn.Module]
    calls: dict[str, _Call] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The name of the layer that is traced."""
        return next(iter(self.layers))


@dataclass(frozen=True, slots=True)
class _Call:
    """What a layer gave: tensors by shape and type, and how they lie in what it returned."""

    shapes: tuple[Any, ...]
    dtypes: tuple[torch.dtype, ...]
    spec: Any


def alike(module: torch.nn.Module) -> list[Alike]:
    """The layers of lists within a module, by kind, the outermost lists first; kinds with fewer than LEAST layers are left out."""
    found: list[Alike] = []
    within: list[str] = []
    for name, listed in module.named_modules():
        if not isinstance(listed, (torch.nn.ModuleList, torch.nn.Sequential)) or any(name.startswith(f"{outer}.") for outer in within):
            continue
        kinds: dict[str, dict[str, torch.nn.Module]] = {}
        for number, layer in listed.named_children():
            kinds.setdefault(_kind(layer), {})[f"{name}.{number}" if name else number] = layer
        groups = [
            Alike(layers)
            for layers in kinds.values()
            if len(layers) >= LEAST and any(True for _ in next(iter(layers.values())).parameters())
        ]
        within += [layer for group in groups for layer in group.layers]
        found += groups
    return found


def _kind(layer: torch.nn.Module) -> str:
    """What layers that are built alike have in common. Whatever cannot be told apart makes a kind of its own."""
    told: list[Any] = []
    for name, module in layer.named_modules():
        told.append((name, type(module).__module__, type(module).__qualname__))
        for key, value in vars(module).items():
            if key not in NUMBERS and key not in {"_parameters", "_buffers", "_modules"}:
                told.append((key, _setting(value, counts=key.endswith("hooks") or "hooks_" in key)))
    tensors = [*layer.named_parameters(remove_duplicate=False), *layer.named_buffers(remove_duplicate=False)]
    told += [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors]
    return repr(told)


def _setting(value: Any, within: tuple[int, ...] = (), *, counts: bool = False) -> Any:
    """What is compared of a setting. within: what it is a part of, which it may hold again;  counts: keys of mappings only count."""
    if isinstance(value, PLAIN):
        return repr(value)
    if id(value) in within:
        return within.index(id(value))
    told = partial(_setting, within=(*within, id(value)))
    if isinstance(value, (tuple, list)):
        return [told(entry) for entry in value]
    if isinstance(value, dict):
        return [("" if counts else told(key), told(entry)) for key, entry in value.items()]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, partial):
        return [told(value.func), told(value.args), told(value.keywords)]
    if isinstance(value, FunctionType):
        held = [told(cell.cell_contents) if cell != CellType() else "" for cell in value.__closure__ or ()]
        return [id(value.__code__), held, told(value.__defaults__), told(value.__kwdefaults__)]
    return f"{type(value).__qualname__} {id(value)}"  # one thing, such as the config, may be of all layers


@contextlib.contextmanager
def once(groups: list[Alike]) -> Iterator[None]:
    """Let the layers of groups be traced once each while the block runs."""
    patched = [(group, name, layer) for group in groups for name, layer in group.layers.items()]
    before = [(layer, layer.__dict__.get("forward")) for _, _, layer in patched]
    for group, name, layer in patched:
        object.__setattr__(layer, "forward", _marked(layer.forward, group) if name == group.first else _named(layer.forward, group, name))
    try:
        yield
    finally:
        for layer, forward in before:
            if forward is None:
                object.__delattr__(layer, "forward")
            else:
                object.__setattr__(layer, "forward", forward)


def _marked(forward: Callable[..., Any], group: Alike) -> Callable[..., Any]:
    """The first layer of a kind: traced between two marks."""

    def run(*args: Any, **kwargs: Any) -> Any:
        tensors, way, again = _read(args, kwargs)
        if way is None:
            return forward(*args, **kwargs)
        key = f"{group.first} {way}"
        entered = _mark(ENTER, tensors, key)
        args, kwargs = again(entered)
        leaves, spec = pytree.tree_flatten(forward(*args, **kwargs))
        if not all(isinstance(leaf, torch.Tensor) or leaf is None for leaf in leaves):
            group.calls.pop(way, None)
            return pytree.tree_unflatten(leaves, spec)
        left = _mark(LEAVE, [leaf for leaf in leaves if leaf is not None], key)
        group.calls[way] = _Call(
            tuple(None if leaf is None else tuple(leaf.shape) for leaf in leaves),
            tuple(leaf.dtype for leaf in leaves if leaf is not None),
            spec,
        )
        return _laid_out(left, group.calls[way])

    return run


def _named(forward: Callable[..., Any], group: Alike, name: str) -> Callable[..., Any]:
    """A further layer of a kind: one operator with its name, if it is called as the first was."""

    def run(*args: Any, **kwargs: Any) -> Any:
        tensors, way, _ = _read(args, kwargs)
        call = group.calls.get(way) if way is not None else None
        if call is None:
            return forward(*args, **kwargs)
        shapes = [shape for shape in call.shapes if shape is not None]
        given = _operator(LAYER, tensors, {"key": f"{group.first} {way}", "layer": name}, shapes, call.dtypes)
        return _laid_out(given, call)

    return run


def _laid_out(tensors: list[torch.Tensor], call: _Call) -> Any:
    """Tensors in the place that they have in what a layer returns."""
    rest = iter(tensors)
    return pytree.tree_unflatten([None if shape is None else next(rest) for shape in call.shapes], call.spec)


def _read(args: Any, kwargs: Any) -> tuple[list[torch.Tensor], str | None, Callable[[list[torch.Tensor]], tuple[Any, Any]]]:
    """The tensors of a call, a digest of all else in it, and how it is made of other tensors.

    The digest is None where something was given that is neither a tensor nor a plain value, such as a cache that the layer fills.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def again(others: list[torch.Tensor]) -> tuple[Any, Any]:
        rest = iter(others)
        made: tuple[Any, Any] = pytree.tree_unflatten([next(rest) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec)
        return made

    told = [f"{tuple(leaf.shape)} {leaf.dtype}" if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in leaves]
    if not tensors or not all(isinstance(leaf, (torch.Tensor, *PLAIN)) for leaf in leaves):
        return tensors, None, again
    return tensors, hashlib.sha256(f"{told} {spec}".encode()).hexdigest()[:12], again


def _mark(operator: str, tensors: list[torch.Tensor], key: str) -> list[torch.Tensor]:
    return _operator(operator, tensors, {"key": key}, [tuple(tensor.shape) for tensor in tensors], [tensor.dtype for tensor in tensors])


def _operator(name: str, tensors: list[torch.Tensor], attributes: dict[str, Any], shapes: Any, dtypes: Any) -> list[torch.Tensor]:
    """An operator of our own in the trace, which gives tensors of these shapes and types."""
    given = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{name}", tensors, attributes, dtypes=list(dtypes), shapes=[list(s) for s in shapes], version=1
    )
    return list(given)
