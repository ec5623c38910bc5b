"""What reads prompts around a decoder with prefix attention. Like gated_writer.py, it imports no transformers, and torch
for the parity gate alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.plugin import Decoder
from modelgraft_plugins.llm.causal_writer import CausalWriter
from modelgraft_plugins.llm.prompts import Prompt
from modelgraft_plugins.llm.shown import Shown
from modelgraft_plugins.llm.writer import Embed, Given

if TYPE_CHECKING:
    from torch import Tensor


class PrefixWriter(CausalWriter):
    """Every token looks at the vectors of its record; no prompt says where they stand."""

    def write(self, values: Sequence[Any], given: Given, *, decoder: Decoder, embed: Embed, wanted: frozenset[str]) -> dict[str, Any]:
        """See Writer; behind the fields come the vectors, float[batch vectors width]."""
        return super().write(values, given, decoder=decoder, embed=embed, wanted=wanted)

    def asked(self, values: Sequence[Any], given: Given, *, learns: bool = False) -> list[Prompt]:
        """See CausalWriter."""
        *fields, media = values
        prompts = self.prompts(fields, given, records=len(media), learns=learns)
        self.refuse_deep(prompts)
        self._fits(prompts)
        return prompts

    def conditions(self, prompts: Sequence[Prompt], values: Sequence[Any]) -> Shown:
        """See CausalWriter."""
        return Shown(values[-1][:, None], [numpy.ones(len(prompt.ids), dtype=numpy.int64) for prompt in prompts])

    def begun(self, case: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Shown]:
        """See Writer."""
        import torch

        draw = torch.Generator().manual_seed(11)
        media = torch.randn(len(case), 1, self.facts["media_vectors"], self.facts["media_size"], generator=draw)
        return case, Shown(media, [numpy.ones(len(prompt), dtype=numpy.int64) for prompt in case])
