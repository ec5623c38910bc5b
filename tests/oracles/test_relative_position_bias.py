"""Distances in a grid of cells equal those of an independent implementation, as numbers and behind a softmax."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from support.installed import registry
from support.open_part import open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

REGISTRY = registry()


@pytest.fixture
def run(tmp_path: Path):
    """The component on a folder with the weights of an oracle."""

    def part(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
        folder = given.as_folder(tmp_path / f"{id(given)}", {"model_type": "simvlm", **given.config})
        found = open_part(REGISTRY, "simvlm/relative_bias", str(folder))(case.inputs["logits"])
        assert torch.equal(found["bias"][0], found["bias"][-1])
        return {"attention": found["attention"], "bias": found["bias"][0]}

    return part


@pytest.mark.parametrize("case", [*cases("relative_position_bias_2d")])
def test_distances_equal_the_reference(case, run):
    """The query minus the key, rows before columns."""
    case.compare_all(run(oracle("relative_position_bias_2d"), case))


def test_a_table_that_is_off_shows(run):
    """Every number of the table is some pair's."""
    must_differ("relative_position_bias_2d", run)
