"""The sum of the vectors that a record has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.zoo import Sum


def load(_config: Sum, _context: LoadContext) -> Callable[[list[Any]], Any]:
    """Give what adds up, for records that have the same media, their batches float[batch width] to float[batch 1 width]."""
    return lambda vectors: sum(vectors[1:], start=vectors[0])[:, None]
