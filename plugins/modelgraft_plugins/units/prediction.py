"""Masked prediction: how likely each code of each code book is in each frame, and how much is lost by the codes that were there.

Source: arXiv 2106.07447, section 2; `models/hubert/hubert.py` and `criterions/hubert_criterion.py` of fairseq, whose keys are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError
from modelgraft_plugins.units.heads import CODES, PROJECTION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelgraft.plugin import Weights
    from modelgraft_plugins.units.heads import CodeHead as CodeHeadConfig
    from modelgraft_plugins.units.heads import MaskedPrediction as MaskedPredictionConfig


class CodeHead(nn.Module):
    """Cosines of projected frames with the codes of each book, divided by a temperature.

    tokens   float[batch tokens width]
    returns  float[batch tokens classes]: the codes of all books one behind the other
    """

    def __init__(self, config: CodeHeadConfig) -> None:
        super().__init__()
        assert config.width is not None, "the solver has filled it"
        self.codes, self.temperature = config.codes, config.temperature
        self.final_proj = nn.Linear(config.width, config.final_dim * (1 if config.tied else len(config.codes)))
        self.label_embs_concat = nn.Parameter(torch.empty(config.classes, config.final_dim))
        nn.init.uniform_(self.label_embs_concat)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the head alone from a file of the whole model."""
        return {name: tensor for name, tensor in weights.state().items() if name == CODES or name.startswith(PROJECTION)}

    def forward(self, tokens: Tensor) -> Tensor:
        """Compare."""
        projected = self.final_proj(tokens)
        tied = projected.shape[-1] == self.label_embs_concat.shape[-1]
        mine = [projected] * len(self.codes) if tied else projected.chunk(len(self.codes), dim=-1)
        codes = torch.split(functional.normalize(self.label_embs_concat, dim=-1), list(self.codes))
        cosines = [functional.normalize(one, dim=-1) @ book.T for one, book in zip(mine, codes, strict=True)]
        return torch.cat(cosines, dim=-1) / self.temperature


class MaskedPrediction(nn.Module):
    """What each record loses by the codes of its masked frames, and by the size of its features.

    logits  float[batch tokens classes];  units  int64[batch frames] or [batch frames books]
    spans   bool[batch tokens], True for the tokens that were masked;  mask  bool[batch tokens], True where there are any, None: everywhere
    conv_features  float[batch tokens channels], what the convolutions give; None: no penalty
    returns loss float[batch], sums float[batch books], penalty float[batch]; see the declaration
    """

    def __init__(self, config: MaskedPredictionConfig) -> None:
        super().__init__()
        self.config = config

    def from_checkpoint(self, _weights: Weights) -> Mapping[str, Tensor]:
        """Take nothing: the checkpoint says how many codes there are."""
        return {}

    def forward(
        self, logits: Tensor, units: Tensor, spans: Tensor, mask: Tensor | None = None, conv_features: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compare."""
        config = self.config
        labels, known = self._aligned(units if units.dim() == 3 else units[:, :, None], tokens=logits.shape[1])
        counted = known if mask is None else known & mask
        masked, others = counted & spans, counted & ~spans
        lost = self._lost(logits, labels, counted)  # [batch tokens books]
        sums = torch.where(masked[:, :, None], lost, 0.0).sum(1)
        rest = torch.where(others[:, :, None], lost, 0.0).sum(1)
        weights = {"masked": (config.masked, masked), "others": (config.others, others)}
        frames = sum(int(weight > 0) * which.sum() for weight, which in weights.values())
        share = (config.masked * sums + config.others * rest).sum(1) * (logits.shape[0] / torch.as_tensor(frames).clamp(min=1))
        penalty = torch.zeros_like(share) if conv_features is None else _mean_square(conv_features, mask)
        return {"loss": share + config.penalty * penalty, "sums": sums, "penalty": penalty}

    def _aligned(self, units: Tensor, *, tokens: int) -> tuple[Tensor, Tensor]:
        """The codes int64[batch tokens books] of each token, and where there is one; a sound may have fewer units than tokens."""
        places = (torch.arange(tokens, device=units.device) * self.config.step).long()
        reached = places < units.shape[1]
        labels = units[:, places.clamp(max=units.shape[1] - 1)]
        return labels + self.config.offset, (labels >= 0).all(-1) & reached

    def _lost(self, logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        """float[batch tokens books]: cross-entropy of each book. Raises InputError for a unit that is no code."""
        if labels.shape[-1] != len(self.config.codes):
            found = f"{labels.shape[-1]} units for each frame, and {len(self.config.codes)} code books"
            raise InputError(f"units/masked_prediction: found {found}")
        lost, books = [], torch.split(logits, list(self.config.codes), dim=-1)
        for book, (scores, size) in enumerate(zip(books, self.config.codes, strict=True)):
            mine = torch.where(counted, labels[..., book], 0)
            if bool((mine >= size).any()):
                found = f"the unit {int(mine.max()) - self.config.offset} of book {book}"
                raise InputError(
                    f"units/masked_prediction: found {found}, wanted less than {size - self.config.offset}: it has {size} codes"
                )
            lost.append(functional.cross_entropy(scores.transpose(1, 2).float(), mine, reduction="none"))
        return torch.stack(lost, -1)


def _mean_square(features: Tensor, mask: Tensor | None) -> Tensor:
    """float[batch]: over the tokens that are there."""
    squares = features.float().square().mean(-1)  # [batch tokens]
    if mask is None:
        return squares.mean(-1)
    return torch.where(mask, squares, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
