"""What reads prompts and writes answers around a decoder that reads the prompt itself. Like writer.py, it imports no transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import Decoder, InputError
from modelgraft_plugins.llm import CausalConfig, standing, teaching
from modelgraft_plugins.llm.prompts import Prompt
from modelgraft_plugins.llm.taught import TARGET, TAUGHT
from modelgraft_plugins.llm.writer import Embed, Given, Writer


class CausalWriter(Writer):
    """Around a decoder that reads the prompt itself."""

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

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> dict[str, Any]:
        """See Writer; among its inputs is the answer that is to be learnt."""
        own, others = self.own_inputs, self.config.others()
        place = own + others.index(TARGET)
        taught = wanted & TAUGHT.keys() if len(values) > place else frozenset()  # what is optional may be left out
        wanted = wanted - TAUGHT.keys()
        if not taught:
            return super().run(values, parts, wanted=wanted)
        given = self._taught(values[place], [*values[:own], *values[own + len(others) :]], parts)
        found = {name: given[name] for name in taught}
        if torch.is_grad_enabled() and wanted <= {"text", "logits"}:  # something learns, and nothing is written meanwhile
            return {**found, "text": [""] * len(given["target_ids"]), "logits": given["target_logits"][:, 0]}
        return {**found, **super().run(values, parts, wanted=wanted)}

    def _taught(self, targets: Sequence[str] | None, values: Sequence[Any], parts: Mapping[str, Any]) -> dict[str, Tensor]:
        """The outputs that tell of a given answer, of each record."""
        self._refuse_untaught(parts)
        asked = self.asked(values, None if targets is None else [[target] for target in targets], learns=targets is None)
        prompts, answers, places = (teaching.with_answers if targets is not None else teaching.of_dialogues)(asked, self._ends())
        if any(not answer for answer in answers):
            raise InputError(f"{self.runtime.node}.{TARGET}: the tokenizer makes no token of one of the texts: nothing is to be learnt")
        embedded = [prompt.embed(parts["embed"], self.device) for prompt in prompts]
        shared = teaching.shared_places(asked)
        logits = parts["teach"](embedded, places, self.conditions(prompts, values), shared=shared)
        return teaching.levelled(logits, answers)

    def _refuse_untaught(self, parts: Mapping[str, Any]) -> None:
        name = f"{self.runtime.node}.target_logits"
        if "teach" not in parts:
            raise InputError(f"{name} is there on torch alone, where models are trained: run this node on it")
        if self.config.reads == "both":
            raise InputError(f"{name}: prompts of {self.runtime.node} are read in both directions, and an answer behind them is not")

    def _ends(self) -> list[int]:
        """The token that ends an answer: that of the graph, of its chat template, or of the model; none where nobody names one."""
        taught = self.config.taught
        named = self.config.end_tokens or (() if taught is None else taught.ends)
        return self._named(named[:1], "end_tokens") if named else list(self.facts["end_ids"])[:1]

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
        return replace(found, deep=standing.Deep(torch.tensor(prompt.places), prompt.deep))

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
