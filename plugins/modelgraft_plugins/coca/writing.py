"""The loop of coca/writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LoadContext, Loop, NodeRuntime
from modelgraft_plugins.short_texts import Scribe

if TYPE_CHECKING:
    from modelgraft_plugins.coca import Writer as WriterConfig


class Writer(Loop):
    """Captions by both halves of the decoder, which read what was written again for every token."""

    config: WriterConfig

    def prepare(self, context: LoadContext) -> None:
        """Find the tokenizer beside the weights."""
        self.scribe = Scribe(self.config, context, vocabulary=self.config.vocab_size, most=self.config.context_length)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> dict[str, Any]:
        """image float[batch n width], and the beginnings of the captions or None."""
        image, prompts = values
        begun = self.scribe.begun(prompts, len(image), first=self.config.first_id)
        return self.scribe.write(parts["read"], begun, image, ends=self.config.last_ids, runtime=self.runtime, wanted=wanted)
