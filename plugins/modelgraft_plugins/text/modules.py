"""The text towers of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from modelgraft_plugins.huggingface import blueprint, build, convert
from modelgraft_plugins.text.towers import FAMILIES

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.text import Encoder as EncoderConfig


class Encoder(nn.Module):
    """A text tower.

    ids      int64[batch text_tokens], or int64[batch texts text_tokens]
    mask     bool of the same shape, True where there is a token; None: everywhere
    returns  tokens float[... text_tokens hidden_size] and pooled float[... pooled_size]
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.tower = build(tower_config(config), FAMILIES[config.family].architecture)

    @staticmethod
    def from_checkpoint(config: EncoderConfig, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of the tower in the names of transformers' memory."""
        return convert(weights.state(), blueprint(tower_config(config), FAMILIES[config.family].architecture), prefix="tower.")

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Encode the texts; those of a list within one record are encoded beside the others."""
        before = ids.shape[:-1]
        flat = None if mask is None else mask.reshape(-1, mask.shape[-1])
        found = self.tower(input_ids=ids.reshape(-1, ids.shape[-1]), attention_mask=flat)
        tokens, pooled = found.last_hidden_state, found.pooler_output
        return {"tokens": tokens.reshape(*before, *tokens.shape[1:]), "pooled": pooled.reshape(*before, pooled.shape[-1])}


def tower_config(config: EncoderConfig) -> dict[str, Any]:
    """Write the config as transformers' class wants it."""
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings",
        "hidden_act", "layer_norm_eps", "pad_token_id",
    )  # fmt: skip
    values = {name: getattr(config, name) for name in names}
    match config.family:
        case "clip":
            values |= {"eos_token_id": config.eos_token_id, "bos_token_id": None}
        case "siglip":
            values |= {"projection_size": config.pooled_size, "eos_token_id": None, "bos_token_id": None}
        case "bert":
            values["type_vocab_size"] = config.type_vocab_size
    return values
