"""HuBERT as fairseq computes it: the frames after each layer, from its own keys, alone and through the graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from support.installed import registry
from support.open_part import open_part
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

REGISTRY = registry()
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


# -- masked prediction --------------------------------------------------------------------------------------------------

PREDICTED = [case for case in cases(NAME) if "mask" in case.values[0].inputs]


def units_of(case: Case) -> torch.Tensor:
    """The codes of all books: int64[batch frames], or with the books behind where there are several."""
    names = sorted((name for name in case.inputs if name.startswith("codes_")), key=lambda name: int(name[6:]))
    books = [case.inputs[name] for name in names]
    return torch.stack(books, -1) if len(books) > 1 else books[0]


def named(case: Case, sums: torch.Tensor, penalty: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """The outputs of a case: what the whole batch loses in each book, and the mean square of the features."""
    lost = {f"loss_{book}": one for book, one in enumerate(sums.sum(0))}
    return {name: tensor for name, tensor in {**lost, "features_pen": penalty.mean()}.items() if name in case.outputs}


def predicted(given: Oracle, case: Case, folder: Path) -> Mapping[str, torch.Tensor]:
    """The losses of a case, part by part."""
    source = folder_of(given, folder)
    head, loss = open_part(REGISTRY, "units/code_head", source), open_part(REGISTRY, "units/masked_prediction", source, offset=0)
    with torch.no_grad():
        found = open_part(REGISTRY, "audio/encoder", source)(case.inputs["wave"], None, case.inputs["mask"])
        lost = loss(head(found["tokens"]), units_of(case), case.inputs["mask"], found["frame_mask"], found["conv_features"])
    return named(case, lost["sums"], lost["penalty"])


@pytest.mark.parametrize("case", PREDICTED)
def test_losses_of_all_code_books_equal_those_of_fairseq(case: Case, tmp_path: Path):
    """Head and codes from fairseq's keys."""
    case.compare_all(predicted(oracle(NAME), case, tmp_path))


@pytest.mark.parametrize("case", PREDICTED)
def test_the_graph_of_pre_training_gives_the_same(case: Case, tmp_path: Path):
    """`hubert/pretrain` with tensors in place of a sound, of what is drawn, and of units."""
    source, units = folder_of(oracle(NAME), tmp_path / "model"), units_of(case)
    books = "" if units.dim() == 2 else f" {units.shape[-1]}"
    feeds = {
        "encoder.samples": "float[batch samples]", "encoder.spans": "bool[batch tokens]", "loss.spans": "bool[batch tokens]",
        "loss.units": f"int64[batch frames{books}]",
    }  # fmt: skip
    path = fed(
        tmp_path, "hubert/pretrain", feeds, {"sums": "loss.sums", "penalty": "loss.penalty"},
        without=("samples", "masked", "inputs.audio", "inputs.units", "nodes.encoder.in.mask", "outputs.spans"),
    )  # fmt: skip
    with mg.open(mg.load(path, params={"checkpoint": source, "offset": 0}, allow=["unused"])) as pipeline:
        spans = case.inputs["mask"]
        found = pipeline.run(encoder_samples=case.inputs["wave"], encoder_spans=spans, loss_spans=spans, loss_units=units)
    case.compare_all(named(case, found["sums"], found["penalty"]))


def test_a_weight_that_is_off_shows(tmp_path: Path):
    """In a layer or in a loss."""

    def answers(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
        return (predicted if "mask" in case.inputs else heard)(given, case, tmp_path / case.name)

    must_differ(NAME, answers)
