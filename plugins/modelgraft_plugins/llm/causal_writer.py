"""What reads prompts and writes answers around a decoder that reads the prompt itself. Like writer.py, it imports no transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from modelgraft.plugin import Decoder, InputError, as_tensor
from modelgraft_plugins.llm import CausalConfig, standing
from modelgraft_plugins.llm.prompts import Prompt
from modelgraft_plugins.llm.taught_writer import Targets, TaughtWriter
from modelgraft_plugins.llm.writer import Embed, Given

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft_plugins.llm.teaching import Batch


class CausalWriter(TaughtWriter):
    """Around a decoder that reads the prompt itself."""

    arrays: ClassVar[bool] = True
    config: CausalConfig

    def begun(self, case: tuple[Tensor, ...]) -> tuple[Sequence[Tensor], Any]:
        """See Writer; for a model that counts axes, prompts whose second half is a picture, of two rows where they are even."""
        if not self.config.has_axes:
            return case, None
        halves = [range(len(prompt) // 2, len(prompt)) for prompt in case]
        media = [standing.Medium(half, (1, 2, len(half) // 2) if len(half) % 2 == 0 else (1, 1, len(half))) for half in halves]
        node = self.runtime.node
        stood = [standing.stand(len(prompt), [medium], node=node) for prompt, medium in zip(case, media, strict=True)]
        if not self.config.hears:
            return case, stood
        import torch

        heard = [prompt[half.start :].expand(self.config.deep, -1, -1) for prompt, half in zip(case, halves, strict=True)]
        deep = [standing.Deep(torch.arange(half.start, half.stop), own) for half, own in zip(halves, heard, strict=True)]
        return case, [replace(one, deep=own) for one, own in zip(stood, deep, strict=True)]

    def write(self, values: Sequence[Any], given: Given, *, decoder: Decoder, embed: Embed, wanted: frozenset[str]) -> dict[str, Any]:
        """See Writer. Raises InputError for a prompt that does not fit."""
        prompts = self.asked(values, given)
        embedded = [prompt.embed(embed, self.device) for prompt in prompts]
        said, behind = [prompt.said for prompt in prompts], [prompt.given for prompt in prompts]
        return self.answer(decoder, embedded, said, behind, conditions=self.conditions(prompts, values), wanted=wanted, asked=prompts)

    def asked(self, values: Sequence[Any], given: Given, *, learns: bool = False) -> list[Prompt]:
        """The prompts of `write`; learns: with their answers in them. Raises InputError for one that does not fit."""
        prompts = self.prompts(values, given, learns=learns)
        self._fits(prompts)
        return prompts

    def conditions(self, prompts: Sequence[Prompt], values: Sequence[Any]) -> Any:  # noqa: ARG002 those of an adapter read its media
        """What the decoder must know of them beside their tokens."""
        return self._standing(prompts)

    # -- a given answer ---------------------------------------------------------------------------------------------------

    def batch(self, targets: Targets, values: Sequence[Any], parts: Mapping[str, Any], *, is_whole: bool) -> Batch:
        """See TaughtWriter. Raises InputError for a prompt that does not fit, or is read in both directions."""
        from modelgraft_plugins.llm import teaching

        if self.config.reads == "both":
            node = self.runtime.node
            raise InputError(f"{node}.target_logits: prompts of {node} are read in both directions, and an answer behind them is not")
        asked = self.asked(values, None if targets is None else [[target] for target in targets], learns=targets is None)
        ends = self.ends()
        found = [
            teaching.of_dialogue(prompt, ends) if targets is None else teaching.lesson(prompt.ids, [*prompt.given[0], *ends])
            for prompt in asked
        ]
        lessons = self.learnable(found, is_whole=is_whole)
        prompts = [replace(prompt, ids=one.ids) for prompt, one in zip(asked, lessons, strict=True)]
        embedded = [as_tensor(prompt.embed(parts["embed"], self.device)) for prompt in prompts]
        return teaching.Batch(lessons, embedded, self.conditions(prompts, values), shared=teaching.shared_places(asked))

    @property
    def most_drafted(self) -> int:
        """See Writer."""
        return self.config.draft

    def _standing(self, prompts: Sequence[Prompt]) -> list[standing.Standing] | None:
        """Where tokens stand, and what is heard there, for a model that asks; None: one behind the other, each seeing those before it."""
        counts = self.config.has_axes and any(medium.grid is not None for prompt in prompts for medium in prompt.shown)
        sees = self.config.reads == "media" and any(prompt.shown for prompt in prompts)
        hears = any(prompt.deep is not None for prompt in prompts)
        if not counts and not sees and not hears:
            return None
        return [self._stood(prompt) for prompt in prompts]

    def _stood(self, prompt: Prompt) -> standing.Standing:
        """Where its tokens stand, and what is added to them."""
        found = standing.stand(len(prompt.ids), prompt.shown, node=self.runtime.node)
        if prompt.deep is None:
            return found
        import torch

        return replace(found, deep=standing.Deep(torch.tensor(prompt.places), as_tensor(prompt.deep)))

    def refuse_deep(self, prompts: Sequence[Prompt]) -> None:
        """Of an adapter whose layers hear something else. Raises InputError for inner layers of an eye, which nobody would add."""
        if any(prompt.deep is not None for prompt in prompts):
            raise InputError(f"{self.runtime.node}: its adapter does not hand inner layers of an eye on: leave their input unwired")

    def _fits(self, prompts: Sequence[Prompt]) -> None:
        limit, new = self.config.max_position_embeddings, self.config.reserved
        longest = max(len(prompt.ids) for prompt in prompts)
        behind = max((len(prompt.ids) + len(text) for prompt in prompts for text in prompt.given), default=0)
        if limit is not None and behind > limit:
            has = f"a prompt and a text that is judged behind it have {behind:,} tokens together"
            raise InputError(f"{self.runtime.node}: {has}; {self.config.kind or 'the model'} has {limit:,} positions: shorten one of them")
        if limit is not None and longest + new > limit:
            has = f"the prompt has {longest:,} tokens and max_new_tokens is {new:,}, together {longest + new:,}"
            way_out = f"shorten the prompt{f', or set max_new_tokens to at most {limit - longest:,}' if longest <= limit else ''}"
            raise InputError(f"{self.runtime.node}: {has}; {self.config.kind or 'the model'} has {limit:,} positions: {way_out}")
