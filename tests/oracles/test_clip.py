"""CLIP equals its independent implementations: towers, losses, pictures and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from modelgraft.installed.discovery import discover
from support.open_part import counts, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

REGISTRY = discover()


def square(tokens: torch.Tensor) -> torch.Tensor:
    """Vectors of cells, row by row, as a map: [batch cells width] -> [batch width side side]."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def resnet(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
    """The residual tower, from a folder with the words of its own code and its official keys."""
    with TemporaryDirectory() as folder:
        home = given.as_folder(Path(folder), {"model_type": "clip_resnet", **given.config})
        found = open_part(REGISTRY, "clip/resnet", str(home))(case.inputs["image"])
    return {"feature_map": square(found["tokens"]), "features": found["pooled"]}


@pytest.mark.parametrize("case", cases("clip_resnet"))
def test_the_residual_tower_equals_the_published_code(case: Case):
    """The map of the last block, and what attention gathers from it."""
    case.compare_all(resnet(oracle("clip_resnet"), case))


def test_a_weight_of_the_residual_tower_that_is_off_shows():
    """Any of them."""
    must_differ("clip_resnet", resnet)


def test_the_residual_tower_is_counted_to_the_unit(tmp_path: Path):
    """By its formula, as it is built, and in the file."""
    given = oracle("clip_resnet")
    home = given.as_folder(tmp_path, {"model_type": "clip_resnet", **given.config})
    held = sum(tensor.numel() for key, tensor in given.weights.items() if "running" not in key)
    assert counts(open_part(REGISTRY, "clip/resnet", str(home)).node) == (held, held)
