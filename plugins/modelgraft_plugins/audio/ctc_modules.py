"""The torch modules of CTC: the head and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError
from modelgraft_plugins.audio.ctc import head_in

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.audio.ctc import Ctc as CtcConfig
    from modelgraft_plugins.audio.ctc import Head as HeadConfig


class Head(nn.Module):
    """tokens float[batch tokens in_features] to logits float[batch tokens classes]."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        assert config.in_features is not None and config.classes is not None  # noqa: PT018 solved before a node is loaded
        self.map = nn.Linear(config.in_features, config.classes)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the layer out of a file of transformers or fairseq; the encoder is another part."""
        name = head_in(weights.keys())
        return {} if name is None else {f"map.{kind}": weights.tensor(f"{name}.{kind}") for kind in ("weight", "bias")}

    def forward(self, tokens: Tensor) -> Tensor:
        """One linear layer."""
        logits: Tensor = self.map(tokens)
        return logits


class Ctc(nn.Module):
    """logits float[batch tokens classes], labels int64[batch letters], mask bool[batch tokens] to loss float[batch].

    Computed in float32, as in transformers.

    Raises InputError for labels that are no class, or are the blank.
    """

    def __init__(self, config: CtcConfig) -> None:
        super().__init__()
        self.config = config

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:  # noqa: ARG002 as the protocol has it
        """Take nothing: it has no weights, and the file that says how it sums up is of the other parts."""
        return {}

    def forward(self, logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Each row by itself; the sum counts for every record of the batch, so that the mean of the shares is the sum."""
        there = labels >= 0
        _refuse_strange(labels[there], classes=logits.shape[-1], blank=self.config.blank)
        frames = torch.full((logits.shape[0],), logits.shape[1], device=logits.device) if mask is None else mask.sum(-1)
        letters = there.sum(-1)
        each = functional.ctc_loss(
            logits.log_softmax(-1, dtype=torch.float32).transpose(0, 1), labels[there], frames, letters, blank=self.config.blank,
            reduction="none", zero_infinity=self.config.zero_infinity,
        )  # fmt: skip
        return each * logits.shape[0] if self.config.reduction == "sum" else each / letters.clamp(min=1)


def _refuse_strange(labels: Tensor, *, classes: int, blank: int) -> None:
    strange = (labels >= classes) | (labels == blank)
    if bool(strange.any()):
        found = int(labels[strange][0])
        what = "the blank, which no text holds" if found == blank else f"wanted 0 to {classes - 1}"
        raise InputError(f"loss/ctc: found the label {found}: {what}; numbers below 0 fill rows up")
