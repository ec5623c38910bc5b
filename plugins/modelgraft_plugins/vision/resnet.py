"""CLIP's residual network, whole in one file, in reading order: stem, blocks, attention that pools.

It differs from other ResNets in three things: a stem of three convolutions, an average in place of every stride (so that nothing
is skipped over), and a pooling by attention with the mean as the query. Source: arXiv 2103.00020, section 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft_plugins.vision.resnets import GROWTH, STRIDE

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.vision.resnets import ResNet as ResNetConfig


class Bottleneck(nn.Module):
    """Narrow, convolve, widen, and add: float[batch given height width] to float[batch 4*inner height/stride width/stride]."""

    def __init__(self, given: int, inner: int, *, stride: int) -> None:
        super().__init__()
        out = inner * GROWTH
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(given, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        is_mapped = stride > 1 or given != out
        self.downsample = nn.Sequential(nn.Conv2d(given, out, 1, bias=False), nn.BatchNorm2d(out)) if is_mapped else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Where sides are halved, each way averages first behind its last wide convolution, and so does the way around."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = self._shrunk(functional.relu(self.bn2(self.conv2(inner))))
        return functional.relu(self.bn3(self.conv3(inner)) + self.downsample(self._shrunk(x)))

    def _shrunk(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """cells float[batch cells channels] to float[batch pooled]: the mean of all asks, all and the mean answer."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        channels = config.channels
        self.heads = config.num_attention_heads
        self.positional_embedding = nn.Parameter(torch.randn(config.tokens + 1, channels) / channels**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, config.projection_size) if config.projection_size is not None else nn.Identity()

    def forward(self, cells: Tensor) -> Tensor:
        """The mean stands before the cells, and each has its place added."""
        x = torch.cat([cells.mean(1, keepdim=True), cells], dim=1) + self.positional_embedding
        query, key, value = self._split(self.q_proj(x[:, :1])), self._split(self.k_proj(x)), self._split(self.v_proj(x))
        found = functional.scaled_dot_product_attention(query, key, value)  # [batch heads 1 channels/heads]
        return self.c_proj(found.transpose(1, 2).flatten(1))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """[batch places channels] -> [batch heads places channels/heads]."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class ResNet(nn.Module):
    """pixels float[batch 3 side side] to tokens float[batch cells channels] and pooled float[batch pooled_size]."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        half, given = config.width // 2, config.width
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, given, 3, padding=1, bias=False), nn.BatchNorm2d(given)
        for stage, count in enumerate(config.layers):
            inner = config.width * 2**stage
            strides = [1 if stage == 0 else 2, *[1] * (count - 1)]
            blocks = [Bottleneck(given if at == 0 else inner * GROWTH, inner, stride=stride) for at, stride in enumerate(strides)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            given = inner * GROWTH
        self.attnpool = AttentionPool(config)
        assert given == config.channels, f"a vector stands for {STRIDE} x {STRIDE} pixels"

    @property
    def optional_keys(self) -> tuple[str, ...]:
        """How many batches a norm has seen is of no use, and some files leave it out."""
        return tuple(name for name in self.state_dict() if name.endswith("num_batches_tracked"))

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """The names are those of the published files, below `visual.`."""
        return weights.state()

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Stem, four stages, and the attention over what they give."""
        x = pixels
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = functional.relu(norm(conv(x)))
        x = functional.avg_pool2d(x, 2)
        for stage in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        cells = x.flatten(2).transpose(1, 2)
        return {"tokens": cells, "pooled": self.attnpool(cells)}
