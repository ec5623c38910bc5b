"""llm/draft: hands its decoder to whom it guesses for. Like writer.py, it imports no transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import DraftModel, LoadContext
from modelgraft_plugins.llm import DraftConfig
from modelgraft_plugins.llm.causal_writer import CausalWriter
from modelgraft_plugins.llm.writer import BITS


class DraftWriter(CausalWriter):
    """Writes nothing: what it gives is the model."""

    config: DraftConfig

    def __init__(self, config: Any, facts: Mapping[str, Any]) -> None:
        super().__init__(config, facts)
        self.draft: DraftModel | None = None

    def prepare(self, context: LoadContext) -> None:
        """See Writer; it reads tokens, and needs no tokenizer."""
        self.ledger = context.ledger
        self.runtime.node, self.runtime.component = context.node.name, context.node.component.id
        self.device, self.bits = context.device, BITS.get(context.precision or context.dtype, 32)

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> list[DraftModel]:  # type: ignore[override]  # noqa: ARG002 nothing comes in
        """One record: the model, the same in every run."""
        self._count(parts["decoder"])
        if self.draft is None or self.draft.decoder is not parts["decoder"]:
            positions, weights = self.config.max_position_embeddings, self.weights()
            vocabulary = int(self.facts["vocabulary"])
            self.draft = DraftModel(parts["decoder"], parts["embed"], self.device, vocabulary, positions, weights)
        return [self.draft]
