"""What reads prompts and writes answers around a decoder whose encoder reads the prompt, or that takes a memory: see writer.py.

Torch is imported where something is learnt, and for the parity gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy

from modelgraft.plugin import Array, Decoder, InputError, as_array, as_tensor
from modelgraft_plugins.llm import Seq2SeqConfig, memories
from modelgraft_plugins.llm import starts as beginnings
from modelgraft_plugins.llm.ports import TARGET
from modelgraft_plugins.llm.taught_writer import Targets, TaughtWriter
from modelgraft_plugins.llm.writer import Embed, Given

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from modelgraft_plugins.llm.teaching import Batch


class Seq2SeqWriter(TaughtWriter):
    """Around a decoder whose encoder reads the prompt, or that takes a memory."""

    arrays: ClassVar[bool] = True
    config: Seq2SeqConfig

    @property
    def reads_prompts(self) -> bool:
        """See Writer: the encoder does."""
        return False

    def rehearsed(self, length: int, embed: Embed, generator: torch.Generator) -> Tensor:  # noqa: ARG002 any vectors will do
        """See Writer: what the encoder reads, or a memory."""
        import torch

        return torch.randn(length, self.facts["width"], generator=generator)

    def begun(self, case: tuple[Tensor, ...]) -> tuple[Sequence[Array], Any]:
        """See Writer."""
        return [_ids([0])] * len(case), case

    @property
    def own_inputs(self) -> int:
        """See Writer: the fields, or the memory."""
        return 1 if self.config.encoder == "none" else super().own_inputs

    def write(self, values: Sequence[Any], given: Given, *, decoder: Decoder, embed: Embed, wanted: frozenset[str]) -> dict[str, Any]:
        """See Writer; the values of a decoder alone are its memory, float[batch frames width], and where it is there. Texts are judged as
        answers."""
        memory, read = self._read(values, embed, records=1 if given is None else len(given))
        behind = [[self.tokens().plain(text) for text in texts] for texts in given or ()]
        starts = self._starts(decoder, memory)
        begun = [_ids(start) for start in starts]
        return self.answer(decoder, begun, starts, behind, read=read, conditions=memory, wanted=wanted)

    def batch(self, targets: Targets, values: Sequence[Any], parts: Mapping[str, Any], *, is_whole: bool) -> Batch:
        """See TaughtWriter: answers behind the tokens that answers begin with.

        Raises InputError where nothing says the answers, and for one that is longer than what the decoder reads.
        """
        from modelgraft_plugins.llm.teaching import Batch, lesson

        if targets is None:
            lacks = f"{self.runtime.node}.target_logits tells of the text that {self.runtime.node}.{TARGET} gets"
            raise InputError(f"{lacks}, and nothing is wired into it: wire text")
        memory, _ = self._read(values, parts["embed"], records=len(targets))
        ends, starts = self.ends(), self._starts(parts["decoder"], memory)
        found = [lesson(start, [*self.tokens().plain(text), *ends]) for start, text in zip(starts, targets, strict=True)]
        lessons = self.learnable(found, is_whole=is_whole)
        limit, longest = self.config.max_position_embeddings, max(len(one.ids) for one in lessons)
        if limit is not None and longest > limit:
            has = f"the answer to learn has {longest:,} tokens with those that it begins with"
            raise InputError(f"{self.runtime.node}.{TARGET}: {has}; {self.config.kind or 'the model'} has {limit:,} positions: shorten it")
        return Batch(lessons, [as_tensor(_ids(one.ids)) for one in lessons], [as_tensor(row) for row in memory])

    def _read(self, values: Sequence[Any], embed: Embed, *, records: int) -> tuple[list[Array], list[Sequence[int]]]:
        """Of each record what the encoder reads, or its memory, float[tokens width], and the tokens in it. records: see `prompts`."""
        if self.config.encoder == "none":
            mask = values[1] if len(values) > 1 else None
            memory = memories.rows(values[0], mask, kind=self.config.kind, node=self.runtime.node)
            return memory, [()] * len(memory)
        prompts = self.prompts(values, None, records=records)
        return [prompt.embed(embed, self.device) for prompt in prompts], [prompt.said for prompt in prompts]

    def _starts(self, decoder: Decoder, memory: Sequence[Array]) -> Sequence[tuple[int, ...]]:
        """What the answer of each record begins with."""
        starts = [self.start_ids()] * len(memory)
        return beginnings.starts(self.config, self._heard(decoder, starts, memory)) if self._hears else starts

    @property
    def _hears(self) -> bool:
        """The language is not known before something is heard."""
        return self.config.language == beginnings.AUTO and not self.config.decoder_prompt

    def _heard(self, decoder: Decoder, starts: Sequence[Sequence[int]], memory: Sequence[Array]) -> list[int]:
        """The likeliest language of each record, by the logits behind the start token."""
        session = decoder.start([_ids(start) for start in starts], conditions=memory, room=0)
        logits: Any = session.logits
        logits = as_array(logits.float().cpu()) if hasattr(logits, "detach") else logits
        ids = numpy.array(sorted(self.config.languages.values()))
        found: list[int] = ids[logits[:, ids].argmax(-1)].tolist()
        session.close()
        return found

    def start_ids(self) -> tuple[int, ...]:
        """The tokens that every answer begins with; where the language is heard, those before it.

        Raises InputError for one that the tokenizer does not know.
        """
        if self._hears:
            return self.config.decoder_start_ids[:1]
        found = [(token, self.tokens().id_of(token)) for token in self.config.decoder_prompt]
        unknown = [token for token, number in found if number is None]
        if unknown:
            raise InputError(f"{self.runtime.node}.decoder_prompt: the tokenizer has no token {', '.join(map(repr, unknown))}")
        if given := tuple(number for _, number in found if number is not None):
            return given
        if self.config.decoder_start_ids:
            return beginnings.starts(self.config)[0]
        first = self.facts["start_id"]
        if first is None:
            raise InputError(f"{self.runtime.node}: {self.config.kind} names no decoder_start_token_id; set decoder_start_ids")
        return (int(first),)


def _ids(tokens: Sequence[int]) -> Array:
    """Tokens that an answer begins with, int64[tokens]."""
    return numpy.array(tokens, dtype=numpy.int64)
