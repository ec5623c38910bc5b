"""Several tokens per row in one call of a graph, bound once for each number of tokens, and the logits behind each: how guesses are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from modelgraft_plugins.llm.grouped import GroupedDecoder
    from modelgraft_plugins.llm.memory import Memory


class Look:
    """A graph that reads so many tokens per row behind what the cache holds."""

    def __init__(self, decoder: GroupedDecoder, memory: Memory, *, batch: int, count: int, beside: Mapping[str, Tensor]) -> None:
        """beside: further inputs of so many tokens, which are copied before each call."""
        layout, device, axes = decoder.layout, decoder.device, decoder.layout.axes
        self.count, self.beside = count, {name: tensor.clone() for name, tensor in beside.items()}
        self.inputs = {
            "inputs_embeds": torch.empty(batch, count, layout.width, dtype=layout.dtype, device=device),
            "position_ids": torch.empty(batch, count, *([axes] if axes else []), dtype=torch.int64, device=device),
            "seqlens_k": torch.empty(batch, dtype=torch.int32, device=device),
            "total": torch.empty(1, dtype=torch.int32),
            "last": torch.arange(count, device=device).expand(batch, -1).contiguous(),
            **({"places": torch.full((batch, 1), count - 1, device=device)} if decoder.gives_states else {}),
        }
        self.logits = torch.empty(batch, count, layout.vocab, dtype=layout.dtype, device=device)
        flat = self.inputs["inputs_embeds"].view(batch * count, 1, layout.width)
        self.place = decoder.lookup.into(flat)
        self.onward = torch.arange(count, device=device)
        self.bound = decoder.bind(memory, {**self.inputs, **self.beside}, {"logits": self.logits})

    def run(self, tokens: Tensor, held: Sequence[int], ahead: Sequence[int], beside: Mapping[str, Tensor]) -> Tensor:
        """Read int64[batch count] behind so many tokens of each row; float[batch count vocab], the logits behind each.

        ahead  how far the tokens of each row stand before their number
        """
        inputs, device = self.inputs, self.onward.device
        before = torch.tensor(held, device=device)
        stands = (before + torch.tensor(ahead, device=device))[:, None] + self.onward
        inputs["position_ids"].copy_(stands.view(*stands.shape, *[1] * (inputs["position_ids"].ndim - 2)))
        inputs["seqlens_k"].copy_(before + (self.count - 1))
        inputs["total"].fill_(max(held) + self.count)
        for name, tensor in self.beside.items():
            tensor.copy_(beside[name])
        self.place(tokens.reshape(-1))
        self.bound.run()
        return self.logits
