"""The work of simvlm/split: where a text is cut."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelgraft.plugin import NodeRuntime
    from modelgraft_plugins.simvlm import Split as Config


def load(config: Config, _context: LoadContext) -> Splitter:
    """Make the function from texts to beginnings and what follows them."""
    return Splitter(config)


class Splitter:
    """Cuts each text at a place that the seed of the run and the text decide."""

    runtime: NodeRuntime

    def __init__(self, config: Config) -> None:
        self.config = config

    def bind(self, runtime: NodeRuntime) -> None:
        """Take what tells the seed."""
        self.runtime = runtime

    def __call__(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Raises InputError for a text that is too short to be cut."""
        config = self.config
        texts = [row[there].tolist() for row, there in zip(ids, mask, strict=True)]
        places = [self._place(text, index) for index, text in enumerate(texts)]
        rests = [text[place:] for text, place in zip(texts, places, strict=True)]
        prefix, prefix_mask = level([text[:place] for text, place in zip(texts, places, strict=True)], config.pad_token_id)
        given, _ = level([[config.bos_token_id, *rest] for rest in rests], config.pad_token_id)
        labels, labels_mask = level([[*rest, config.eos_token_id] for rest in rests], config.pad_token_id)
        found = {"prefix": prefix, "prefix_mask": prefix_mask, "given": given, "labels": labels, "labels_mask": labels_mask}
        return {name: tensor.to(ids.device) for name, tensor in found.items()}

    def _place(self, text: Sequence[int], record: int) -> int:
        """How many tokens the beginning has."""
        config = self.config
        least = config.least if config.at is None else config.at
        if len(text) <= least:
            found = f"{self.runtime.node}: the text of record {record} has {len(text)} tokens"
            raise InputError(
                f"{found}, and a beginning of {least} is to leave one or more: give longer texts, or a smaller `least` or `at`"
            )
        if config.at is not None:
            return config.at
        seed = zlib.crc32(f"{self.runtime.node_seed()} {list(text)} {config.draw}".encode())
        return int(torch.randint(least, len(text), (), generator=torch.Generator().manual_seed(seed)))


def level(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Rows of unlike lengths as int64[rows longest], and where there is a token; the longest may have none."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows], dtype=torch.int64).reshape(len(rows), longest)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(longest) < lengths[:, None]
