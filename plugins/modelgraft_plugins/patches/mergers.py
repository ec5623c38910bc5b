"""The work of patches/merger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from transformers.activations import ACT2FN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgraft.plugin import Weights
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
        """Give the tensors by our names: of Qwen2-VL's merger, or of Mistral 3's projector."""
        return {_renamed(name): tensor for name, tensor in weights.state().items()}

    def forward(self, x: Tensor) -> Tensor:
        """Norm, join and map."""
        groups = self.norm(x).unflatten(1, (-1, self.joined))  # [batch groups joined in_features]
        groups = self.join(groups.transpose(2, 3).flatten(2)) if self.is_narrow else groups.flatten(2)
        return self.second(self.act(self.first(groups)))  # type: ignore[no-any-return]


NAMES = {
    "ln_q.": "norm.", "mlp.0.": "first.", "mlp.2.": "second.",
    "norm.": "norm.", "patch_merger.merging_layer.": "join.", "linear_1.": "first.", "linear_2.": "second.",
}  # fmt: skip


def _renamed(name: str) -> str:
    theirs = next((prefix for prefix in NAMES if name.startswith(prefix)), "")
    return NAMES.get(theirs, "") + name.removeprefix(theirs)
