"""A transformer of diffusers as the part of a loop: the flow from the picture to the noise."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modelgraft_plugins.diffusion.building import Answering, Asking


class Flowing(Asking):
    """The transformer of Stable Diffusion 3, as one part."""

    def __init__(self, config: Any) -> None:
        super().__init__(config.part, Velocity("SD3Transformer2DModel", config.transformer))


class Velocity(Answering):
    """Where latents flow, as a transformer sees it. Source: arXiv 2403.03206."""

    def forward(self, sample: Tensor, time: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        """float[batch channels rows columns], float[batch], float[batch tokens d], float[batch pooled_size] -> as the sample."""
        found: Tensor = self.model(sample, states, pooled, time, return_dict=False)[0]
        return found
