"""Modules that no checkpoint fills: a part without a source is new, and a warning says so."""

from __future__ import annotations

import zlib

import torch

from modelgraft.engine.backend import LoadContext
from modelgraft.engine.modules.building import BUILDING, build, count_of, dtype_of
from modelgraft.engine.modules.casting import cast
from modelgraft.engine.modules.drawing import deferred, draw


def fresh(context: LoadContext) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """The module of a node with seeded random numbers, and what a user must know of it. The same for the same seed and name of a node."""
    node = context.node
    module = cast(_drawn(context, context.seed + zlib.crc32((node.share or node.name).encode())), dtype_of(context.dtype))
    count = count_of(module)
    return module, (f"{node.name}: {count:,} parameters start from random numbers (seed {context.seed})",) if count else ()


def _drawn(context: LoadContext, seed: int) -> torch.nn.Module:
    """Build once, and draw each parameter in its dtype."""
    dtype = dtype_of(context.dtype)
    with BUILDING, deferred(seed) as draws:
        module = build(context.node.component, context.node)
    draw(module, draws, seed=seed, dtype=dtype)
    return module
