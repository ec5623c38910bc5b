"""NFNet-F, whole in one file, in reading order: convolutions, gates, blocks, stages. Parameter names are those of timm.

A residual network without norms: the weights of convolutions are standardised instead, activations are scaled so that they keep
their variance, and each block reads its input divided by the deviation that it is expected to have.
Sources: arXiv 2102.06171 (NFNet), arXiv 2101.08692 (why its signals keep their size); as timm's `dm_nfnet` computes it, which differs
from the code of its authors in two small things: an exact GELU, and what is added to the variance of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft_plugins.vision.nfnets import STEM

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.vision.nfnets import NFNet as NFNetConfig

GAMMA = 1.7015043497085571  # 1 / deviation of gelu(x) for a standard normal x; from the code of its authors
ALPHA = 0.2  # share of what a block adds
GATE_GAIN = 2.0  # sigmoid halves on average
EPSILON = 1e-5  # added to the variance of weights


def activate(x: Tensor) -> Tensor:
    """GELU that keeps the variance."""
    return functional.gelu(x) * GAMMA


class Convolution(nn.Conv2d):
    """A convolution whose weights have mean 0 and variance `gain` / inputs, for each channel: float[batch given height width] to
    float[batch out height/stride width/stride].

    Where sides are halved an even side is filled up behind, not before, as TensorFlow does ("SAME").
    """

    def __init__(self, given: int, out: int, side: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(given, out, side, stride=stride, groups=groups, padding=side // 2 if stride == 1 else 0)
        self.gain = nn.Parameter(torch.ones(out, 1, 1, 1))
        self.behind = side - stride if stride > 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        """Standardise, and convolve."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        scale = self.gain * self.weight[0].numel() ** -0.5 * (variance + EPSILON).rsqrt()
        x = functional.pad(x, (0, self.behind, 0, self.behind)) if self.behind else x
        return functional.conv2d(x, (self.weight - mean) * scale, self.bias, self.stride, self.padding, groups=self.groups)


class Gate(nn.Module):
    """Scale channels by what the mean of the picture says of them (squeeze and excite)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float[batch channels height width] to the same."""
        asked = functional.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * self.fc2(asked).sigmoid()  # type: ignore[no-any-return]


class Shortcut(nn.Module):
    """The way around a block that halves sides, or gives other channels: average, and map."""

    def __init__(self, given: int, out: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = Convolution(given, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float[batch given height width] to float[batch out height/stride width/stride]."""
        return self.conv(functional.avg_pool2d(x, self.stride) if self.stride > 1 else x)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Narrow, convolve twice, widen, gate, and add a little of it. `beta`: 1 / the deviation that its input is expected to have."""

    def __init__(self, given: int, out: int, inner: int, gate: int, *, groups: int, stride: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.downsample = Shortcut(given, out, stride=stride) if stride > 1 or given != out else None
        self.conv1 = Convolution(given, inner, 1)
        self.conv2 = Convolution(inner, inner, 3, stride=stride, groups=groups)
        self.conv2b = Convolution(inner, inner, 3, groups=groups)
        self.conv3 = Convolution(inner, out, 1)
        self.attn_last = Gate(out, gate)
        self.skipinit_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """float[batch given height width] to float[batch out height/stride width/stride]."""
        inner = activate(x) * self.beta
        around = x if self.downsample is None else self.downsample(inner)
        inner = self.conv2(activate(self.conv1(inner)))
        inner = self.conv3(activate(self.conv2b(activate(inner))))
        inner = GATE_GAIN * self.attn_last(inner) * self.skipinit_gain
        return inner * ALPHA + around  # type: ignore[no-any-return]


class NFNet(nn.Module):
    """pixels float[batch 3 side side] to tokens float[batch cells width] and pooled float[batch features]; with `many` an axis `images`.

    A picture of zeros alone, which fills up a record that has fewer than others, gives zeros then.
    """

    def __init__(self, config: NFNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3, *(config.stem_channels // share for share in STEM)]
        self.stem = nn.Module()
        for index, stride in enumerate((2, 1, 1, 2)):
            self.stem.add_module(f"conv{index + 1}", Convolution(widths[index], widths[index + 1], 3, stride=stride))
        self.stages = nn.Sequential(*_stages(config))
        self.final_conv = Convolution(config.channels[-1], config.features, 1)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """The names are those of the published files."""
        return weights.state()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Stem, four stages, and the last convolution over what they give."""
        if not self.config.many:
            return self._see(pixels)
        there = pixels.flatten(2).ne(0).any(-1)  # [batch images]
        found = {name: value.reshape(*pixels.shape[:2], *value.shape[1:]) for name, value in self._see(pixels.flatten(0, 1)).items()}
        return {name: value * there.to(value.dtype).reshape(*there.shape, *[1] * (value.ndim - 2)) for name, value in found.items()}

    def _see(self, x: Tensor) -> dict[str, Tensor]:
        for index in range(len(STEM)):
            x = self.stem.get_submodule(f"conv{index + 1}")(x if index == 0 else activate(x))
        x = self.stages(x)
        features = activate(self.final_conv(x))
        cells = features if self.config.layer is None else x
        return {"tokens": cells.flatten(2).transpose(1, 2), "pooled": features.mean((2, 3))}


def _stages(config: NFNetConfig) -> list[nn.Sequential]:
    """The stages. The variance that is expected grows by ALPHA squared with each block, and begins anew behind the first of a stage."""
    stages, given, variance = list[nn.Sequential](), config.stem_channels, 1.0
    for stage, (count, out) in enumerate(zip(config.depths, config.channels, strict=True)):
        inner, gate, blocks = config.inner_channels[stage], config.gate_channels[stage], list[Block]()
        for at in range(count):
            stride = 2 if at == 0 and stage else 1
            groups, beta = inner // config.group_size, variance**-0.5
            blocks.append(Block(given, out, inner, gate, groups=groups, stride=stride, beta=beta))
            given, variance = out, (1.0 if at == 0 else variance) + ALPHA**2
        stages.append(nn.Sequential(*blocks))
    return stages
