"""One token per row, bound once: what a decoder does for every token that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import Bound, Graph

Given = Tensor | Sequence[int]  # one token per row: int64[batch], or numbers
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

    def into(self, target: Tensor) -> Callable[[Given], object]:
        """What writes the embeddings of one token per row into float[batch 1 width]."""
        rows, table = target[:, 0], self.table
        if table is None:
            return lambda tokens: rows.copy_(self.embed(_tensor(tokens).cpu()))
        if not self.by_numpy:
            return lambda tokens: torch.index_select(table, 0, _tensor(tokens), out=rows)
        if table.dtype is torch.bfloat16 and rows.dtype is torch.float32:
            return partial(_copy_bits, table.view(torch.int16).numpy(), rows.view(torch.int32).numpy())
        if table.dtype not in BY_NUMPY:
            return lambda tokens: rows.copy_(table.index_select(0, _tensor(tokens)))
        return partial(_copy_rows, table.numpy(), rows.numpy())


def _tensor(tokens: Given) -> Tensor:
    return tokens if isinstance(tokens, Tensor) else torch.tensor(tokens)


def _ids(tokens: Given) -> Sequence[int]:
    found: Sequence[int] = tokens.tolist() if isinstance(tokens, Tensor) else tokens
    return found


def _copy_rows(table: Any, target: Any, tokens: Given) -> None:
    """Through numpy arrays, which share the memory of tensors (`Any`: numpy is not imported here)."""
    for row, token in enumerate(_ids(tokens)):
        target[row] = table[token]


def _copy_bits(table: Any, target: Any, tokens: Given) -> None:
    """bfloat16 as int16 to float32 as int32: the one is the upper half of the other."""
    for row, token in enumerate(_ids(tokens)):
        target[row] = table[token]
    target <<= 16


def _table_of(embed: Callable[[Tensor], Tensor]) -> Tensor | None:
    if isinstance(embed, Rows):
        return embed.table
    if type(embed) is nn.Embedding and embed.max_norm is None:  # a class made from it may scale what it looks up
        return embed.weight.detach()
    return None


class DecodeStep:
    """A graph that reads one token per row: each call moves its counters on, looks the tokens up, and runs.

    Nothing is bound again and nothing is allocated. On the host the counters are written through numpy, for the same reason
    as in `Lookup`. On CUDA the run is recorded and replayed where the graph can.
    """

    def __init__(
        self,
        graph: Graph,
        bound: Bound,
        inputs: Mapping[str, Tensor],
        logits: Tensor,
        *,
        capacity: int,
        lookup: Lookup,
        captures: bool,
    ) -> None:
        """What is bound already.

        inputs    by name;  logits  what the run writes;  capacity  of the cache
        captures  the run may be recorded, where the graph can do that
        """
        self.bound, self.inputs, self.logits, self.capacity = bound, inputs, logits, capacity
        self.on_host = not graph.is_ordered
        self.positions: Any = inputs["position_ids"]  # a tensor, or an array of numpy on the same memory
        self.before: Any = inputs["seqlens_k"]
        self.total: Any = inputs["total"].numpy()
        if self.on_host:
            self.positions, self.before = self.positions.numpy(), self.before.numpy()
        self.longest, self.is_level = 0, False  # tokens that the longest row holds, and whether all hold as many
        self.is_counted = True  # a token stands at its number
        self.place = lookup.into(inputs["inputs_embeds"])
        self.plain = bound.run
        self.captured = graph.replay(bound, self) if captures else None

    def start(self, lengths: Sequence[int], ahead: Sequence[int]) -> None:
        """Say how many tokens each row holds before the next call, and how far they stand before their number."""
        held = torch.tensor(lengths) - 1  # every call counts before it runs
        stands = (held + torch.tensor(ahead)).view(-1, *[1] * (self.inputs["position_ids"].ndim - 1))
        self.inputs["position_ids"].copy_(stands)
        self.is_counted = not any(ahead)
        self.inputs["seqlens_k"].copy_(held)
        self.longest, self.is_level = max(lengths) - 1, len(set(lengths)) == 1
        self.total.fill(self.capacity)

    def run(self, tokens: Given) -> None:
        """Read tokens and write the logits after them."""
        self.move(1)
        self.place(tokens)
        if self.captured is None:
            self.plain()
        else:
            self.captured.run()

    def move(self, by: int) -> None:
        """Move the counters of every row."""
        self.longest += by
        if self.on_host and self.is_level and self.is_counted:
            self.positions.fill(self.longest)  # a tenth of what adding takes
            self.before.fill(self.longest)
        else:
            self.positions += by
            self.before += by
        if self.captured is None:
            self.total.fill(self.longest + 1)  # a captured run keeps the capacity

    @property
    def has_room(self) -> bool:
        """Whether the longest row could hold one more token than after this call."""
        return self.longest + 2 <= self.capacity

    def release(self) -> bool | None:
        """Let go of what was recorded, before the memory that it is bound to goes; says whether it was proven, None: not tried."""
        if self.captured is None:
            return None
        self.captured.release()
        return self.captured.is_proven
