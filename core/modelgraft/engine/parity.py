"""The parity gate: what a backend has made of a module is compared with torch, elementwise, before it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelgraft.kernel.words.errors import ModelgraftError
from modelgraft.kernel.words.guard import said
from modelgraft.records.arrays import as_tensor

if TYPE_CHECKING:
    import torch

    from modelgraft.records.arrays import Array

# Largest accepted |export - torch| relative to the largest |torch| value of the output, by dtype; backends have others beside them.
TOLERANCES: Mapping[str, tuple[float, str]] = {
    "float32": (1e-4, "other orders of summation; measured exports stay below 1e-5"),
    "float16": (2e-2, "11 bits of mantissa over the depth of a model"),
}

COMPARED = 1 << 18  # numbers that are compared at once: in float64 they take a few times 2 MB
INFINITE = (float("inf"), float("inf"), float("inf"))  # outputs that cannot be compared are this far apart


class ExportError(ModelgraftError):
    """A module of which a backend cannot make something of its own, or something that does not give torch's numbers."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an export, or whatever a backend has made of a module, is from torch.

    absolute   the largest difference of any element;  relative  that over the largest value of its output
    overall    the length of the difference of an output, as a vector, over that of the output
    same       which part of the rows of logits have their largest value at the same place; None for other outputs
    sizes      the batch and free sizes that were compared
    """

    absolute: float
    relative: float
    tolerance: float
    sizes: tuple[str, ...]
    overall: float = 0.0
    same: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the export may be used. NaN never holds."""
        return self.relative <= self.tolerance

    def __str__(self) -> str:
        return f"max difference {self.absolute:.1e}, relative {self.relative:.1e} (tolerance {self.tolerance:.2g})"


def parity_of(
    reference: Callable[..., Sequence[Array]],
    exported: Callable[..., Sequence[Array]],
    cases: Sequence[tuple[torch.Tensor, ...]],
    *,
    tolerance: float,
    writes: bool = False,
) -> Parity:
    """Run both on every case and keep the worst difference.

    tolerance  the largest difference that is accepted, relative to the largest value of an output
    writes     the outputs are logits, float[batch vocab] each

    Raises ExportError when the export cannot run, and when torch itself gives NaN.
    """
    import torch  # not at the top: what a plan asks for is told without it

    worst, sizes, agree = (0.0, 0.0, 0.0), list[str](), list[torch.Tensor]()
    for case in cases:
        with torch.no_grad():
            expected: list[torch.Tensor] = [as_tensor(one) for one in reference(*case)]
        if any(tensor.isnan().any() for tensor in expected):
            raise ExportError("torch itself gives NaN, so there is nothing to compare with: look for NaN in the weights")
        try:
            got: list[torch.Tensor] = [as_tensor(one) for one in exported(*case)]
        except Exception as error:  # what runs exports may raise anything
            raise ExportError(f"the export cannot run: {said(_innermost(error))}") from error
        sizes.append(" ".join("x".join(map(str, tensor.shape)) for tensor in case))
        for mine, theirs in zip(got, expected, strict=True):
            found = _difference(mine, theirs)
            worst = (max(worst[0], found[0]), max(worst[1], found[1]), max(worst[2], found[2]))
            if writes and mine.shape == theirs.shape:
                agree.append(mine.argmax(-1) == theirs.argmax(-1))
    same = torch.cat(agree).double().mean().item() if agree else None
    return Parity(worst[0], worst[1], tolerance, tuple(sizes), worst[2], same)


def _innermost(error: BaseException) -> BaseException:
    return _innermost(error.__cause__) if error.__cause__ is not None else error


def _difference(mine: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float, float]:
    """Largest absolute and relative difference, and that of the whole; infinite for another shape, NaN, and whole numbers that differ."""
    import torch

    if mine.shape != theirs.shape:
        return INFINITE
    if not theirs.is_floating_point():
        return (0.0, 0.0, 0.0) if torch.equal(mine, theirs) else INFINITE
    absolute, scale, apart, whole = 0.0, 0.0, 0.0, 0.0
    for one, other in zip(torch.split(mine.flatten(), COMPARED), torch.split(theirs.flatten(), COMPARED), strict=True):
        expected = other.double()
        difference = one.double() - expected
        if not torch.isfinite(difference).all():
            return INFINITE
        if difference.numel():
            absolute, scale = max(absolute, difference.abs().max().item()), max(scale, expected.abs().max().item())
            apart, whole = math.hypot(apart, difference.norm().item()), math.hypot(whole, expected.norm().item())
    return absolute, absolute / (scale or 1.0), apart / (whole or 1.0)
