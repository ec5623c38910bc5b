"""The work of score/word_errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from modelgraft_plugins.metrics import Wer
from modelgraft_plugins.metrics.speech import wer

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.metrics import WordErrors


def load(config: WordErrors, context: LoadContext) -> Callable[[list[str], list[str]], torch.Tensor]:
    """Make the function from what was heard and what was to be said to float[batch]."""
    rows = wer(Wer(text=config.text), context)

    def rates(heard: list[str], wanted: list[str]) -> torch.Tensor:
        counted = rows(heard, [[text] for text in wanted])
        return torch.tensor([errors / max(words, 1) for errors, words in counted])

    return rates
