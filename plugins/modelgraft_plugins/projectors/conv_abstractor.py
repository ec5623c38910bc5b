"""Honeybee's C-Abstractor (arXiv 2312.06742, section 3.2): RegNet blocks, a pool, RegNet blocks, an MLP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from modelgraft_plugins.projectors.pooling_modules import pooled_grid, side_of

if TYPE_CHECKING:
    from modelgraft_plugins.projectors import abstractors


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of a map: [batch channels rows columns]."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 the name in torch
        """Norm each place."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Convolution(nn.Module):
    """A convolution without bias, a norm, and SiLU where it is wanted; in timm's names."""

    def __init__(self, given: int, width: int, *, kernel: int = 1, groups: int = 1, is_activated: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, width, kernel, padding=kernel // 2, groups=groups, bias=False)
        # timm has one epsilon for norms with an activation of their own (its LayerNormAct2d), and these are all such
        self.bn = ChannelNorm(width, eps=1e-5)
        self.is_activated = is_activated

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a map."""
        x = self.bn(self.conv(x))
        return nn.functional.silu(x) if self.is_activated else x


class Excitation(nn.Module):
    """Squeeze and excitation: each channel times a share that the means of all channels decide."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of a map."""
        means = x.mean((2, 3), keepdim=True)
        shares: Tensor = self.fc2(nn.functional.silu(self.fc1(means)))
        return x * shares.sigmoid()


class Block(nn.Module):
    """RegNet's bottleneck, as wide inside as outside, one channel to a group."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.conv1 = Convolution(given, width)
        self.conv2 = Convolution(width, width, kernel=3, groups=width)
        self.se = Excitation(width, round(given * 0.25))
        self.conv3 = Convolution(width, width, is_activated=False)
        self.downsample = Convolution(given, width, is_activated=False) if given != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions say to what is there."""
        return nn.functional.silu(self.conv3(self.se(self.conv2(self.conv1(x)))) + self.downsample(x))


class Grid(nn.Module):
    """[batch width rows columns] to a grid of so many tokens: each the mean of its part."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.side = math.isqrt(tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map."""
        return pooled_grid(x.permute(0, 2, 3, 1), self.side).permute(0, 3, 1, 2)


def stage(given: int, width: int, depth: int) -> nn.Sequential:
    """So many blocks, called b1, b2, ... as in timm."""
    found = nn.Sequential()
    for index in range(depth):
        found.add_module(f"b{index + 1}", Block(given if index == 0 else width, width))
    return found


class CAbstractor(nn.Module):
    """float[batch patches in_features] to float[batch tokens+eos out_features], in the names of Honeybee's `abstractor`."""

    def __init__(self, config: abstractors.CAbstractor) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        assert config.patches is not None
        given, width, wanted = config.in_features, config.hidden_size, config.out_features
        self.pos_emb = nn.Parameter(torch.empty(1, config.patches, given)) if config.positions else None
        self.eos_tokens = nn.Parameter(torch.empty(1, config.eos_tokens, wanted)) if config.eos_tokens else None
        for learned in (self.pos_emb, self.eos_tokens):
            if learned is not None:
                nn.init.trunc_normal_(learned, std=0.02)
        self.prenorm = nn.LayerNorm(given) if config.prenorm else nn.Identity()
        pool = Grid(config.tokens)
        self.net = nn.Sequential(stage(given, width, config.depth), pool, stage(width, width, config.depth)) if config.depth else pool
        inner = width if config.depth else given
        layers: list[nn.Module] = [nn.Linear(inner, wanted)]
        for _ in range(1, config.mlp_depth):
            layers += [nn.SiLU(), nn.Linear(wanted, wanted)]
        self.readout = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Make a few tokens of the patches."""
        side = side_of("projector/c_abstractor", x.shape[1])
        x = self.prenorm(x)
        if self.pos_emb is not None:
            x = x + self.pos_emb
        grid = x.view(x.shape[0], side, side, x.shape[2]).permute(0, 3, 1, 2)
        y: Tensor = self.readout(self.net(grid).permute(0, 2, 3, 1).flatten(1, 2))
        return y if self.eos_tokens is None else torch.cat([y, self.eos_tokens.expand(y.shape[0], -1, -1)], dim=1)
