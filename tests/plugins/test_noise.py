"""embedding/noise: vectors of the length 1 with noise of a size, by the seed."""

from __future__ import annotations

from pathlib import Path

import torch

import modelgraft as mg

GRAPH = """
modelgraft: 1
inputs: {x: "float[batch width]"}
nodes: {near: {use: embedding/noise, with: {std: 0.2}, in: {x: inputs.x}}}
outputs: {y: near}
"""


def test_noise_has_its_size_and_follows_from_the_seed(tmp_path: Path):
    """Whatever the length of the vectors; another seed draws another."""
    (tmp_path / "noise.yaml").write_text(GRAPH)
    x = 7 * torch.randn(50, 400, generator=torch.Generator().manual_seed(2))
    found = []
    for seed in (1, 1, 2):
        with mg.open(tmp_path / "noise.yaml", seed=seed) as pipeline:
            found.append(pipeline.run(x=x)["y"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    drawn = found[0] - x / x.norm(dim=-1, keepdim=True)
    assert abs(float(drawn.std()) - 0.2) < 0.005
    assert abs(float(drawn.mean())) < 0.01
