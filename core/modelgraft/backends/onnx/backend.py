"""The onnx backend: exports an exportable node once, proves the export, and runs it on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from modelgraft.backends.base import LoadContext, Loaded
from modelgraft.backends.onnx import decoders, store
from modelgraft.backends.onnx.examples import CHECKED, make_inputs
from modelgraft.backends.onnx.exporting import OPSET, Exported, ExportError, Halved, Signature, export, flat, joined
from modelgraft.backends.onnx.parity import Parity, compare
from modelgraft.backends.onnx.precision import check_precision, reduce
from modelgraft.backends.onnx.runtime import open_session
from modelgraft.backends.torch import TorchBackend, in_torch, resolve
from modelgraft.errors import GraphError, Problem
from modelgraft.graph import Node


class OnnxBackend:
    """Runs exportable modules on ONNX Runtime, and code that is no module as the torch backend does."""

    name = "onnx"

    def __init__(self) -> None:
        self._torch = TorchBackend()
        self.exports: dict[str, store.Entry] = {}  # what the loaded nodes run, by their names

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node: from the cache of exports, or by exporting it now.

        Raises GraphError `not-exportable` with the node and what the exporter or the parity gate said.
        """
        component = context.node.component
        if component.module is None and not context.node.parts:
            return self._torch.load(context, shared)
        try:
            if not component.exportable or context.node.adapters:
                raise ExportError("adapters are not exported" if context.node.adapters else "the component is not declared exportable")
            return self._open(context, shared)
        except ExportError as error:
            problem = _not_exportable(context.node, str(error))
            if context.fallback != "torch":
                raise GraphError(problem) from error
            return self._on_torch(context, shared, f"{problem.found}; it stays on torch")

    def close(self) -> None:
        """Free what torch holds beside the sessions."""
        self._torch.close()

    def _on_torch(self, context: LoadContext, shared: Mapping[str, Loaded], warning: str) -> Loaded:
        """Run on torch what cannot run here, and say so."""
        node = context.node
        if not node.parts or context.of is None:
            loaded = self._torch.load(replace(context, precision=""), shared)
            return replace(loaded, warnings=(*loaded.warnings, warning))
        parts = [self._torch.load(replace(context.of(part), precision=""), shared) for part in node.parts]
        module = joined(node, [part.state for part in parts])
        return Loaded(in_torch(module, context), state=module, warnings=(*(text for part in parts for text in part.warnings), warning))

    def _open(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        node, precision = context.node, _precision(context)
        contexts = [context.of(part) for part in node.parts] if context.of is not None else [context]
        hosts = [replace(part, device="cpu", dtype="float32", precision="") for part in contexts]
        if not node.parts and hasattr(resolve(node.component.module or "", node.component), "export_decoder"):
            loaded, self.exports[node.name] = decoders.load(
                self._torch.load(hosts[0], shared), context, key=_key(contexts, None), precision=precision
            )
            return loaded
        signature = _signature(node)
        entry, complaint = store.find(key := _key(contexts, signature))
        warnings = [f"{node.name}: {complaint}"] if complaint else []
        if entry is None:
            parts = [self._torch.load(host, shared) for host in hosts]
            warnings += [text for part in parts for text in part.warnings]
            module = joined(node, [part.state for part in parts])
            entry = store.make(key, lambda folder: _build(module, node, signature, precision, folder))
        self.exports[node.name] = entry
        session, remarks = store.session(entry.folder, context.device, count=context.threads)
        return Loaded(_caller(Exported(session, device=context.device), node, signature), warnings=(*warnings, *remarks))


def _precision(context: LoadContext) -> str:
    return check_precision(context.precision or context.dtype)


def _signature(node: Node) -> Signature:
    """The wired inputs and all outputs of a node, as an exported graph names them."""
    given = tuple(
        (name, replace(port, types=(port.tensor,))) for name, port in node.in_ports.items() if node.wired.get(name) and port.tensor
    )
    return Signature(given, tuple(node.out_ports.items()))


def _key(contexts: Sequence[LoadContext], signature: Signature | None) -> str:
    """What an export is kept under: everything that its numbers depend on."""
    return store.export_key(
        parts=[_facts(context) for context in contexts],
        inputs=[(name, str(port)) for name, port in signature.inputs] if signature is not None else "decoder",
        outputs=[name for name, _ in signature.outputs] if signature is not None else "decoder",
        precision=_precision(contexts[0]),
        opset=OPSET,
    )


def _facts(context: LoadContext) -> dict[str, Any]:
    node = context.node
    return {
        "component": f"{node.component.id}@{node.component.version}",
        "config": node.config.model_dump(mode="json"),
        "weights": context.weights.view.identity() if context.weights is not None else f"random {context.seed} {node.name}",
        "wires": {port: [str(ref) for ref in refs] for port, refs in node.wired.items()},
    }


def _build(module: torch.nn.Module, node: Node, signature: Signature, precision: str, folder: Path) -> Mapping[str, Any]:
    """Export into the folder, bring it to its precision, prove it, and say in the manifest what came out."""
    plain = flat(module, ports=list(node.in_ports), wired=[name for name, _ in signature.inputs], outputs=list(node.out_ports))
    export(Halved(plain) if precision == "float16" else plain, signature, folder / store.GRAPH)
    reduce(folder / store.GRAPH, precision)
    parity = prove(plain, folder / store.GRAPH, signature, precision)
    if not parity.holds:
        raise ExportError(f"the export differs from torch: {parity}")
    return {
        "node": node.name,
        "component": node.component.id,
        "inputs": {name: str(port) for name, port in signature.inputs},
        "outputs": {name: str(port) for name, port in signature.outputs},
        "opset": OPSET,
        "precision": precision,
        "parity": asdict(parity),
    }


def prove(module: torch.nn.Module, path: Path, signature: Signature, precision: str) -> Parity:
    """Compare an export with its module on sizes other than those traced."""
    exported = Exported(open_session(path, device="cpu"), device="cpu")
    cases = [make_inputs(signature.input_ports, choice, seed=seed) for seed, choice in enumerate(CHECKED, start=1)]
    return compare(module, exported, cases, precision=precision)


def _caller(exported: Exported, node: Node, signature: Signature) -> Callable[..., Any]:
    places = [list(node.in_ports).index(name) for name, _ in signature.inputs]
    names = list(node.out_ports)
    if len(names) == 1:
        return lambda *values: exported(*[values[place] for place in places])[0]
    return lambda *values: dict(zip(names, exported(*[values[place] for place in places]), strict=True))


def _not_exportable(node: Node, reason: str) -> Problem:
    return Problem(
        "not-exportable",
        f"{node.name} ({node.component.id}) cannot run on the onnx backend: {reason}",
        node.place,
        f"let it stay on torch: nodes.{node.name}.runtime: {{backend: torch}}, or --fallback torch",
        node=node.name,
    )
