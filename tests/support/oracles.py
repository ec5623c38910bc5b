"""What independent implementations answer: random weights, inputs and outputs, made once with the code that `meta.json` names.

They lie in tests/oracles. MODELGRAFT_ORACLES names a folder of others, of other sizes: what it has goes before ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

HOME = Path(__file__).parent.parent / "oracles"


def home_of(name: str) -> Path:
    """The folder or file of an oracle: in the folder that MODELGRAFT_ORACLES names, or here."""
    other = Path(os.environ.get("MODELGRAFT_ORACLES", HOME)) / name
    return other if other.exists() else HOME / name


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs and expected outputs by name, and how far an answer may be from each output."""

    name: str
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    tolerances: Mapping[str, float]

    def compare(self, **got: torch.Tensor) -> None:
        """Every element of every output that is given, within its tolerance."""
        for name, tensor in got.items():
            expected = self.outputs[name]
            assert tensor.shape == expected.shape, (self.name, name, tensor.shape)
            error = (tensor.double() - expected.double()).abs().max().item()
            assert error <= self.tolerances[name], (self.name, name, error)


@dataclass(frozen=True, slots=True)
class Oracle:
    """A reference implementation at a tiny size."""

    config: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    cases: Mapping[str, Case]
    file: Path


def oracle(name: str) -> Oracle:
    """Read the folder of an oracle."""
    folder = home_of(name)
    meta = json.loads((folder / "meta.json").read_text())
    weights = folder / "weights.safetensors"
    return Oracle(meta["config"], load_file(weights), dict(_cases(meta, load_file(folder / "io.safetensors"))), weights)


def _cases(meta: Mapping[str, Any], io: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, Case]]:
    for name, spec in meta["cases"].items():
        inputs = {key: io[f"{name}/in/{key}"] for key in spec["inputs"]}
        outputs = {key: io[f"{name}/out/{key}"] for key in spec["outputs"]}
        yield name, Case(name, inputs, outputs, {key: out["atol"] for key, out in spec["outputs"].items()})
