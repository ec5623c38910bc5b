"""Driven components that trace their graphs themselves: what they are offered, and how what they wrote is proven. See traced.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import (
    Assembling,
    LoadContext,
    Loaded,
    Parity,
    PluginError,
    PublishedBlocks,
    Traced,
    Weights,
)
from modelgraft_plugins.onnx import store, tuned
from modelgraft_plugins.onnx.blocks import is_of
from modelgraft_plugins.onnx.exporting import answering, open_fresh, trace
from modelgraft_plugins.onnx.kept_blocks import MIDDLE, is_of_use
from modelgraft_plugins.onnx.keys import OPSET, WEIGHT_BITS
from modelgraft_plugins.onnx.measured import beside
from modelgraft_plugins.onnx.opened import KEPT, FolderOpened
from modelgraft_plugins.onnx.precision import bring
from modelgraft_plugins.onnx.rehearsing import Asked, asked, prove

Parts = Mapping[str, Any]  # as loops call them
Sessions = dict[str, tuned.Fresh]  # by the file of their graph
ROWS = 1024  # of a table that are compared at once


class FolderTracer:
    """A Tracer that writes into a folder.

    kept       where each tensor beside the graphs is found
    unwritten  the graphs that the module has put together, by the file that each becomes
    """

    def __init__(self, folder: Path, *, half: bool, weights: Weights | None, variant: str = "", bits: int = 0) -> None:
        """bits: that matrices are brought to; blocks of the file that are of no use for them are not looked at. 0: all are."""
        self.folder, self.half, self.weights, self.variant, self.bits = folder, half, weights, variant, bits
        self.kept: dict[str, Mapping[str, str]] = {}
        self.unwritten: dict[Path, Any] = {}
        self.proven = set[tuple[str, str]]()  # matrices of the checkpoint and of the module whose numbers are the same

    def trace(
        self, module: torch.nn.Module, example: tuple[Any, ...], name: str, *, sizes: Any, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        """See Tracer."""
        store.tell(1, "tracing")
        trace(module, example, self.folder / f"{name}.onnx", sizes=sizes, inputs=inputs, outputs=outputs)

    def write(self, graph: Any, name: str) -> None:
        """See Tracer. It is written when its precision is known: see `bring`."""
        self.unwritten[self.folder / f"{name}.onnx"] = graph

    def published(self, name: str, tensor: Tensor) -> PublishedBlocks | None:
        """See Tracer. A matrix of another name, such as a head that is tied, is looked for by its shape."""
        weights, shape = self.weights, tuple(tensor.shape)
        if weights is None:
            return None
        keys = weights.keys()
        named = [name] if name in keys else [key for key in keys if weights.shape(key) == shape]
        for key in named:
            found = weights.blocks(key)
            if found is None or (found.bits in MIDDLE and not is_of_use(found, bits=self.bits)):
                continue
            if (key, name) in self.proven or is_of(found, tensor):
                self.proven.add((key, name))
                return found
        return None

    def keep(self, name: str, tensor: Tensor) -> None:
        """See Tracer."""
        weights, shape = self.weights, tuple(tensor.shape)
        for key in weights.keys() if weights is not None else ():
            if weights is not None and weights.shape(key) == shape and _is_same(weights.tensor(key), tensor):
                self.kept[name] = {"key": key}
                return
        from safetensors.torch import save_file

        file = f"{name}.safetensors"
        save_file({KEPT: tensor.contiguous()}, self.folder / file)
        self.kept[name] = {"file": file}


def _is_same(stored: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor is one of the checkpoint, or has its numbers; what lies in the same place is not read."""
    if (stored.data_ptr(), stored.dtype, stored.stride()) == (tensor.data_ptr(), tensor.dtype, tensor.stride()):
        return True
    return all(
        torch.equal(one.to(tensor.dtype), other) for one, other in zip(torch.split(stored, ROWS), torch.split(tensor, ROWS), strict=True)
    )


