"""The text towers of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from modelgraft_plugins.counted import remember
from modelgraft_plugins.huggingface import build, convert, tie

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.text import Encoder as EncoderConfig


class Encoder(nn.Module):
    """A text tower.

    ids      int64[batch text_tokens], or int64[batch texts text_tokens]
    mask     bool of the same shape, True where there is a token; None: everywhere
    returns  tokens float[... text_tokens hidden_size], and pooled float[... pooled_size] where there is one
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.has_pooled, self.leaves = config.has_pooled, tuple(config.card.more.get("leaves", ()))
        self.tower = build(config.facts(), config.card.architecture)
        if config.card.count is None:
            remember(config.facts(), sum(parameter.numel() for parameter in self.tower.parameters()))

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of the tower in the names of transformers' memory."""
        state = weights.state()
        others = tuple(key for key in state if key.startswith(self.leaves))  # of a decoder, which is another part
        return convert({key: tensor for key, tensor in state.items() if key not in others}, self.tower, prefix="tower.")

    def after_load(self) -> None:
        """Tie what the checkpoint holds once."""
        tie(self.tower)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor] | Tensor:
        """Encode the texts; those of a list within one record are encoded beside the others."""
        before = ids.shape[:-1]
        flat = None if mask is None else mask.reshape(-1, mask.shape[-1])
        found: Any = self.tower(input_ids=ids.reshape(-1, ids.shape[-1]), attention_mask=flat)
        tokens: Tensor = found.last_hidden_state
        tokens = tokens.reshape(*before, *tokens.shape[1:])
        if not self.has_pooled:
            return tokens
        return {"tokens": tokens, "pooled": found.pooler_output.reshape(*before, found.pooler_output.shape[-1])}
