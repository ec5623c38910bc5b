"""A writer that is given answers too, which the model is to learn. Like writer.py, it imports no transformers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError
from modelgraft_plugins.llm.pieces import pieces_of
from modelgraft_plugins.llm.ports import TARGET, TAUGHT
from modelgraft_plugins.llm.writer import Writer

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft_plugins.llm.teaching import Batch, Lesson

Targets = Sequence[str] | None  # of each record the answer that it is to learn; None: nothing is wired


class TaughtWriter(Writer):
    """Around a decoder that is taught by answers. Subclasses say what it reads of each record."""

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> dict[str, Any]:
        """See Writer; among its inputs is the answer that is to be learnt."""
        own, others = self.own_inputs, self.config.others()
        place = own + others.index(TARGET)
        taught = wanted & TAUGHT.keys() if len(values) > place else frozenset()  # what is optional may be left out
        wanted = wanted - TAUGHT.keys()
        if not taught:
            return super().run(values, parts, wanted=wanted)
        import torch

        rest = [*values[:own], *values[own + len(others) :]]
        given = self._taught(values[place], rest, parts, with_states="target_states" in taught)
        given |= {"target_pieces": self._pieces(given["target_ids"])} if "target_pieces" in taught else {}
        found = {name: given[name] for name in taught}
        if torch.is_grad_enabled() and wanted <= {"text", "logits"}:  # something learns, and nothing is written meanwhile
            return {**found, "text": [""] * len(given["target_ids"]), "logits": given["target_logits"][:, 0]}
        return {**found, **super().run(values, parts, wanted=wanted)}

    @abstractmethod
    def batch(self, targets: Targets, values: Sequence[Any], parts: Mapping[str, Any], *, is_whole: bool) -> Batch:
        """What the model is taught by. values: as of `write`;  is_whole: the last token of each answer is read too."""
        ...

    def _taught(self, targets: Targets, values: Sequence[Any], parts: Mapping[str, Any], *, with_states: bool) -> dict[str, Any]:
        """The outputs that tell of a given answer, of each record."""
        if "teach" not in parts:
            raise InputError(f"{self.runtime.node}.target_logits is there on torch alone, where models are trained: run this node on it")
        from modelgraft_plugins.llm import teaching

        batch = self.batch(targets, values, parts, is_whole=with_states)
        own = [one.own(self.names.chosen()) for one in batch.lessons] if with_states else None
        return {**teaching.levelled(parts["teach"](batch, own), batch.lessons)}

    def _pieces(self, ids: Tensor) -> list[list[str]]:
        """What each token of `target_ids` says."""
        from modelgraft_plugins.llm import teaching

        told, decode = self.names.tapped(), self.tokens().decode
        return [pieces_of([token for token in row if token != teaching.NOTHING], decode, told) for row in ids.tolist()]

    def learnable(self, lessons: Sequence[Lesson], *, is_whole: bool) -> list[Lesson]:
        """The same, read as they are to be. Raises InputError for an answer without a token."""
        if any(not one.answer for one in lessons):
            raise InputError(f"{self.runtime.node}.{TARGET}: the tokenizer makes no token of one of the texts: nothing is to be learnt")
        return [one.whole() if is_whole else one for one in lessons]

    def ends(self) -> list[int]:
        """The token that ends an answer: that of the graph, of its chat template, or of the model; none where nobody names one."""
        taught = self.config.taught
        named = self.config.end_tokens or (() if taught is None else taught.ends)
        return self.names.ids(named[:1], "end_tokens") if named else list(self.facts["end_ids"])[:1]