def build(host: Loaded, context: LoadContext, precision: str, folder: Path, variant: str, fresh: Sessions) -> Mapping[str, Any]:
    """Write the graphs of a node into a folder, proven; gives its manifest.

    variant  which of its exports;  fresh  where the sessions are left that the graphs were proven with

    Raises ExportError.
    """
    module, node = host.state, context.node
    if not isinstance(module, Traced):
        found = f"{node.component.id} declares no parts, and its module is no modelgraft.plugin.Traced, which traces them"
        raise PluginError(f"plugin '{node.component.plugin}': {found}")
    store.tell(1, "making graphs")
    bits = WEIGHT_BITS.get(precision, 0)
    tracer = FolderTracer(folder, half=precision == "float16", weights=context.weights, variant=variant, bits=bits)
    notes = module.trace(tracer)
    manifest: dict[str, Any] = {
        "node": node.name,
        "component": node.component.id,
        "opset": OPSET,
        "precision": precision,
        "facts": module.facts(),
        "notes": notes,
        "variant": variant,
        "script": host.loop.script if isinstance(host.loop, Assembling) else "",
        "kept": tracer.kept,
    }
    settings: dict[str, Any] = {"fresh": fresh, "count": context.threads}
    with answering(module, partial(_asked, host, variant)) as told:
        reduced = bring(
            sorted({*folder.glob("*.onnx"), *tracer.unwritten}),
            precision,
            lambda: _compared(host, folder, manifest, precision, context.weights, told, **settings),
            unwritten=tracer.unwritten,
            widens=True,
        )
    for one in fresh.values():
        one.keep_for(context.device)
    warnings = [*host.warnings, *(f"{node.name}: {text}" for text in reduced.warnings)]
    return {**manifest, "weights": reduced.weights, "warnings": warnings, "parity": asdict(reduced.parity)}


def _asked(host: Loaded, variant: str) -> Asked:
    assert isinstance(host.loop, Assembling)
    return asked(host.loop, host.state.parts(()), variant=variant)


def compared_again(host: Loaded, kept: store.Entry, context: LoadContext, precision: str) -> Parity:
    """How far an export that was made on another kind of processor is from torch on this one."""
    settings: dict[str, Any] = {"fresh": {}, "count": context.threads}
    with answering(host.state, partial(_asked, host, kept.manifest["variant"]), is_alone=True) as told:
        return _compared(host, kept.folder, kept.manifest, precision, context.weights, told, **settings)


def _compared(
    host: Loaded,
    folder: Path,
    manifest: Mapping[str, Any],
    precision: str,
    weights: Weights | None,
    told: Callable[[], Asked],
    *,
    fresh: Sessions,
    count: int | None,
) -> Parity:
    """How far the parts that a folder holds are from those in torch: the worse where there are others for many rows.

    told   waits for what those in torch give
    fresh  where the sessions of the graphs are left, but for those for many rows, which are opened again when many rows come
    count  threads that they compute with; None: as `runtime.threads` says
    """
    loop = host.loop
    assert isinstance(loop, Assembling)
    fresh.clear()  # of what was not near enough
    settings: dict[str, Any] = {"device": "cpu", "weights": weights, "is_fresh": True}

    def assembled(*, is_of_many: bool) -> Parts:
        fresh.clear()  # before others open

        def session(graph: str) -> Any:
            many = beside(folder / graph)
            if is_of_many and many.is_file():
                return open_fresh(many, count=count, as_needed=True)
            fresh[graph] = tuned.Fresh(count, open_fresh(folder / graph, count=count))
            return fresh[graph].session

        noted = {**manifest, "notes": {**manifest["notes"], "briefly": True}} if is_of_many else manifest
        return loop.assemble(FolderOpened(folder, noted, session, **settings))

    has_many = any(beside(graph).is_file() for graph in folder.glob("*.onnx"))
    few, many = (partial(assembled, is_of_many=is_of_many) for is_of_many in (False, True))
    return prove(loop, told(), few, precision, variant=manifest["variant"], many=many if has_many else None)
