"""The loop of qformer/writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LoadContext, Loop, NodeRuntime
from modelgraft_plugins.short_texts import Scribe

if TYPE_CHECKING:
    from modelgraft_plugins.qformer.pairs import Writer as WriterConfig


class Writer(Loop):
    """Captions by the Q-Former, which reads what was written again for every token."""

    config: WriterConfig

    def prepare(self, context: LoadContext) -> None:
        """Find the tokenizer beside the weights."""
        self.scribe = Scribe(self.config, context, vocabulary=self.config.vocab_size, most=self.config.max_position_embeddings)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> dict[str, Any]:
        """memory float[batch n width], and the beginnings of the captions or None."""
        memory, prompts = values
        begun = self.scribe.begun(prompts, len(memory), first=self.config.first_id)
        return self.scribe.write(parts["read"], begun, memory, ends=self.config.last_ids, runtime=self.runtime, wanted=wanted)
