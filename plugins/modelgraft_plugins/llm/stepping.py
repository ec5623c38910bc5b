"""One token per row, bound once: what a decoder does for every token that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.plugin import Bound, Graph, Table, as_array, as_tensor
from modelgraft_plugins.llm.holding import Held, Holding, ids_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from modelgraft_plugins.llm.sizes import Caches

Given = Any  # one token per row: numbers, an array, or on a device a tensor there, int64[batch]


class Lookup:
    """Writes the embeddings of tokens where a step reads them.

    Rows of a `Table` are copied: on the host by numpy, half a microsecond each; on a device from a copy of the table there, so
    that tokens need not come to the host. Everything else is computed by who gave it, as torch does it, on the host.
    """

    def __init__(self, embed: Callable[[Any], Any], dtype: str, holding: Holding, *, on_host: bool) -> None:
        self.embed, self.on_host = embed, on_host
        self.table = embed if isinstance(embed, Table) else None
        self.there = self.table.tensor().to(holding.empty((0,), dtype)) if self.table is not None and not on_host else None

    def into(self, target: Held) -> Callable[[Given], object]:
        """What writes the embeddings of one token per row into float[batch 1 width]."""
        rows, table = target[:, 0], self.table
        if table is None:
            return partial(_computed, self.embed, rows, as_array if self.on_host else as_tensor)
        if self.there is not None:
            return partial(_copy_there, self.there, rows)
        if table.is_bits and rows.dtype == numpy.float32:
            return partial(_copy_bits, table.numbers, rows.view(numpy.uint32))
        return partial(_copy_rows, table.numbers, rows) if not table.is_bits else partial(_copy_widened, table, rows)


def _computed(embed: Callable[[Any], Any], target: Held, taken: Callable[[Any], Any], tokens: Given) -> None:
    import torch

    target[...] = taken(embed(torch.tensor(ids_of(tokens))))


def _copy_there(table: Tensor, target: Tensor, tokens: Given) -> None:
    import torch

    torch.index_select(table, 0, tokens if isinstance(tokens, torch.Tensor) else torch.tensor(ids_of(tokens)), out=target)


def _copy_rows(table: NDArray[Any], target: NDArray[Any], tokens: Given) -> None:
    for row, token in enumerate(tokens):
        target[row] = table[token]


def _copy_bits(table: NDArray[Any], target: NDArray[Any], tokens: Given) -> None:
    """bfloat16 as uint16 to float32 as uint32: the one is the upper half of the other."""
    for row, token in enumerate(tokens):
        target[row] = table[token]
    target <<= 16


def _copy_widened(table: Table, target: NDArray[Any], tokens: Given) -> None:
    target[...] = table.rows(tokens)


def inputs_for(holding: Holding, layout: Caches, batch: int, *, gives_states: bool) -> dict[str, Held]:
    """Memory for what a graph takes that reads one token per row: see grouped.py, but for what differs between graphs."""
    return {
        "inputs_embeds": holding.empty((batch, 1, layout.width), layout.dtype),
        "position_ids": holding.empty((batch, 1, *([layout.axes] if layout.axes else [])), "int64"),
        "seqlens_k": holding.empty((batch,), "int32"),
        "total": numpy.empty(1, dtype=numpy.int32),
        **({"places": holding.zeros((batch, 1), "int64")} if gives_states else {}),
    }


class DecodeStep:
    """A graph that reads one token per row: each call moves its counters on, looks the tokens up, and runs.

    Nothing is bound again and nothing is allocated. On CUDA the run is recorded and replayed where the graph can.
    """

    def __init__(
        self,
        graph: Graph,
        bound: Bound,
        inputs: Mapping[str, Held],
        logits: Held,
        *,
        capacity: int,
        lookup: Lookup,
        holding: Holding,
        captures: bool,
    ) -> None:
        """What is bound already.

        inputs    by name, `total` an array;  logits  what the run writes;  capacity  of the cache
        captures  the run may be recorded, where the graph can do that
        """
        self.bound, self.inputs, self.logits, self.capacity, self.holding = bound, inputs, logits, capacity, holding
        self.on_host = not graph.is_ordered
        self.positions, self.before, self.total = inputs["position_ids"], inputs["seqlens_k"], inputs["total"]
        self.longest, self.is_level = 0, False  # tokens that the longest row holds, and whether all hold as many
        self.is_counted = True  # a token stands at its number
        self.place = lookup.into(inputs["inputs_embeds"])
        self.plain = bound.run
        self.captured = graph.replay(bound, self) if captures else None

    def start(self, lengths: Sequence[int], ahead: Sequence[int]) -> None:
        """Say how many tokens each row holds before the next call, and how far they stand before their number."""
        held = numpy.array(lengths, dtype=numpy.int64) - 1  # every call counts before it runs
        stands = (held + numpy.array(ahead, dtype=numpy.int64)).reshape(-1, *[1] * (self.positions.ndim - 1))
        self.positions[...] = self.holding.put(stands)
        self.is_counted = not any(ahead)
        self.before[...] = self.holding.put(held)
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
