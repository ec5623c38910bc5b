"""A flat module as an ONNX graph that is near enough to it: written, brought to its precision, and proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from modelgraft.plugin import CHECKED, ExportError, Parity, Signature, in_turn, make_inputs, parity_of
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import Halved, export, open_fresh
from modelgraft_plugins.onnx.keys import OPSET, WEIGHT_BITS
from modelgraft_plugins.onnx.precision import TOLERANCES, Reduced, bring


def write(module: torch.nn.Module, signature: Signature, precision: str, folder: Path) -> tuple[dict[str, Any], Reduced]:
    """Write the graph of a flat module into a folder, and prove it.

    Layers that are alike are traced once; when the graph is not near enough to the module it may be for that, and each is traced.

    Gives what its manifest says of it, and what was done to its weights. Raises ExportError.
    """
    try:
        copies, reduced = _written(module, signature, precision, folder, is_whole=False)
    except _Refused as refused:
        if not refused.copies:
            raise ExportError(str(refused)) from refused
        copies, reduced = _written(module, signature, precision, folder, is_whole=True)
    facts = {
        "inputs": _named(dict(signature.inputs)),
        "outputs": _named(dict(signature.outputs)),
        "opset": OPSET,
        "precision": precision,
        "repeated": copies,
        "weights": reduced.weights,
        "parity": asdict(reduced.parity),
    }
    return facts, reduced


def derive(kept: store.Entry, signature: Signature, precision: str, folder: Path) -> dict[str, Any] | None:
    """Write the graph of a kept float32 export into a folder in 8 or 4 bits, without the module: gives its manifest.

    It is compared with the kept one, whose own distance from torch is added to what is found. None where the kept one turns out to be
    of no use, as it was written: then the module must be asked. Raises ExportError.
    """
    import onnx_ir  # not at the top: a second start needs none

    graph = folder / store.GRAPH
    try:
        reference = Exported(open_fresh(kept.folder / store.GRAPH), device="cpu")
        model = onnx_ir.load(kept.folder / store.GRAPH)
        before = {name: float(kept.manifest["parity"][name]) for name in ("absolute", "relative", "overall")}
        node, warnings = kept.manifest["node"], list(kept.manifest["warnings"])
    except Exception:  # noqa: BLE001 what reads graphs may raise anything; the manifest may lack something
        return None

    def compared() -> Parity:
        found = parity_of(reference, Exported(open_fresh(graph), device="cpu"), _cases(signature), tolerance=TOLERANCES[precision][0])
        return replace(found, **{name: getattr(found, name) + distance for name, distance in before.items()})

    reduced = bring([graph], precision, compared, unwritten={graph: model})
    found = {"precision": precision, "weights": reduced.weights, "parity": asdict(reduced.parity)}
    warnings += [f"{node}: {text}" for text in reduced.warnings]
    return {**kept.manifest, **found, "warnings": warnings, "derived": kept.folder.name}


def _cases(signature: Signature) -> list[tuple[torch.Tensor, ...]]:
    """Inputs of sizes other than those traced."""
    return [
        make_inputs(signature.input_ports, choice, seed=seed, most=signature.most, times=signature.times)
        for seed, choice in enumerate(CHECKED, start=1)
    ]


class _Refused(ExportError):
    """A graph that is too far from its module, with so many copies of layers in it."""

    def __init__(self, text: str, copies: int) -> None:
        super().__init__(text)
        self.copies = copies


def _written(module: torch.nn.Module, signature: Signature, precision: str, folder: Path, *, is_whole: bool) -> tuple[int, Reduced]:
    """Write and prove a graph; gives how many layers are copies. Raises ExportError, and for what is refused _Refused."""
    store.tell(1, "tracing every layer" if is_whole else "tracing")
    graph = folder / store.GRAPH
    for file in (graph, graph.with_name(f"{graph.name}.data")):
        file.unlink(missing_ok=True)
    copies = export(Halved(module) if precision == "float16" else module, signature, graph, is_whole=is_whole)
    try:
        if copies and precision in WEIGHT_BITS:
            _prove_copies(module, graph, signature)
        return copies, bring([graph], precision, lambda: prove(module, graph, signature, precision))
    except ExportError as error:
        raise _Refused(str(error), copies) from error


def _prove_copies(module: torch.nn.Module, graph: Path, signature: Signature) -> None:
    """Raise ExportError for a float32 graph that differs from its module: what fewer bits may differ by would hide a wrong copy."""
    exported = Exported(open_fresh(graph), device="cpu")
    parity = parity_of(module, exported, _cases(signature)[:1], tolerance=TOLERANCES["float32"][0])
    if not parity.holds:
        raise ExportError(f"its layers are not alike: {parity}")


def _named(ports: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(port) for name, port in ports.items()}


def prove(module: torch.nn.Module, path: Path, signature: Signature, precision: str) -> Parity:
    """Compare an export with its module on sizes other than those traced."""
    exported = Exported(open_fresh(path), device="cpu")
    with in_turn(module, torch.float32):
        return parity_of(module, exported, _cases(signature), tolerance=TOLERANCES[precision][0])
