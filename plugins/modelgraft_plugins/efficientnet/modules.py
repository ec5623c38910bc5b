"""EfficientNet-lite in torch, whole in this file, with the tensor names of the published checkpoints.

Source: Tan and Le 2019, arXiv 1905.11946: a stem, a chain of inverted bottlenecks, a head. The lite variants use ReLU6
and no squeeze-and-excitation, so that they can run in 8-bit integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from modelgraft_plugins.efficientnet.architecture import HEAD_WIDTH, STEM_WIDTH, Block, blocks

if TYPE_CHECKING:
    from modelgraft_plugins.efficientnet import EfficientNet as EfficientNetConfig

NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.01  # as the authors train; torch's momentum is 1 - theirs


class EfficientNet(nn.Module):
    """The classifier, and the eye that it is.

    pixels   float[batch 3 side side], (x - 127) / 128 of 0..255
    returns  logits float[batch num_labels]
             tokens float[batch cells 1280], the cells of the last feature map row by row
             pooled float[batch 1280], their mean
    """

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__()
        chain = blocks(config.variant)
        self._conv_stem = convolution(3, STEM_WIDTH, kernel=3, stride=2)
        self._bn0 = norm(STEM_WIDTH)
        self._blocks = nn.ModuleList(map(Bottleneck, chain))
        self._conv_head = convolution(chain[-1].out_width, HEAD_WIDTH, kernel=1)
        self._bn1 = norm(HEAD_WIDTH)
        self._fc = nn.Linear(HEAD_WIDTH, config.num_labels)
        self.side = config.side

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Look at the pictures."""
        x = functional.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))  # [batch 1280 rows columns]
        pooled = x.mean((2, 3))
        return {"logits": self._fc(pooled), "tokens": x.flatten(2).mT, "pooled": pooled}

    def as_graph(self, graph: Any, pixels: Any) -> dict[str, Any]:
        """See AsGraph: the same steps."""
        side = self.side
        x, side = normed(graph, pixels, "_conv_stem", "_bn0", self._conv_stem, side)
        for index, block in enumerate(self._blocks):
            assert isinstance(block, Bottleneck)
            x, side = block.as_graph(graph.within(f"_blocks.{index}"), x, side)
        x, _ = normed(graph, x, "_conv_head", "_bn1", self._conv_head, side)
        pooled = graph.node("ReduceMean", [x, graph.numbers(2, 3)], keepdims=0)
        rows = graph.node("Reshape", [x, graph.numbers(0, 0, -1)])
        tokens = graph.node("Transpose", [rows], perm=[0, 2, 1])
        return {"logits": graph.linear(pooled, "_fc"), "tokens": tokens, "pooled": pooled}


class Bottleneck(nn.Module):
    """Expand the channels, filter each by itself, project to few channels; add the input where the shapes allow it."""

    def __init__(self, shape: Block) -> None:
        super().__init__()
        wide = shape.in_width * shape.expansion
        self.expands = shape.expansion > 1
        self.adds = shape.stride == 1 and shape.in_width == shape.out_width
        if self.expands:
            self._expand_conv = convolution(shape.in_width, wide, kernel=1)
            self._bn0 = norm(wide)
        self._depthwise_conv = convolution(wide, wide, kernel=shape.kernel, stride=shape.stride, groups=wide)
        self._bn1 = norm(wide)
        self._project_conv = convolution(wide, shape.out_width, kernel=1)
        self._bn2 = norm(shape.out_width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the block to float[batch in_width rows columns]."""
        x = inputs
        if self.expands:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        projected: Tensor = self._bn2(self._project_conv(x))
        return projected + inputs if self.adds else projected

    def as_graph(self, graph: Any, inputs: Any, side: int) -> tuple[Any, int]:
        """The same in a graph, of maps of so many rows and columns; and how many it gives."""
        x = inputs
        if self.expands:
            x, side = normed(graph, x, "_expand_conv", "_bn0", self._expand_conv, side)
        x, side = normed(graph, x, "_depthwise_conv", "_bn1", self._depthwise_conv, side)
        x, side = normed(graph, x, "_project_conv", "_bn2", self._project_conv, side, ends=True)
        return graph.node("Add", [x, inputs]) if self.adds else x, side


class SamePadding(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) rows and columns: what it lacks is padded, the odd row at the end."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 the class says it
        top, bottom = missing(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = missing(x.shape[3], self.kernel_size[1], self.stride[1])
        return super().forward(functional.pad(x, (left, right, top, bottom)))


def normed(graph: Any, x: Any, name: str, norm: str, conv: nn.Conv2d, side: int, *, ends: bool = False) -> tuple[Any, int]:
    """A convolution and its norm in a graph, and ReLU6 unless it ends a block; and the side of the maps that it gives."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    before, behind = missing(side, kernel, stride)
    x = graph.convolution(x, name, stride=stride, groups=conv.groups, pads=(before, before, behind, behind))
    x = graph.batch_norm(x, norm, epsilon=NORM_EPSILON)
    return x if ends else graph.clipped(x, 0.0, 6.0), -(-side // stride)


def missing(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """How much is padded before and after an axis."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def convolution(in_width: int, out_width: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without a bias: the norm behind it has one."""
    kind = nn.Conv2d if kernel == 1 else SamePadding
    return kind(in_width, out_width, kernel, stride=stride, groups=groups, bias=False)


def norm(width: int) -> nn.BatchNorm2d:
    """A batch norm with the numbers of the authors."""
    return nn.BatchNorm2d(width, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
