"""HiFi-GAN for mel bands: SpeechT5HifiGan of transformers, filled from its own files or from those of the published code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft_plugins.huggingface import build, convert

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.vocoder import HifiGan as HifiGanConfig

# how the direction and the length of a weight are called where they are kept apart: in torch before 2.1, and since
LENGTHS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


class HifiGan(nn.Module):
    """A vocoder.

    mel      float[batch frames mels]
    returns  float[batch samples], from -1 to 1
    """

    def __init__(self, config: HifiGanConfig) -> None:
        super().__init__()
        from modelgraft_plugins.vocoder import WORDS

        facts = {theirs: getattr(config, ours) for ours, theirs in WORDS.items()}
        self.model: Any = build(facts, "SpeechT5HifiGan")  # Any: transformers is only partly annotated
        self.optional_keys = ("model.mean", "model.scale")  # the published code has none: at 0 and 1 they do nothing

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors with their weights in one piece, under the names of transformers."""
        named = {re.sub(r"^ups\.", "upsampler.", key): tensor for key, tensor in whole(weights.state()).items()}
        return convert(named, self.model, prefix="model.")

    def forward(self, mel: Tensor) -> Tensor:
        """Make samples of bands."""
        samples: Tensor = self.model(mel)
        return samples


def whole(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with each weight that is kept as a length and a direction in one piece: length · direction / |direction|.

    The norm is taken over all axes but the first. Source: torch.nn.utils.weight_norm, arXiv 1602.07868.
    """
    found = dict(state)
    for length, direction in LENGTHS:
        for key in [key for key in state if key.endswith(f".{length}")]:
            home = key.removesuffix(length)
            g, v = found.pop(key), found.pop(home + direction)
            norm = torch.linalg.vector_norm(v.flatten(1), dim=1).reshape(-1, *[1] * (v.dim() - 1))
            found[f"{home}weight"] = v * (g / norm)
    return found
