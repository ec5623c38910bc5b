"""What independent implementations answer: random weights, inputs and outputs, made once with the code that `meta.json` names.

They lie in tests/oracles. MODELGRAFT_ORACLES names a folder of others, of other sizes: what it has goes before ours.

A test over one goes through all of its cases, takes every size from `config`, and compares every output of a case:

    @pytest.mark.parametrize("case", cases("vit_timm"))
    def test_it_equals_the_reference(case):
        case.compare_all(run(oracle("vit_timm"), case))

    def test_a_weight_that_is_off_shows():
        must_differ("vit_timm", run)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

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

    def compare_all(self, got: Mapping[str, torch.Tensor]) -> None:
        """Every output of the case, and nothing that is none of them."""
        assert set(got) == set(self.outputs), (self.name, sorted(got), sorted(self.outputs))
        self.compare(**got)


@dataclass(frozen=True, slots=True)
class Oracle:
    """A reference implementation at a tiny size."""

    config: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    cases: Mapping[str, Case]
    file: Path
    idle: tuple[str, ...] = field(default=())  # weights that change none of these outputs

    def as_folder(self, folder: Path, config: Mapping[str, Any], *, name: str = "model.safetensors") -> Path:
        """The weights, under their official keys, as a folder with a config.json."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        save_file({key: tensor.contiguous() for key, tensor in self.weights.items()}, folder / name)
        return folder

    def as_file(self, path: Path) -> Path:
        """The weights alone, as a file of safetensors, or of torch by the ending of the path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file({key: tensor.contiguous() for key, tensor in self.weights.items()}, path)
        else:
            torch.save(dict(self.weights), path)
        return path


@cache
def oracle(name: str) -> Oracle:
    """Read the folder of an oracle. Of a part without weights they are empty."""
    folder = home_of(name)
    meta = json.loads((folder / "meta.json").read_text())
    weights, idle = folder / "weights.safetensors", meta.get("weights", {}).get("no_effect_on_these_outputs", ())
    state = load_file(weights) if weights.exists() else {}
    return Oracle(meta["config"], state, dict(_cases(meta, load_file(folder / "io.safetensors"))), weights, tuple(idle))


def cases(name: str) -> list[Any]:
    """The cases of an oracle, as rows of a table of tests."""
    import pytest

    return [pytest.param(case, id=f"{name}-{case.name}") for case in oracle(name).cases.values()]


KEYS_BIAS = "/key/bias"  # of the Google code; it adds one number to all that a query is compared with, which a softmax takes out again


def perturbed(given: Oracle, seed: int) -> tuple[Oracle, str]:
    """The same oracle with one weight, drawn by the seed, a little off in every element; and the name of that weight."""
    generator = torch.Generator().manual_seed(seed)
    told = {key: tensor for key, tensor in given.weights.items() if key not in given.idle and not key.endswith(KEYS_BIAS)}
    names = sorted(key for key, tensor in told.items() if tensor.is_floating_point())
    name = names[int(torch.randint(len(names), (), generator=generator))]
    tensor = given.weights[name]
    step = 0.1 * max(float(tensor.abs().mean()), 0.1)
    off = tensor + step * torch.randn(tensor.shape, generator=generator).sign() * (1 + torch.rand(tensor.shape, generator=generator))
    return replace(given, weights={**given.weights, name: off}), name


def must_differ(name: str, run: Callable[[Oracle, Case], Mapping[str, torch.Tensor]], *, seed: int | None = None) -> None:
    """Run every case with one weight off: at least one comparison must fail. MODELGRAFT_ORACLES_SEED draws another weight.

    run  builds the part from an oracle and gives the outputs of a case
    """
    drawn = int(os.environ.get("MODELGRAFT_ORACLES_SEED", "0")) if seed is None else seed
    off, which = perturbed(oracle(name), drawn)
    for case in off.cases.values():
        got = run(off, case)
        assert set(got) == set(case.outputs), sorted(got)
        try:
            case.compare(**got)
        except AssertionError:
            return
    raise AssertionError(f"{name}: '{which}' was off, and every output was as expected")


def fed(folder: Path, graph: str, feeds: Mapping[str, str], outputs: Mapping[str, str], *, without: tuple[str, ...] = ()) -> Path:
    """A graph file that is a shipped graph with tensors in place of what some nodes prepare.

    feeds    "node.port" -> the type of the tensor, which becomes the input `node_port` of the graph
    outputs  what the graph gives, by name
    without  nodes, inputs ("inputs.image") and outputs ("outputs.label") that are left out
    """
    text: dict[str, Any] = {"modelgraft": 1, "extends": graph}
    for place, type_ in feeds.items():
        node, port = place.split(".")
        text[f"inputs.{node}_{port}"] = type_
        text[f"nodes.{node}.in.{port}"] = f"inputs.{node}_{port}"
    for name in without:
        text[name if "." in name else f"nodes.{name}"] = None
    text.update({f"outputs.{name}": reference for name, reference in outputs.items()})
    path = folder / "fed.yaml"
    path.write_text(yaml.safe_dump(text))
    return path


def _cases(meta: Mapping[str, Any], io: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, Case]]:
    for name, spec in meta["cases"].items():
        inputs = {key: io[f"{name}/in/{key}"] for key in spec["inputs"]}
        outputs = {key: io[f"{name}/out/{key}"] for key in spec["outputs"]}
        yield name, Case(name, inputs, outputs, {key: out["atol"] for key, out in spec["outputs"].items()})
