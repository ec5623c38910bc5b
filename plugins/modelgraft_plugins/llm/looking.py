"""Several tokens per row in one call of a graph, bound once for each number of tokens, and the logits behind each: how guesses are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from modelgraft_plugins.llm.grouped import GroupedDecoder
    from modelgraft_plugins.llm.holding import Held
    from modelgraft_plugins.llm.memory import Memory


class Look:
    """A graph that reads so many tokens per row behind what the cache holds."""

    def __init__(self, decoder: GroupedDecoder, memory: Memory, *, batch: int, count: int, beside: Mapping[str, Held]) -> None:
        """beside: further inputs of so many tokens, which are copied before each call."""
        layout, axes, self.holding = decoder.layout, decoder.layout.axes, decoder.holding
        empty, put, onward = self.holding.empty, self.holding.put, numpy.arange(count, dtype=numpy.int64)
        self.count, self.beside = count, {name: self.holding.rows(held, range(len(held))) for name, held in beside.items()}
        self.inputs: dict[str, Held] = {
            "inputs_embeds": empty((batch, count, layout.width), layout.dtype),
            "position_ids": empty((batch, count, *([axes] if axes else [])), "int64"),
            "seqlens_k": empty((batch,), "int32"),
            "total": numpy.empty(1, dtype=numpy.int32),
            "last": put(numpy.broadcast_to(onward, (batch, count))),
            **({"places": put(numpy.full((batch, 1), count - 1, dtype=numpy.int64))} if decoder.gives_states else {}),
        }
        self.logits = empty((batch, count, layout.vocab), layout.dtype)
        flat = self.inputs["inputs_embeds"].reshape(batch * count, 1, layout.width)
        self.place = decoder.lookup.into(flat)
        self.onward = onward
        self.bound = decoder.bind(memory, {**self.inputs, **self.beside}, {"logits": self.logits})

    def run(self, tokens: Any, held: Sequence[int], ahead: Sequence[int], beside: Mapping[str, Held]) -> Held:
        """Read tokens behind so many of each row; float[batch count vocab], the logits behind each.

        tokens  batch * count of them, row by row;  ahead  how far the tokens of each row stand before their number
        """
        inputs, put = self.inputs, self.holding.put
        before = numpy.array(held, dtype=numpy.int64)
        stands = (before + numpy.array(ahead, dtype=numpy.int64))[:, None] + self.onward
        inputs["position_ids"][...] = put(stands.reshape(*stands.shape, *[1] * (inputs["position_ids"].ndim - 2)))
        inputs["seqlens_k"][...] = put(before + (self.count - 1))
        inputs["total"].fill(max(held) + self.count)
        for name, own in self.beside.items():
            own[...] = beside[name]
        self.place(tokens)
        self.bound.run()
        return self.logits
