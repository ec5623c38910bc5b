"""Objects at their places: the embeddings of those that stand together are added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError
from modelgraft_plugins.nextgpt import MEDIA

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.nextgpt import Objects as ObjectsConfig


def load(config: ObjectsConfig, context: LoadContext) -> Callable[..., list[Tensor]]:
    """Make the function from the embeddings of each medium to those of the places, float[places 1 width] for each record."""
    node, width = context.node.name, config.hidden_size or 1

    def run(places: list[list[list[list[Any]]]], *given: Sequence[Sequence[Any]] | None) -> list[Tensor]:
        found = dict(zip(MEDIA, given, strict=True))
        rows = []
        for row, there in enumerate(places):
            sums = [torch.stack([_of(found[medium], row, number, medium) for medium, number in place]).sum(0) for place in there]
            rows.append(torch.stack(sums)[:, None] if sums else torch.zeros(0, 1, width))
        return rows

    def _of(embedded: Sequence[Sequence[Any]] | None, row: int, number: int, medium: str) -> Tensor:
        vector = embedded[row][number] if embedded is not None and number < len(embedded[row]) else None
        if not isinstance(vector, Tensor):
            raise InputError(f"{node}: there is no embedding of {medium} {number + 1} of record {row}, which stands in the prompt")
        return vector

    return run
