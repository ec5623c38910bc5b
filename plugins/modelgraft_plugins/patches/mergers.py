"""The work of patches/merger and patches/deep-merger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgraft.plugin import Weights
    from modelgraft_plugins.patches import DeepMerger as DeepMergerConfig
    from modelgraft_plugins.patches import Merger as MergerConfig


class Merger(nn.Module):
    """Groups of patches to tokens: float[batch groups*patches in_features] to float[batch groups out_features].

    A `narrow` one joins a group number by number, all patches of each, as `unfold` puts them; the others patch by patch.
    """

    def __init__(self, config: MergerConfig) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        self.joined, narrow, out = config.joined, config.in_features, config.out_features
        wide, self.is_narrow = narrow * self.joined, config.family == "narrow"
        self.norm: nn.Module = (nn.LayerNorm if config.family == "layer" else nn.RMSNorm)(narrow, eps=config.norm_eps)
        self.join = nn.Linear(wide, narrow, bias=False) if self.is_narrow else nn.Identity()
        inner, given = (out, narrow) if self.is_narrow else (wide, wide)
        self.first, self.act, self.second = (
            nn.Linear(given, inner, bias=config.bias),
            ACT2FN[config.hidden_act],
            nn.Linear(inner, out, bias=config.bias),
        )

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors by our names: of the merger of Qwen2-VL or Qwen3-VL, or of Mistral 3's projector."""
        return {_renamed(name): tensor for name, tensor in weights.state().items()}

    def forward(self, x: Tensor) -> Tensor:
        """Norm, join and map."""
        groups = self.norm(x).unflatten(1, (-1, self.joined))  # [batch groups joined in_features]
        groups = self.join(groups.transpose(2, 3).flatten(2)) if self.is_narrow else groups.flatten(2)
        return self.second(self.act(self.first(groups)))  # type: ignore[no-any-return]


class DeepMerger(nn.Module):
    """The same for inner layers, each by its own: float[batch layers groups*patches in_features] to [batch layers groups out_features].

    Here the norm is over all that a group has side by side.
    """

    def __init__(self, config: DeepMergerConfig) -> None:
        super().__init__()
        assert config.in_features is not None
        assert config.out_features is not None
        self.joined = config.joined
        wide = config.in_features * self.joined
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(wide, eps=config.norm_eps),
                nn.Linear(wide, wide),
                ACT2FN[config.hidden_act],
                nn.Linear(wide, config.out_features),
            )
            for _ in range(config.layers or 0)
        )

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors by our names: of Qwen3-VL's `deepstack_merger_list`."""
        return {f"layers.{_of_layer(name)}": tensor for name, tensor in weights.state().items()}

    def forward(self, x: Tensor) -> Tensor:
        """Join and map, layer by layer."""
        groups = x.reshape(*x.shape[:2], -1, self.joined * x.shape[-1])  # [batch layers groups joined*in_features]
        return torch.stack([layer(groups[:, number]) for number, layer in enumerate(self.layers)], 1)


STEPS = {"norm.": "0.", "linear_fc1.": "1.", "linear_fc2.": "3."}


def _of_layer(name: str) -> str:
    number, _, rest = name.partition(".")
    theirs = next((prefix for prefix in STEPS if rest.startswith(prefix)), "")
    return f"{number}.{STEPS.get(theirs, '')}{rest.removeprefix(theirs)}"


NAMES = {
    "ln_q.": "norm.", "mlp.0.": "first.", "mlp.2.": "second.", "linear_fc1.": "first.", "linear_fc2.": "second.",
    "norm.": "norm.", "patch_merger.merging_layer.": "join.", "linear_1.": "first.", "linear_2.": "second.",
}  # fmt: skip


def _renamed(name: str) -> str:
    theirs = next((prefix for prefix in NAMES if name.startswith(prefix)), "")
    return NAMES.get(theirs, "") + name.removeprefix(theirs)
