"""The work of the losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.losses import Alignment as AlignmentConfig
    from modelgraft_plugins.losses import Contrastive as ContrastiveConfig
    from modelgraft_plugins.losses import CrossEntropy as CrossEntropyConfig
    from modelgraft_plugins.losses import SquaredError as SquaredErrorConfig


class Contrastive(nn.Module):
    """x float[batch width], y float[batch width] to loss float[batch], whose mean is (CE of the rows + CE of the columns) / 2."""

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.scale, self.smoothing = config.scale or 1.0, config.label_smoothing
        self.logit_scale = nn.Parameter(torch.tensor([math.log(config.start)])) if config.scale is None else None

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the factor alone from the root of a checkpoint, in either of the shapes [] and [1]."""
        return {name: weights.tensor(name).reshape(1) for name, _ in self.named_parameters()}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Compare each with each; the pairs stand on the diagonal."""
        logits = functional.normalize(x, dim=-1) @ functional.normalize(y, dim=-1).T  # [batch batch]
        logits = logits * (self.scale if self.logit_scale is None else self.logit_scale.exp())
        wanted = torch.arange(logits.shape[0], device=logits.device)
        sides = [functional.cross_entropy(side, wanted, reduction="none", label_smoothing=self.smoothing) for side in (logits, logits.T)]
        return (sides[0] + sides[1]) / 2


class CrossEntropy(nn.Module):
    """logits float[batch classes], labels int64[batch], or with tokens behind batch on both, to loss float[batch].

    mask  bool of the shape of the labels, True where one counts; None: everywhere

    Raises InputError for a label that is no class.
    """

    def __init__(self, config: CrossEntropyConfig) -> None:
        super().__init__()
        self.smoothing, self.ignored = config.label_smoothing, config.ignored

    def forward(self, logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sum over the tokens of a record, and divide by what counts for each record on the average."""
        counts = labels != self.ignored
        if mask is not None:
            counts = counts & mask
        _refuse_strange(labels, counts, classes=logits.shape[-1])
        flat = torch.where(counts, labels, 0).flatten()
        each = functional.cross_entropy(logits.flatten(0, -2), flat, reduction="none", label_smoothing=self.smoothing)
        each = torch.where(counts.flatten(), each, 0).view(labels.shape[0], -1).sum(-1)
        return each * (labels.shape[0] / counts.sum().clamp(min=1))


class Alignment(nn.Module):
    """x and wanted float[batch tokens width], or without tokens, to loss float[batch]: the mean length of x - wanted."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.over = config.over

    def forward(self, x: Tensor, wanted: Tensor) -> Tensor:
        """Measure each pair; where they are the same the gradient is 0, as a square root of its own would not give it."""
        lengths: Tensor = torch.linalg.vector_norm(x - wanted, dim=-1)
        return lengths.mean(-1) if self.over == "tokens" else lengths


class SquaredError(nn.Module):
    """x and wanted float[batch ...] of one shape to loss float[batch]: the mean of (x - wanted) squared, in float32.

    Raises InputError for two shapes, which torch would make one of by repeating.
    """

    def __init__(self, config: SquaredErrorConfig) -> None:  # noqa: ARG002 it has no settings
        super().__init__()

    def forward(self, x: Tensor, wanted: Tensor) -> Tensor:
        """Compare number by number."""
        if x.shape != wanted.shape:
            raise InputError(f"loss/squared_error: `x` is {list(x.shape)} and `wanted` is {list(wanted.shape)}; wanted: one shape")
        return (x.float() - wanted.float()).square().flatten(1).mean(-1)


def _refuse_strange(labels: Tensor, counts: Tensor, *, classes: int) -> None:
    """Raise InputError for a label that counts and is no class: torch would end the process on a GPU."""
    strange = counts & ((labels < 0) | (labels >= classes))
    if bool(strange.any()):
        found = int(labels[strange][0])
        raise InputError(f"loss/cross_entropy: found the label {found}, wanted 0 to {classes - 1}: the logits have {classes} classes")
