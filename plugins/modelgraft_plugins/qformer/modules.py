"""The Q-Former of transformers with the queries as an input, and the queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import InputError, families
from modelgraft_plugins.huggingface import build, convert
from modelgraft_plugins.qformer import first_stage

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.qformer import QFormer as QFormerConfig
    from modelgraft_plugins.qformer import Queries as QueriesConfig

EPSILON = 1e-5  # of the norm behind the eye, which is torch's own


class Queries(nn.Module):
    """Learned vectors: float[1 queries hidden_size], repeated for every record."""

    def __init__(self, config: QueriesConfig) -> None:
        super().__init__()
        assert config.hidden_size is not None
        self.weight = nn.Parameter(0.02 * torch.randn(1, config.num_query_tokens, config.hidden_size))

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """The part is the tensor itself; a whole of the first stage has it under its name."""
        if (queries := first_stage.queries(weights)) is not None:
            return {"weight": queries}
        return {"weight" if name == "" else name: tensor for name, tensor in weights.state().items()}

    def forward(self, memory: Tensor) -> Tensor:
        """Repeat the queries for each record of `memory`."""
        return self.weight.expand(memory.shape[0], -1, -1)


class QFormer(nn.Module):
    """Queries attend to each other, to an instruction if there is one, and to the memory.

    queries  float[batch queries hidden_size]
    memory   float[batch memory_tokens encoder_hidden_size]; it is normed here if the norm is its own
    ids      int64[batch text_tokens];  mask  bool[batch text_tokens], True where there is a token; None: everywhere
    returns  float[batch queries hidden_size]
    """

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.reads_text, self.most = config.reads_text, config.max_position_embeddings
        self.model = build(_settings(config), _architecture(config))
        self.norm = nn.LayerNorm(config.encoder_hidden_size or 0, eps=EPSILON) if config.norms_memory else None

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors in the names of transformers' memory."""
        if (reader := first_stage.reader(weights)) is not None:
            return reader
        return convert(weights.state(), self.model, prefix="model.")

    def forward(self, queries: Tensor, memory: Tensor, ids: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Read the memory; the rows of the instruction are left out of the result. Raises InputError for one that is too long."""
        count = queries.shape[1]
        memory = memory if self.norm is None else self.norm(memory)
        if not self.reads_text:
            return self.model(query_embeds=queries, encoder_hidden_states=memory).last_hidden_state  # type: ignore[no-any-return]
        if not torch.compiler.is_exporting() and ids is not None and ids.shape[1] > self.most:
            found = f"an instruction has {ids.shape[1]} tokens, and the Q-Former has positions for {self.most}"
            raise InputError(f"{found}: shorten it, or set max_length and truncate where it is cut into tokens")
        if mask is not None:
            ones = mask.new_ones(mask.shape[0], count)
            mask = torch.cat([ones, mask], dim=1)
        found = self.model(input_ids=ids, attention_mask=mask, query_embeds=queries, encoder_hidden_states=memory)
        return found.last_hidden_state[:, :count]  # type: ignore[no-any-return]


def _architecture(config: QFormerConfig) -> str:
    """The class in transformers: of the style that reads a text, or of the other."""
    cards = families().of_medium("queries").values()
    return next(card.architecture for card in cards if (card.style == "reads") == config.reads_text)


def _settings(config: QFormerConfig) -> dict[str, Any]:
    names = (
        "hidden_size", "encoder_hidden_size", "num_hidden_layers", "num_attention_heads", "cross_attention_frequency", "hidden_act",
        "layer_norm_eps", "vocab_size", "max_position_embeddings", "pad_token_id",
    )  # fmt: skip
    return {**{name: getattr(config, name) for name in names}, "intermediate_size": config.inner_size}
