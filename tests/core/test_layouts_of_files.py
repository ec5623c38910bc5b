"""Tensors of a layout of its own, taken apart: against torch, operation by operation."""

from __future__ import annotations

import pytest
import torch

from modelgraft.plugin import TensorOrigin
from modelgraft.sources.headers import TensorHeader
from modelgraft.sources.layouts import Seen, shape_of

HELD = torch.arange(2.0 * 6 * 5 * 3).reshape(6, 2, 5, 3)
ORIGINS = {
    "as it is": (TensorOrigin("x"), HELD),
    "rows": (TensorOrigin("x", rows=(2, 4)), HELD[2:4]),
    "rows that end early": (TensorOrigin("x", rows=(4, 9)), HELD[4:]),
    "axes": (TensorOrigin("x", axes=(3, 2, 0, 1)), HELD.permute(3, 2, 0, 1)),
    "shape": (TensorOrigin("x", shape=(12, -1)), HELD.reshape(12, 15)),
    "shape, then axes": (TensorOrigin("x", shape=(12, 15), axes=(1, 0)), HELD.reshape(12, 15).T),
    "rows, then shape": (TensorOrigin("x", rows=(1, 3), shape=(4, -1)), HELD[1:3].reshape(4, 15)),
    "zeros before": (TensorOrigin("x", lead=2), torch.cat([torch.zeros(6, 2, 5, 3), HELD], 1)),
}


@pytest.mark.parametrize(("origin", "wanted"), ORIGINS.values(), ids=ORIGINS)
def test_what_is_taken_has_the_shape_that_is_told_and_the_numbers_of_torch(origin: TensorOrigin, wanted: torch.Tensor):
    seen = Seen({}, {}, {"y": origin})
    assert shape_of(origin, tuple(HELD.shape)) == tuple(wanted.shape)
    assert seen.headers({"x": TensorHeader("F32", tuple(HELD.shape), 0, 4 * HELD.numel())})["y"].shape == tuple(wanted.shape)
    assert torch.equal(seen.readers({"x": lambda _key: HELD})["y"]("y"), wanted)
