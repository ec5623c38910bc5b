"""What wav2vec 2.0 is pre-trained by: contrastive loss, diversity of codes, penalty on features.

Source: arXiv 2006.11477, section 3.2, equations 3 and 4; the penalty is in fairseq's code alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.audio.pretraining import Criterion as CriterionConfig

TINY = 1e-7  # fairseq adds it to a mean probability before the logarithm


class Criterion(nn.Module):
    """The shares of a batch, and what they are made of.

    predictions, targets  float[batch tokens shared];  spans  bool[batch tokens];  negatives  int64[batch tokens negatives]
    code_ids  int64[batch tokens groups];  probabilities  float[batch tokens groups entries]
    conv_features  float[batch tokens channels];  mask  bool[batch tokens]
    returns  shares float[batch], logits float[batch tokens negatives+1], figures of the batch float[batch]; all in float32

    Raises InputError where nothing is masked, or a negative is not among the masked tokens of its sound.
    """

    def __init__(self, config: CriterionConfig) -> None:
        super().__init__()
        self.config = config

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:  # noqa: ARG002 as the protocol has it
        """Take nothing: it has no weights, and the file that says how it compares is of the other parts."""
        return {}

    def forward(  # noqa: PLR0917 one for each input port
        self,
        predictions: Tensor,
        targets: Tensor,
        spans: Tensor,
        negatives: Tensor,
        code_ids: Tensor,
        probabilities: Tensor,
        conv_features: Tensor,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compare the masked tokens; everything else is left out."""
        rows, places = spans.nonzero(as_tuple=True)
        _refuse_strange(spans, rows, negatives[rows, places])
        options = torch.cat([places[:, None], negatives[rows, places]], dim=1)  # [n 1+K]: the right place, then the others
        logits = self._logits(predictions[rows, places], targets[rows[:, None], options], code_ids[rows[:, None], options])
        each = functional.cross_entropy(logits, torch.zeros_like(rows), reduction="none")
        batch, count = spans.shape[0], spans.sum(-1)
        contrastive = batch * torch.zeros(batch, device=each.device).index_add(0, rows, each)
        soft, hard = _perplexities(probabilities[rows, places], code_ids[rows, places])
        codes = probabilities.shape[-2] * probabilities.shape[-1]
        diversity = batch * count * (codes - self._used(soft, probabilities[rows, places], code_ids[rows, places])) / codes
        square = _mean_square(conv_features.float(), mask)
        penalty = batch * count * square
        return {
            "loss": contrastive + self.config.diversity * diversity + self.config.penalty * penalty,
            "contrastive": contrastive, "diversity": diversity, "penalty": penalty,
            "logits": torch.zeros(*spans.shape, options.shape[1], device=each.device).index_put((rows, places), logits),
            "probability_perplexity": soft.expand(batch), "code_perplexity": hard.expand(batch), "mean_square": square.expand(batch),
        }  # fmt: skip

    def _logits(self, predictions: Tensor, targets: Tensor, ids: Tensor) -> Tensor:
        """Cosines over the temperature: float[n 1+K]; those of negatives that have the codes of the right one are minus infinity."""
        logits = torch.cosine_similarity(predictions[:, None].float(), targets.float(), dim=-1) / self.config.temperature
        same = (ids == ids[:, :1]).all(-1)
        same[:, 0] = False
        return logits.masked_fill(same, -torch.inf)

    def _used(self, soft: Tensor, probabilities: Tensor, ids: Tensor) -> Tensor:
        """The perplexity that the diversity is taken from."""
        if self.config.perplexity == "soft":
            return soft
        mean = probabilities.float().mean(0) if self.training else _shares(ids, probabilities.shape[-1])
        return torch.exp(-torch.xlogy(mean, mean).sum(-1)).sum()


def _perplexities(probabilities: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """How many codes are used, over all books: by their probabilities float[n G V], and by what was chosen int64[n G]."""
    means = (probabilities.float().mean(0), _shares(ids, probabilities.shape[-1]))
    soft, hard = (torch.exp(-(mean * torch.log(mean + TINY)).sum(-1)).sum() for mean in means)
    return soft, hard


def _shares(ids: Tensor, entries: int) -> Tensor:
    """How often each code of each book was chosen: float[G V]."""
    return functional.one_hot(ids, entries).float().mean(0)


def _mean_square(features: Tensor, mask: Tensor | None) -> Tensor:
    """Over all features of sound in the batch."""
    return features.square().mean() if mask is None else features[mask].square().mean()


def _refuse_strange(spans: Tensor, rows: Tensor, negatives: Tensor) -> None:
    if not len(rows):
        raise InputError(
            "wav2vec2/criterion: no token of the batch is masked, so there is nothing to learn; mask more, or give longer sounds"
        )
    inside = (negatives >= 0) & (negatives < spans.shape[1])
    if not bool(inside.all()) or not bool(spans[rows[:, None], negatives].all()):
        raise InputError("wav2vec2/criterion: negatives are places of masked tokens of the same sound, and one is not")
