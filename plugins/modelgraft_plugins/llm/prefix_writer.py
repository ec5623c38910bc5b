"""What reads prompts around a decoder with prefix attention. Like writer.py, it imports no transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from modelgraft.plugin import Decoder, as_tensor
from modelgraft_plugins.llm.causal_writer import CausalWriter
from modelgraft_plugins.llm.prompts import Prompt
from modelgraft_plugins.llm.shown import Shown
from modelgraft_plugins.llm.writer import Embed, Given


class PrefixWriter(CausalWriter):
    """Every token looks at the vectors of its record; no prompt says where they stand."""

    arrays: ClassVar[bool] = False

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
        return Shown(as_tensor(values[-1])[:, None], [torch.ones(len(prompt.ids), dtype=torch.int64) for prompt in prompts])

    def begun(self, case: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Shown]:
        """See Writer."""
        draw = torch.Generator().manual_seed(11)
        media = torch.randn(len(case), 1, self.facts["media_vectors"], self.facts["media_size"], generator=draw)
        return case, Shown(media, [torch.ones(len(prompt), dtype=torch.int64) for prompt in case])
