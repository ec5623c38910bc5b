"""The quantiser of wav2vec 2.0 and the head of its predictions.

Source: arXiv 2006.11477, section 2 (quantization module); the layout of its files is that of fairseq, or of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft_plugins.audio import waves

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.audio.pretraining import Predictor as PredictorConfig
    from modelgraft_plugins.audio.pretraining import Quantizer as QuantizerConfig

# name here -> names in files
BOOKS = {"codes": ("quantizer.vars", "quantizer.codevectors")}
CHOICE = {f"choice.{kind}": (f"quantizer.weight_proj.{kind}",) for kind in ("weight", "bias")}
TARGET = {f"target.{kind}": (f"project_q.{kind}",) for kind in ("weight", "bias")}
GUESS = {f"map.{kind}": (f"final_proj.{kind}", f"project_hid.{kind}") for kind in ("weight", "bias")}


class Quantizer(nn.Module):
    """normed float[batch tokens channels] to codes, code_ids, probabilities and targets.

    Legend: G books, V codes in each, d width of the codes together.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        assert config.channels is not None and config.shared_size is not None  # noqa: PT018 solved before a node is loaded
        self.groups, self.entries, self.temperature = config.groups, config.entries, config.temperature
        choices = config.groups * config.entries
        self.codes = nn.Parameter(torch.empty(1, choices, config.code_size // config.groups))
        nn.init.uniform_(self.codes)  # as published
        self.choice = nn.Linear(config.channels, choices)
        self.target = nn.Linear(config.code_size, config.shared_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the quantiser out of a file of pre-training."""
        return taken(weights, {**BOOKS, **CHOICE, **TARGET})

    def forward(self, normed: Tensor) -> dict[str, Tensor]:
        """Choose a code of each book."""
        logits = self.choice(normed).unflatten(-1, (self.groups, self.entries)).float()  # [batch tokens G V]
        if self.training:
            chosen = functional.gumbel_softmax(logits, tau=self.temperature, hard=True)
        else:
            chosen = functional.one_hot(logits.argmax(-1), self.entries).to(logits.dtype)
        books = self.codes.view(self.groups, self.entries, -1)  # [G V d/G]
        codes = torch.einsum("btgv,gvd->btgd", chosen.to(books.dtype), books).flatten(-2)
        return {"codes": codes, "code_ids": chosen.argmax(-1), "probabilities": logits.softmax(-1), "targets": self.target(codes)}


class Predictor(nn.Module):
    """tokens float[batch tokens hidden_size] to predictions float[batch tokens shared_size]."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        assert config.hidden_size is not None and config.shared_size is not None  # noqa: PT018 solved before a node is loaded
        self.map = nn.Linear(config.hidden_size, config.shared_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the head out of a file of pre-training."""
        return taken(weights, GUESS)

    def forward(self, tokens: Tensor) -> Tensor:
        """One linear layer."""
        predictions: Tensor = self.map(tokens)
        return predictions


def taken(weights: Weights, names: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """The tensors that are there, under their names here; the other parts of the file are left to them."""
    keys = set(weights.keys())
    prefix = waves.prefix_of(dict.fromkeys(keys)) or ""
    found = {}
    for ours, theirs in names.items():
        name = next((prefix + key for key in theirs if prefix + key in keys), None)
        if name is not None:
            found[ours] = weights.tensor(name)
    return found
