"""The output projection of NExT-GPT, in the names of its published file.

Source: arXiv 2309.05519, section 3, and `TextFcLayer` of the code of 2023, with which tests/oracles compares it. Its layers are torch's
own: norms before attention and behind both stacks, ReLU, no places, and queries that see each other in both directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgraft.plugin import Weights
    from modelgraft_plugins.nextgpt import Output as OutputConfig

FIRST = "0."  # the published module is a list with one projection in it


class Output(nn.Module):
    """states float[batch 2 signals hidden_size] to prompt_embeds float[batch queries width]."""

    def __init__(self, config: OutputConfig) -> None:
        super().__init__()
        assert config.hidden_size is not None
        inner = config.inner_size
        self.gives_vector = config.queries == 1
        self.fc = nn.Linear(config.hidden_size, inner)
        self.tfm = _stacks(config)
        self.model = nn.Linear(inner, config.width)
        self.query_embs = nn.Parameter(torch.empty(1, config.queries, inner))
        nn.init.normal_(self.query_embs)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the one projection of the list."""
        return {key.removeprefix(FIRST): tensor for key, tensor in weights.state().items()}

    def forward(self, states: Tensor) -> Tensor | dict[str, Tensor]:
        """Add what a token is and what has become of it, and let the queries look at all tokens of the wish."""
        tokens = self.fc(states.sum(1))  # [batch signals inner]
        queries = self.query_embs.expand(tokens.shape[0], -1, -1)
        embeds: Tensor = self.model(self.tfm(tokens, queries))
        return {"prompt_embeds": embeds, "vector": embeds[:, 0]} if self.gives_vector else embeds


def _stacks(config: OutputConfig) -> nn.Transformer:
    """Torch's transformer, with an encoder that knows no way around padding: torch warns that it goes with no norms that come first."""
    width, heads, feed = config.inner_size, config.heads, config.feed_forward
    layer = nn.TransformerEncoderLayer(width, heads, feed, dropout=0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, config.encoder_layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
    return nn.Transformer(
        width,
        heads,
        num_decoder_layers=config.decoder_layers,
        dim_feedforward=feed,
        dropout=0.0,
        custom_encoder=encoder,
        batch_first=True,
        norm_first=True,
    )
