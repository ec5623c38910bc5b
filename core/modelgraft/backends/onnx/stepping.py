"""One token per row, bound once: what a decoder does for every token that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.backends.onnx.capturing import Captured, can_capture
from modelgraft.backends.onnx.streams import Order

BY_NUMPY = (torch.float32, torch.float16, torch.float64)  # what numpy can copy; it has no bfloat16


@dataclass(frozen=True, slots=True)
class Rows:
    """Input embeddings that are the rows of a table, float[vocabulary width], and nothing more: no scale, no projection."""

    table: Tensor

    def __call__(self, ids: Tensor) -> Tensor:
        """int64[n] -> float32[n width]."""
        return functional.embedding(ids, self.table).to(torch.float32)


class Lookup:
    """Writes the embeddings of tokens where a step reads them.

    Rows of a table (`Rows`, `nn.Embedding`) are copied: on the host through numpy, which takes half a microsecond where torch
    takes ten; on a device from a copy of the table there, so that tokens need not come to the host. Everything else is
    computed on the host.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], dtype: torch.dtype, device: torch.device, *, by_numpy: bool) -> None:
        self.embed, self.by_numpy = embed, by_numpy
        self.table = _table_of(embed)
        if self.table is not None and not by_numpy:
            self.table = self.table.to(device, dtype)

    def into(self, target: Tensor) -> Callable[[Tensor], object]:
        """What writes the embeddings of int64[batch] into float[batch 1 width]."""
        rows, table = target[:, 0], self.table
        if table is None:
            return lambda tokens: rows.copy_(self.embed(tokens.cpu()))
        if not self.by_numpy:
            return lambda tokens: torch.index_select(table, 0, tokens, out=rows)
        if table.dtype not in BY_NUMPY:
            return lambda tokens: rows.copy_(table.index_select(0, tokens))
        return partial(_copy_rows, table.numpy(), rows.numpy())


def _copy_rows(table: Any, target: Any, tokens: Tensor) -> None:
    """Through numpy arrays, which share the memory of tensors (`Any`: numpy is not imported here)."""
    for row, token in enumerate(tokens.tolist()):
        target[row] = table[token]


def _table_of(embed: Callable[[Tensor], Tensor]) -> Tensor | None:
    if isinstance(embed, Rows):
        return embed.table
    if type(embed) is nn.Embedding and embed.max_norm is None:  # a class made from it may scale what it looks up
        return embed.weight.detach()
    return None


class Step:
    """A session that reads one token per row: each call moves its counters on, looks the tokens up, and runs.

    Nothing is bound again and nothing is allocated. On the host the counters move through numpy, for the same reason as in
    `Lookup`. On CUDA the first call captures the run where the session can, see `capturing`.
    """

    def __init__(
        self,
        session: Any,
        binding: Any,
        inputs: Mapping[str, Tensor],
        logits: Tensor,
        *,
        lookup: Lookup,
        order: Order | None,
        graph: int,
    ) -> None:
        """What is bound already.

        inputs  by name;  logits  what the run writes;  graph  the id under which it may be captured
        """
        self.binding, self.inputs, self.logits = binding, inputs, logits
        self.positions: Any = inputs["position_ids"]  # a tensor, or an array of numpy on the same memory
        self.before: Any = inputs["seqlens_k"]
        if order is None:
            self.positions, self.before = self.positions.numpy(), self.before.numpy()
        self.place = lookup.into(inputs["inputs_embeds"])
        options = order.options if order is not None else None
        self.plain = partial(session.run_with_iobinding, binding, options)
        self.captured = Captured(session, binding, self, graph=graph) if order is not None and can_capture(session) else None

    def start(self, lengths: Sequence[int]) -> None:
        """Say how many tokens each row holds before the next call."""
        held = torch.tensor(lengths)
        self.inputs["position_ids"].copy_(held[:, None] - 1)
        self.inputs["seqlens_k"].copy_(held - 1)

    def run(self, tokens: Tensor) -> None:
        """Read tokens, int64[batch], and write the logits after them."""
        self.move(1)
        self.place(tokens)
        if self.captured is None:
            self.plain()
        else:
            self.captured.run()

    def move(self, by: int) -> None:
        """Move the counters of every row."""
        self.positions += by
        self.before += by

    @property
    def has_room(self) -> bool:
        """Whether every row could hold one more token than after this call."""
        return int(self.before.max()) + 2 <= int(self.inputs["total"])

    def release(self) -> None:
        """Let go of what was captured, before the memory that it is bound to goes."""
        if self.captured is not None:
            self.captured.release()
