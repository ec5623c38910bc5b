"""Noise to begin with: by the seed and a number, whatever stands beside it."""

from __future__ import annotations

import pytest
import torch

import modelgraft as mg
from modelgraft.testing import conform
from modelgraft_plugins.diffusion import Noise
from modelgraft_plugins.diffusion.noise import Drawing

GRAPH = """modelgraft: 1
inputs: {number: "int64[batch]"}
nodes: {noise: {use: diffusion/noise, with: {channels: 2, rows: 3, columns: 5}, in: {number: inputs.number}}}
outputs: {latents: noise}
"""


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "drawn.yaml").write_text(GRAPH)
    return mg.load(tmp_path / "drawn.yaml")


def test_noise_conforms():
    conform(Noise, {"channels": 2, "rows": 3, "columns": 5}, number=torch.tensor([3, 0]))


def test_another_number_draws_another_noise_and_the_same_one_the_same(graph):
    """Alone or in a batch, in any order."""
    with mg.open(graph, seed=3) as opened:
        several = [opened.run(number=torch.tensor(numbers))["latents"] for numbers in ([0, 1, 2, 3], [2, 0])]
        alone = opened.run(number=torch.tensor([2]))["latents"]
    with mg.open(graph, seed=4) as other:
        elsewhere = other.run(number=torch.tensor([2]))["latents"]
    first = list(several[0])
    assert all(not torch.equal(first[one], first[two]) for one in range(4) for two in range(one))
    assert torch.equal(several[1][0], first[2])
    assert torch.equal(several[1][1], first[0])
    assert torch.equal(alone[0], first[2])
    assert not torch.equal(elsewhere[0], first[2])


def test_nobody_asks_and_nothing_is_drawn():
    """An ask of none is a batch of none."""
    assert Drawing((2, 3, 5), node="noise")(torch.zeros(0, dtype=torch.int64)).shape == (0, 2, 3, 5)


def test_noise_is_normal():
    """Mean and spread of many draws, within what so many allow (six times the error of the mean)."""
    found = Drawing((4, 50, 50), node="noise")(torch.tensor([7]))
    assert abs(found.mean().item()) < 0.06
    assert abs(found.std().item() - 1) < 0.06
