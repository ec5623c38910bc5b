"""The work of pali/span_corruption. Source: `random_spans_noise_mask` and the sentinels of T5's code (arXiv 1910.10683)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext, NodeRuntime

if TYPE_CHECKING:
    from modelgraft_plugins.pali import SpanCorruption

Bits = np.ndarray[tuple[int], np.dtype[np.bool_]]


def load(config: SpanCorruption, context: LoadContext) -> Callable[..., dict[str, Tensor]]:
    """Make the function from token ids, int64[batch tokens], to what is read and what is to be answered."""
    return _Corruption(config, context.node.name)


def noise(length: int, *, density: float, mean_span: float, generator: np.random.RandomState) -> Bits:
    """Which of so many tokens are taken, bool[length]: spans that stay and spans that are taken by turns, the first of them stays."""
    taken = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(taken / mean_span), 1), taken, length - taken)
    lengths = [_cut(count, spans, generator) for count in (length - taken, taken)]
    turns = np.stack(lengths, 1).reshape(-1)  # stays, is taken, stays, is taken, ...
    return np.repeat(np.arange(2 * spans) % 2 == 1, turns)


def _cut(items: int, parts: int, generator: np.random.RandomState) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The lengths of so many parts of a row, each at least 1, every way to cut it equally likely."""
    cuts = np.sort(generator.permutation(items - 1)[: parts - 1] + 1)
    return np.diff(np.concatenate([[0], cuts, [items]])).astype(np.int64)


class _Corruption:
    def __init__(self, config: SpanCorruption, node: str) -> None:
        self.config, self.node = config, node
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the seed of a run."""
        self.runtime = runtime

    def __call__(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Corrupt each row by numbers of its own, which follow from the seed and from it."""
        there = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        rows = [self._corrupted(row[kept].tolist(), index) for index, (row, kept) in enumerate(zip(ids, there, strict=True))]
        read, read_mask = self._level([left for left, _ in rows], ids.device)
        answer, answer_mask = self._level([right for _, right in rows], ids.device)
        return {"ids": read, "mask": read_mask, "answer_ids": answer, "answer_mask": answer_mask}

    def _corrupted(self, tokens: list[int], row: int) -> tuple[list[int], list[int]]:
        """(what is read, what is to be answered) of one text, both with the end token."""
        config = self.config
        tokens = tokens[:-1] if tokens and tokens[-1] == config.end_id else tokens
        if len(tokens) < 2:
            raise InputError(f"{self.node}: record {row} has {len(tokens)} tokens; wanted at least 2, one to take and one to keep")
        seed = self.runtime.seed if self.runtime is not None else 0
        generator = np.random.RandomState(zlib.crc32(np.array(tokens, np.int64).tobytes(), seed & 0xFFFFFFFF))
        taken = noise(len(tokens), density=config.density, mean_span=config.mean_span, generator=generator)
        read, answer, spans = [], [], 0
        for at, token in enumerate(tokens):
            if taken[at] and not taken[at - 1]:  # a span begins; the first token is never taken
                sentinel, spans = config.first_sentinel - spans, spans + 1
                read.append(sentinel)
                answer.append(sentinel)
            (answer if taken[at] else read).append(token)
        if spans > config.sentinels:
            raise InputError(f"{self.node}: record {row} has {spans} spans, and there are {config.sentinels} sentinels: give shorter texts")
        return [*read, config.end_id], [*answer, config.end_id]

    def _level(self, rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
        longest = max(map(len, rows))
        ids = [[*row, *[self.config.pad_id] * (longest - len(row))] for row in rows]
        mask = [[True] * len(row) + [False] * (longest - len(row)) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
