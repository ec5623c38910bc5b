"""What reads prompts and media around a decoder with gated cross-attention. Like writer.py, it imports no transformers, and torch for the
parity gate alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.plugin import Decoder, InputError
from modelgraft_plugins.llm.causal_writer import CausalWriter
from modelgraft_plugins.llm.prompts import Prompt
from modelgraft_plugins.llm.shown import Shown
from modelgraft_plugins.llm.writer import Embed, Given

if TYPE_CHECKING:
    from torch import Tensor

REHEARSED = (3, 4)  # the parity gate shows so many media, each of so many vectors: others than those traced


class GatedWriter(CausalWriter):
    """The prompt says by its placeholders where the media stand, and the decoder looks at them."""

    def write(self, values: Sequence[Any], given: Given, *, decoder: Decoder, embed: Embed, wanted: frozenset[str]) -> dict[str, Any]:
        """See Writer; behind the fields come the media, and how many each record has.

        media   float[batch latents width] or float[batch images latents width]
        counts  int64[batch]; None: a medium of zeros alone is none, and fills up a record that has fewer than others

        Raises InputError for a record whose prompt shows more media than it has, or leaves some out.
        """
        return super().write(values, given, decoder=decoder, embed=embed, wanted=wanted)

    def asked(self, values: Sequence[Any], given: Given, *, learns: bool = False) -> list[Prompt]:
        """See CausalWriter. Raises InputError as `write` does."""
        *fields, media, counts = values
        images = media if media.ndim == 4 else media[:, None]
        prompts = self.prompts(fields, given, shown=images.shape[1], records=images.shape[0], learns=learns)
        self.refuse_deep(prompts)
        marker = self.tokens().placeholder_id
        shows = (images.reshape(*images.shape[:2], -1) != 0).any(-1).sum(-1) if counts is None else counts
        self._compare([prompt.ids.count(marker or 0) for prompt in prompts], shows.tolist())
        self._fits(prompts)
        return prompts

    def conditions(self, prompts: Sequence[Prompt], values: Sequence[Any]) -> Shown:
        """See CausalWriter: what each token sees."""
        media, attends = values[-2], self.facts.get("media_attends", "last")
        marker, ends = self.tokens().placeholder_id, frozenset(self.facts.get("media_ends", ()))
        times = [numpy.array(text_time(prompt.ids, marker, ends, attends=attends), dtype=numpy.int64) for prompt in prompts]
        return Shown(media if media.ndim == 4 else media[:, None], times, ahead=attends == "next")

    def begun(self, case: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Shown]:
        """See Writer. The first token sees nothing, then each sees the next medium until the last; a prompt of one token sees none."""
        import torch

        images, latents = REHEARSED
        draw = torch.Generator().manual_seed(11)
        media = torch.randn(len(case), images, latents, self.facts["media_size"], generator=draw)
        return case, Shown(media, [numpy.arange(len(prompt)).clip(max=images) for prompt in case])

    def _compare(self, marked: Sequence[int], wanted: Sequence[int]) -> None:
        """A record shows each of its media once, whatever the others of its batch do."""
        for row, (places, media) in enumerate(zip(marked, wanted, strict=True)):
            if places == media:
                continue
            there = f"{media} media are given" if media != 1 else "1 medium is given"
            which = f" of record {row + 1} of {len(marked)}" if len(marked) > 1 else ""
            found = f"{self.runtime.node}: the prompt{which} holds '{self.config.placeholder}' {places} times, and {there}"
            raise InputError(f"{found}: write it once for each, where it is to stand")


def text_time(ids: Sequence[int], marker: int | None, ends: frozenset[int], *, attends: str = "last") -> list[int]:
    """The number of the medium that each token sees: the last whose marker stands at or before it; 0 before the first.

    ends     tokens behind which nothing is seen until the next marker, as in IDEFICS
    attends  "next": the first whose marker stands at or behind it; 0 behind the last
    """
    if attends == "next":
        count = sum(token == marker for token in ids)
        behind = text_time(ids[::-1], marker, ends)
        return [count + 1 - time if time else 0 for time in reversed(behind)]
    times, count, current = list[int](), 0, 0
    for token in ids:
        if token == marker:
            count += 1
            current = count
        times.append(current)
        if token in ends:
            current = 0
    return times
