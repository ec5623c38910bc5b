"""The tensor parts of the captioner: reading a picture, and the next place of a text behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from modelgraft.plugin import Driven
from modelgraft_plugins.beit3.modules import checked_picture, checked_text, trunk_state
from modelgraft_plugins.beit3.multiway import Trunk
from modelgraft_plugins.beit3.sizes import PREFIX

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.beit3.captioner import Captioner as CaptionerConfig


class Captioner(Driven):
    """The trunk and its head, in the names of the published weights; the parts call them."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.beit3 = Trunk(config, ("A", "B"))
        self.mlm_head = nn.Linear(config.hidden_size, config.vocab_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """All of a file: what is no trunk is the head."""
        heads = {key: weights.tensor(key) for key in weights.keys() if not key.startswith(PREFIX)}  # noqa: SIM118 not a mapping
        return {**trunk_state(weights, self.beit3, prefix=PREFIX), **heads}

    def parts(self, names: Sequence[str]) -> Mapping[str, Any]:
        """Both share the trunk."""
        parts = {"see": See(self.beit3), "tell": Tell(self.beit3, self.mlm_head)}
        return {name: parts[name] for name in names}


class See(nn.Module):
    """pixels float[batch 3 height width] to keys and values, float[batch layers places width] each."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """What a text behind the picture looks at."""
        keys, values = self.trunk.remember(checked_picture(self.trunk, pixels))
        return {"keys": keys, "values": values}


class Tell(nn.Module):
    """ids int64[batch text_tokens], and what was seen, to logits float[batch vocabulary] of the last place."""

    def __init__(self, trunk: Trunk, head: nn.Linear) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, ids: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Each token sees the picture, itself and what stands before it."""
        return self.head(self.trunk.write(checked_text(self.trunk, ids), keys, values)[:, -1])  # type: ignore[no-any-return]
