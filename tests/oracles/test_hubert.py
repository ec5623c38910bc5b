"""HuBERT as fairseq computes it: the frames after each layer, from its own keys, alone and through the graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.installed.discovery import discover
from support.open_part import open_part
from support.oracles import Case, Oracle, cases, fed, oracle

REGISTRY = discover()
NAME = "hubert"
WORDS = ("final_dim", "codes")  # of its config, beside those of the encoder
SIZES = ("samples",)  # of its cases, not of the model
HEARD = [case for case in cases(NAME) if "mask" not in case.values[0].inputs]


def folder_of(given: Oracle, folder: Path) -> str:
    """The weights under fairseq's keys beside their config."""
    config = {key: value for key, value in given.config.items() if key not in SIZES}
    return str(given.as_folder(folder, {"model_type": "hubert", **config}))


def layer_of(name: str) -> int | None:
    """Of an output; None: behind the last norm."""
    found = re.fullmatch(r"layer_(\d+)", name)
    return int(found[1]) if found else None


def heard(given: Oracle, case: Case, folder: Path) -> Mapping[str, torch.Tensor]:
    """The frames of each layer that a case has."""
    source = folder_of(given, folder)
    with torch.no_grad():
        return {
            name: open_part(REGISTRY, "audio/encoder", source, layer=layer_of(name))(case.inputs["wave"], None, None)["tokens"]
            for name in case.outputs
        }


@pytest.mark.parametrize("case", HEARD)
def test_each_layer_gives_what_fairseq_gives(case: Case, tmp_path: Path):
    """By its own numbers; the last norm, where there is one, belongs to no layer."""
    case.compare_all(heard(oracle(NAME), case, tmp_path))


@pytest.mark.parametrize("case", HEARD)
def test_the_graph_gives_the_same(case: Case, tmp_path: Path):
    """`hubert` with tensors in place of a sound."""
    source = folder_of(oracle(NAME), tmp_path / "model")
    outputs = {"tokens": "encoder.tokens"}
    path = fed(
        tmp_path, "hubert", {"encoder.samples": "float[batch samples]"}, outputs,
        without=("samples", "inputs.audio", "nodes.encoder.in.mask", "outputs.mask"),
    )  # fmt: skip
    got: dict[str, Any] = {}
    for name in case.outputs:
        with mg.open(mg.load(path, params={"checkpoint": source, "layer": layer_of(name)})) as pipeline:
            got[name] = pipeline.run(encoder_samples=case.inputs["wave"])["tokens"]
    case.compare_all(got)
