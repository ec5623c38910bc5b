"""Tokens that are the rows of a square grid of patches: whether there is such a grid. Light."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode


def torn_grids(node: SolvedNode, port: str = "x", *, factor: int = 1) -> Iterator[tuple[str, str, str]]:
    """Give the problem of a port whose tokens, where their number is known, are no square grid with a side that `factor` divides."""
    tensor = node.in_ports[port].tensor
    axis = tensor.axes[-2] if tensor is not None else None
    count = axis.size if axis is not None else None
    if count is None or is_grid(count, factor):
        return
    wanted = "a square grid" + (f" whose side is a multiple of {factor}" if factor > 1 else "")
    if is_grid(count - 1, factor):
        way = "leave out the class token before them: set select: patches at the eye"
    else:
        way = "take a connector that reads any number of tokens: projector/mlp, or qformer/qformer with queries"
    yield "config-mismatch", f"{node.name}.{port} has {count} tokens, which are not {wanted}", way


def is_grid(count: int, factor: int = 1) -> bool:
    """Whether so many tokens make a square whose side `factor` divides."""
    side = math.isqrt(max(count, 0))
    return count > 0 and side * side == count and side % factor == 0
