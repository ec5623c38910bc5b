"""A flat module as an ONNX graph that is near enough to it: written, brought to its precision, and proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from modelgraft.plugin import CHECKED, Parity, Signature, make_inputs, parity_of
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import Halved, export, open_fresh
from modelgraft_plugins.onnx.keys import OPSET
from modelgraft_plugins.onnx.precision import TOLERANCES, Reduced, bring


def write(module: torch.nn.Module, signature: Signature, precision: str, folder: Path) -> tuple[dict[str, Any], Reduced]:
    """Write the graph of a flat module into a folder, and prove it.

    Gives what its manifest says of it, and what was done to its weights. Raises ExportError.
    """
    store.tell(1, "tracing")
    export(Halved(module) if precision == "float16" else module, signature, folder / store.GRAPH)
    reduced = bring([folder / store.GRAPH], precision, lambda: prove(module, folder / store.GRAPH, signature, precision))
    facts = {
        "inputs": _named(dict(signature.inputs)),
        "outputs": _named(dict(signature.outputs)),
        "opset": OPSET,
        "precision": precision,
        "weights": reduced.weights,
        "parity": asdict(reduced.parity),
    }
    return facts, reduced


def _named(ports: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(port) for name, port in ports.items()}


def prove(module: torch.nn.Module, path: Path, signature: Signature, precision: str) -> Parity:
    """Compare an export with its module on sizes other than those traced."""
    exported = Exported(open_fresh(path), device="cpu")
    cases = [
        make_inputs(signature.input_ports, choice, seed=seed, most=signature.most, times=signature.times)
        for seed, choice in enumerate(CHECKED, start=1)
    ]
    return parity_of(module, exported, cases, tolerance=TOLERANCES[precision][0])
