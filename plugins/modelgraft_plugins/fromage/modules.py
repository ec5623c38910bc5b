"""The trained maps of FROMAGe, under the names of its published files. Source: `FromageModel.get_visual_embs` and `forward` of its code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins import fromage


def _taken(weights: Weights, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a part out of the file of a whole FROMAGe; a name that is not there is left to the strict load."""
    there = frozenset(weights.keys())
    return {name: weights.tensor(name) for name in names if name in there}


class Prefix(nn.Module):
    """pooled float[batch vision_width] to tokens float[batch tokens text_width]: the rows of one long vector, one behind the other."""

    def __init__(self, config: fromage.Prefix) -> None:
        super().__init__()
        self.tokens = config.tokens
        self.visual_embeddings = nn.Linear(config.vision_width, config.tokens * config.text_width)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the map out of the whole."""
        return _taken(weights, self.state_dict())

    def forward(self, pooled: Tensor) -> Tensor:
        """Not `tokens` maps side by side: the result of one is cut."""
        return self.visual_embeddings(pooled).unflatten(-1, (self.tokens, -1))  # type: ignore[no-any-return]


class Key(nn.Module):
    """pooled float[batch vision_width] to vector float[batch embedding_size], of the length 1."""

    def __init__(self, config: fromage.Key) -> None:
        super().__init__()
        self.visual_fc = nn.Linear(config.vision_width, config.embedding_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the map out of the whole."""
        return _taken(weights, self.state_dict())

    def forward(self, pooled: Tensor) -> Tensor:
        """Map and norm."""
        return functional.normalize(self.visual_fc(pooled), dim=-1)


class Query(nn.Module):
    """states float[batch layers 1 text_width] to vector float[batch embedding_size], of the length 1."""

    def __init__(self, config: fromage.Query) -> None:
        super().__init__()
        maps = (nn.ModuleList([nn.Linear(config.text_width, config.embedding_size)]) for _ in range(config.layers))
        self.text_hidden_fcs = nn.ModuleList(maps)  # each within a list, as the published names have it

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the maps out of the whole."""
        return _taken(weights, self.state_dict())

    def forward(self, states: Tensor) -> Tensor:
        """Map each layer, add, norm."""
        layers = [own[0](states[:, layer, 0]) for layer, own in enumerate(self.text_hidden_fcs)]  # type: ignore[index]
        whole = layers[0]
        for other in layers[1:]:
            whole = whole + other
        return functional.normalize(whole, dim=-1)
