"""Pictures on the straight way to noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelgraft.plugin import LoadContext, NodeRuntime
from modelgraft_plugins.diffusion.rectified import TIMES

if TYPE_CHECKING:
    from modelgraft_plugins.diffusion.rectified import Interpolate as InterpolateConfig


def load(config: InterpolateConfig, context: LoadContext) -> Interpolate:
    """Give what draws times and noise."""
    return Interpolate(config.drop, node=context.node.name)


class Interpolate:
    """Draws of one generator on the host: times, noise, and whose text is dropped, in this order."""

    def __init__(self, drop: float, *, node: str) -> None:
        self.drop, self.runtime = drop, NodeRuntime(node)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the seed from the run: in a training, that of the step."""
        self.runtime = runtime

    def __call__(self, pixels: Tensor, text: Tensor) -> dict[str, Tensor]:
        """float[batch channels height width], float[batch d] -> the outputs."""
        generator = torch.Generator().manual_seed(self.runtime.node_seed())
        share = torch.rand(len(pixels), generator=generator).to(pixels)
        noise = torch.randn(pixels.shape, generator=generator).to(pixels)
        is_dropped = (torch.rand(len(pixels), generator=generator) < self.drop).to(text.device)
        far = share[:, None, None, None]
        sample = (1 - far) * pixels + far * noise
        return {"sample": sample, "time": TIMES * share, "text": text.masked_fill(is_dropped[:, None], 0.0)}
