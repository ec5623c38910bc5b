"""A perceptron that sees the picture under noise. Source: arXiv 2406.11838, whose blocks are told by shift, scale and gate (adaLN)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modelgraft.plugin import Driven
from modelgraft_plugins.diffusion.rectified import TIMES

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.diffusion.rectified import FlowMLP, Perceptron

SLOWEST = 10_000  # longest wave of a time over 2 pi, as in arXiv 1706.03762


class Unveil(nn.Module):
    """What picture stands under noise.

    sample  float[batch channels height width];  time  float[batch], 0 for a picture to 1000 for noise
    text    float[batch d];  style  float[batch style_size];  returns  as the sample
    """

    def __init__(self, config: Perceptron) -> None:
        super().__init__()
        self.sizes = (config.channels or 0, config.height or 0, config.width or 0)
        numbers, hidden, inner = math.prod(self.sizes), config.hidden, config.condition
        self.into = nn.Linear(numbers, hidden)
        self.time = nn.Sequential(nn.Linear(inner, inner), nn.SiLU(), nn.Linear(inner, inner))
        self.text, self.style = nn.Linear(config.d or 0, inner), nn.Linear(config.style_size or 0, inner)
        self.blocks = nn.ModuleList(Block(hidden, inner) for _ in range(config.blocks))
        self.norm, self.tell = nn.LayerNorm(hidden, elementwise_affine=False), closed(nn.Linear(inner, 2 * hidden))
        self.out = closed(nn.Linear(hidden, numbers))

    def forward(self, sample: Tensor, time: Tensor, text: Tensor, style: Tensor) -> Tensor:
        """Tell time, text and style to each block."""
        told = nn.functional.silu(self.time(waves(time, self.tell.in_features).to(text)) + self.text(text) + self.style(style))
        x = self.into(sample.flatten(1))
        for block in self.blocks:
            x = block(x, told)
        shift, scale = self.tell(told).chunk(2, dim=-1)
        pixels: Tensor = self.out(self.norm(x) * (1 + scale) + shift)
        return pixels.view(-1, *self.sizes)


class Block(nn.Module):
    """x + gate * mlp(norm(x) * (1 + scale) + shift): with its gate closed at first, it gives what it is given."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.norm, self.tell = nn.LayerNorm(hidden, elementwise_affine=False), closed(nn.Linear(inner, 3 * hidden))
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """float[batch hidden], float[batch condition] -> float[batch hidden]."""
        shift, scale, gate = self.tell(told).chunk(3, dim=-1)
        moved: Tensor = x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)
        return moved


class Flow(nn.Module):
    """The way from the picture to the noise, which schedulers step along: (sample - picture) / t."""

    def __init__(self, config: Perceptron) -> None:
        super().__init__()
        self.model = Unveil(config)

    def forward(self, sample: Tensor, time: Tensor, text: Tensor, style: Tensor) -> Tensor:
        """As Unveil takes it -> as the sample. No schedule asks at the time 0, where there is no noise."""
        share = (time / TIMES).view(-1, 1, 1, 1)
        flow: Tensor = (sample - self.model(sample, time, text, style)) / share
        return flow


class Flowing(Driven):
    """The flow as the part of a loop."""

    def __init__(self, config: FlowMLP) -> None:
        super().__init__()
        self.network = Flow(config)

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of a trained Unveil."""
        return {f"network.model.{name}": tensor for name, tensor in weights.state().items()}


def waves(time: Tensor, width: int) -> Tensor:
    """float[batch] -> float[batch width]: sines and cosines of waves that grow slower."""
    rates = torch.exp(torch.arange(width // 2, device=time.device) * (-math.log(SLOWEST) / (width // 2)))
    angles = time[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def closed(layer: nn.Linear) -> nn.Linear:
    """The layer with zeros, so that it says nothing before it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
