"""A small maker of pictures: what its flow is trained on, what its perceptron says, and the loop that draws with it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

import modelgraft as mg
from modelgraft.testing import run_node
from modelgraft_plugins.diffusion.rectified import Interpolate, PictureMLP
from modelgraft_plugins.diffusion.rectified_modules import Unveil

SIZES = {"hidden": 7, "blocks": 2, "condition": 6, "d": 5, "style_size": 3, "channels": 3, "height": 4, "width": 2}
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32 against float64
GRAPH = """
modelgraft: 1
params: {guidance: 2.5, steps: 4}
inputs: {text: "float[batch 5]", style: "float[batch 3]", latents: "float[batch 3 4 2]"}
nodes:
  flow:
    use: diffusion/flow-mlp
    from: ./maker.safetensors
    with: {channels: 3, height: 4, width: 2, steps: "${steps}", guidance: "${guidance}"}
    in: {text: inputs.text, style: inputs.style, latents: inputs.latents}
  picture: {use: diffusion/picture, in: {pixels: flow}}
outputs: {pixels: flow, image: picture}
"""


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    """Numbers of a normal distribution."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def perceptron() -> Unveil:
    """One with no weight at zero."""
    model = Unveil(PictureMLP(**SIZES))
    for number, parameter in enumerate(model.parameters()):
        parameter.data = drawn(*parameter.shape, seed=number) * 0.5
    return model.eval()


def unveiled(model: Unveil, x: torch.Tensor, time: torch.Tensor, text: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """The formula in float64, layer by layer, from the weights by their names."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}

    def layer(name: str, given: torch.Tensor) -> torch.Tensor:
        return given.double() @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def even(given: torch.Tensor) -> torch.Tensor:
        apart = given - given.mean(-1, keepdim=True)
        return apart / (apart.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def silu(given: torch.Tensor) -> torch.Tensor:
        return given / (1 + (-given).exp())

    turns = [[float(one) * 10_000 ** -(index / 3) for index in range(3)] for one in time]
    waves = torch.tensor([[*map(math.sin, row), *map(math.cos, row)] for row in turns], dtype=torch.float64)
    told = silu(layer("time.2", silu(layer("time.0", waves))) + layer("text", text) + layer("style", style))
    found = layer("into", x.flatten(1))
    for block in ("blocks.0", "blocks.1"):
        shift, scale, gate = layer(f"{block}.tell", told).split(7, dim=-1)
        inner = even(found) * (1 + scale) + shift
        found = found + gate * layer(f"{block}.mlp.2", silu(layer(f"{block}.mlp.0", inner)))
    shift, scale = layer("tell", told).split(7, dim=-1)
    return layer("out", even(found) * (1 + scale) + shift).view(x.shape)


def test_what_stands_under_noise_is_that_of_the_formula():
    """Another time, text or style tells another picture."""
    model, x, text, style = perceptron(), drawn(2, 3, 4, 2), drawn(2, 5), drawn(2, 3)
    time = torch.tensor([1000.0, 31.0])
    torch.testing.assert_close(model(x, time, text, style).double(), unveiled(model, x, time, text, style), **CLOSE)


def test_it_says_nothing_before_it_is_trained():
    """So its first loss is the mean square of the pixels."""
    found = Unveil(PictureMLP(**SIZES))(drawn(2, 3, 4, 2), torch.tensor([5.0, 900.0]), drawn(2, 5), drawn(2, 3))
    assert torch.equal(found, torch.zeros(2, 3, 4, 2))


def test_its_parameters_are_counted():
    assert PictureMLP(**SIZES).parameters() == sum(parameter.numel() for parameter in perceptron().parameters())


def test_records_lie_on_the_straight_way_to_noise_of_their_own():
    """Times are even between 0 and 1000, what is left without the picture is noise of the variance 1, and the same seed gives the same."""
    pixels, text = drawn(400, 3, 4, 2), drawn(400, 5)
    found = run_node(Interpolate, {"drop": 0.0}, seed=3, pixels=pixels, text=text)
    share = found["time"].double().view(-1, 1, 1, 1) / 1000
    noise = (found["sample"] - (1 - share) * pixels) / share
    clear = share.flatten() > 0.1  # rounding of float32 is not divided by almost nothing
    assert share.min() >= 0
    assert share.max() < 1
    assert share.mean().item() == pytest.approx(0.5, abs=0.06)  # four times 1 / sqrt(12 * 400)
    assert noise[clear].mean().item() == pytest.approx(0.0, abs=0.05)
    assert noise[clear].std().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(found["text"], text)
    again, other = (run_node(Interpolate, {"drop": 0.0}, seed=seed, pixels=pixels, text=text) for seed in (3, 4))
    assert torch.equal(found["sample"], again["sample"])
    assert not torch.equal(found["sample"], other["sample"])


def test_a_share_of_the_texts_is_dropped():
    """They become zeros, whole."""
    text = drawn(400, 5)
    found = run_node(Interpolate, {"drop": 0.25}, pixels=drawn(400, 3, 4, 2), text=text)["text"]
    is_dropped = (found == 0).all(dim=1)
    assert is_dropped.double().mean().item() == pytest.approx(0.25, abs=0.09)  # four times sqrt(0.25 * 0.75 / 400)
    assert torch.equal(found[~is_dropped], text[~is_dropped])


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_it_steps_along_the_flow(tmp_path: Path, backend: str, guidance: float):
    """By Euler's steps in float64 from noise to the picture, pushed away from what is drawn without a text; ONNX draws the same picture."""
    model, text, style, noise = perceptron(), drawn(2, 5), drawn(2, 3), drawn(2, 3, 4, 2)
    save_file(model.state_dict(), tmp_path / "maker.safetensors")
    (tmp_path / "draw.yaml").write_text(GRAPH)
    graph = mg.load(tmp_path / "draw.yaml", params={"guidance": guidance})
    with mg.open(graph, backend=backend) as pipeline:
        found = pipeline.run(text=text, style=style, latents=noise)
    shares = [1.0, 0.667, 0.334, 0.001, 0.0]  # even from 1 to a thousandth, as the scheduler of diffusers has them, and then the picture
    x = noise.double()
    for here, there in pairwise(shares):
        time = torch.full((2,), 1000 * here)
        flows = [(x - unveiled(model, x, time, one, style)) / here for one in (torch.zeros_like(text), text)]
        x = x + (there - here) * (flows[0] + guidance * (flows[1] - flows[0]))
    torch.testing.assert_close(found["pixels"].double(), x, rtol=1e-4, atol=1e-4)
    wanted = ((x / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1)
    for image, pixels in zip(found["image"], wanted, strict=True):
        assert (torch.tensor(numpy.asarray(image).astype(float)) - pixels).abs().max() <= 0.51  # rounded to whole numbers
