"""The parity gate: an export is compared with torch, elementwise, before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from modelgraft.backends.onnx.exporting import first_line
from modelgraft.backends.onnx.keys import ExportError

# Largest accepted |export - torch| relative to the largest |torch| value of the output, by precision.
TOLERANCES: Mapping[str, tuple[float, str]] = {
    "float32": (1e-4, "other orders of summation; measured exports stay below 1e-5"),
    "float16": (2e-2, "11 bits of mantissa over the depth of a model"),
    "int8": (0.25, "8-bit weights and activations; random weights are the worst case, trained ones stay near 0.02"),
    "w8": (0.2, "8-bit weights and activations in blocks of 32; outliers of trained language models reach 0.14 (SmolLM2)"),
    "w4": (0.6, "4-bit weights; random weights are the worst case"),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an export is from torch.

    absolute  the largest difference of any element;  relative  that over the largest value of its output
    sizes     the batch and free sizes that were compared
    """

    absolute: float
    relative: float
    tolerance: float
    sizes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the export may be used. NaN never holds."""
        return self.relative <= self.tolerance

    def __str__(self) -> str:
        return f"max difference {self.absolute:.1e}, relative {self.relative:.1e} (tolerance {self.tolerance:.0e})"


def compare(
    reference: Callable[..., Sequence[torch.Tensor]],
    exported: Callable[..., Sequence[torch.Tensor]],
    cases: Sequence[tuple[torch.Tensor, ...]],
    *,
    precision: str,
) -> Parity:
    """Run both on every case and keep the worst difference.

    Raises ExportError when onnxruntime cannot run the export, and when torch itself gives NaN.
    """
    worst_absolute, worst_relative, sizes = 0.0, 0.0, list[str]()
    for case in cases:
        with torch.no_grad():
            expected = reference(*case)
        if any(tensor.isnan().any() for tensor in expected):
            raise ExportError("torch itself gives NaN, so there is nothing to compare with: look for NaN in the weights")
        try:
            got = exported(*case)
        except Exception as error:  # the classes that onnxruntime raises have no base of their own
            raise ExportError(f"onnxruntime cannot run the export: {first_line(error)}") from error
        sizes.append(" ".join("x".join(map(str, tensor.shape)) for tensor in case))
        for mine, theirs in zip(got, expected, strict=True):
            absolute, relative = _difference(mine, theirs)
            worst_absolute, worst_relative = max(worst_absolute, absolute), max(worst_relative, relative)
    return Parity(worst_absolute, worst_relative, TOLERANCES[precision][0], tuple(sizes))


def _difference(mine: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """Largest absolute and relative difference; infinite for another shape, for NaN, and for whole numbers that differ."""
    if mine.shape != theirs.shape:
        return float("inf"), float("inf")
    if not theirs.is_floating_point():
        equal = torch.equal(mine, theirs)
        return (0.0, 0.0) if equal else (float("inf"), float("inf"))
    difference = (mine.double() - theirs.double()).abs()
    if not torch.isfinite(difference).all():
        return float("inf"), float("inf")
    absolute = difference.max().item() if difference.numel() else 0.0
    scale = theirs.double().abs().max().item() if theirs.numel() else 1.0
    return absolute, absolute / (scale or 1.0)
