"""Decoders on exported graphs whose cache grows: for attention that GroupQueryAttention cannot express, and for encoder-decoders.

Each call takes the past as inputs and gives the longer present as outputs, whose memory is the graph's and which is handed on as it
lies. Sizes change with every token, so such steps are never replayed.
Decoder alone:     inputs_embeds float[batch tokens width], attention_mask int64[batch past+tokens],
                   position_ids int64[batch tokens], or int64[batch tokens axes],
                   blocks int64[batch past+tokens] where tokens of one block see each other, -1: of none,
                   places int64[batch places] where hidden states are wanted,
                   past.key.i, past.value.i float[batch heads past d]  ->  logits float[batch vocab], present.*
Encoder-decoder:   encoder: inputs_embeds, attention_mask  ->  memory float[batch frames width]
                   crossing: memory  ->  cross.key.i, cross.value.i, once per prompt
                   decoder: decoder_input_ids int64[batch tokens], attention_mask int64[batch frames], cross.*, past.*
                   ->  logits, present.*
A graph that was traced for them gives states as well: float[batch layers places width], beside a memory float[batch layers width] of the
last position.

On the host all of this lies in arrays of numpy, which is what sessions give there; on a device in tensors of torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy

from modelgraft.plugin import Array, Graph, InputError, Places, as_array
from modelgraft_plugins.llm.embedded import spliced
from modelgraft_plugins.llm.holding import Held, Holding, holding_of, ids_of
from modelgraft_plugins.llm.memory import sizes_of
from modelgraft_plugins.llm.sizes import Caches
from modelgraft_plugins.llm.standing import Standing, alike, laid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Whole = NDArray[numpy.int64]


class GrowingSession:
    """What was read: see modelgraft.plugin.Session. Subclasses say what a graph takes beside the past."""

    logits: Any
    states: Any = None

    def __init__(self, graph: Graph, layout: Caches, batch: int) -> None:
        self.graph, self.layout, self.holding = graph, layout, holding_of(graph)
        empty = self.holding.empty((batch, layout.kv_heads, 0, layout.head_width), layout.dtype)
        self.past: dict[str, Held] = {slot.name: empty for slot in graph.inputs if slot.name.startswith("past.")}

    @property
    def bytes(self) -> int:
        """See Continuable."""
        return sum(held.nbytes for held in self.past.values())

    @property
    def device(self) -> str:
        """See Continuable."""
        return self.graph.device

    @property
    def length(self) -> int:
        """How many positions are read."""
        return int(next(iter(self.past.values())).shape[2])

    def run(self, given: Mapping[str, Any]) -> Any:
        """Read some tokens; gives the logits."""
        with self.graph.turn(*given.values()):
            made = self._run({**given, **self.past})
        self.graph.hand_over(made)
        return self.logits

    def reorder(self, rows: Any) -> None:
        """See Session."""
        with self.graph.turn(rows):
            self.past = pick(self.past, rows, self.holding)

    def fork(self, rows: Any) -> Self:
        """See Session."""
        other = copy.copy(self)
        other.reorder(rows)
        return other

    def rewind(self, tokens: int) -> None:
        """See Session."""
        if tokens > self.length:
            raise InputError(f"{tokens} tokens cannot be taken back of {self.length} that were read")
        if tokens:
            with self.graph.turn():
                self.past = {name: self.holding.taken(held[:, :, : held.shape[2] - tokens]) for name, held in self.past.items()}

    def close(self) -> None:
        """See Session."""
        self.past = {}

    def discard(self) -> None:
        """See Continuable."""
        self.close()

    def _run(self, given: Mapping[str, Any]) -> list[Held]:
        graph, layout, holding = self.graph, self.layout, self.holding
        kept = {slot.name: holding.fed(given[slot.name], slot) for slot in graph.inputs}
        batch, places = len(next(iter(kept.values()))), kept["places"].shape[1] if "places" in kept else 1
        outputs: dict[str, Held | None] = {
            slot.name: None if slot.name.startswith("present.") else holding.empty((batch, *sizes_of(slot.axes, places)), layout.dtype)
            for slot in graph.outputs
        }
        bound = graph.bind(kept, outputs)
        bound.run()
        self.past = {name.replace("present.", "past.", 1): held for name, held in bound.made().items()}
        made = {name: held for name, held in outputs.items() if held is not None}
        self.logits, self.states = made["logits"], made.get("states")
        return list(made.values())


class GrowingDecoder:
    """See modelgraft.plugin.Decoder. Rows are padded on the left and masked."""

    def __init__(self, graph: Graph, layout: Caches, embed: Callable[[Any], Any]) -> None:
        """embed: as for GroupedDecoder."""
        self.graph, self.layout, self.embed = graph, layout, embed

    def start(
        self,
        prompts: Sequence[Array],
        *,
        conditions: Any = None,
        room: int,  # noqa: ARG002 it grows
        states: bool = False,  # noqa: ARG002 a graph that gives states gives them always
        places: Places | None = None,
    ) -> AloneSession:
        """See Decoder."""
        return AloneSession(self, prompts, places, conditions)

    def alike(self, one: Any, other: Any, tokens: int) -> bool:
        """See Remembered; its conditions say where tokens stand."""
        return alike(one, other, tokens)


class AloneSession(GrowingSession):
    """A session of a decoder alone. What says which tokens there are, and where, stays on the host."""

    def __init__(
        self, decoder: GrowingDecoder, prompts: Sequence[Array], places: Places | None = None, standings: Sequence[Standing] | None = None
    ) -> None:
        super().__init__(decoder.graph, decoder.layout, len(prompts))
        self.embed = decoder.embed
        embeds, self.mask = padded(prompts, self.layout, self.holding, left=True)
        offsets = [embeds.shape[1] - len(prompt) for prompt in prompts]
        self.ahead = numpy.zeros(len(prompts), numpy.int64)  # how far tokens stand before their number
        positions = (self.mask.cumsum(-1) - 1).clip(min=0)
        self.blocks = self._blocks(standings)
        self._read(embeds, self._stood(positions, standings, offsets), places, offsets)

    def step(self, tokens: Any) -> Any:
        """See Session."""
        self._grow(1)
        embeds, positions = self._embedded(ids_of(tokens)), (self.mask.sum(-1) - 1 + self.ahead)[:, None]
        return self._read(embeds[:, None], self._stood(positions, None, ()))

    def step_ids(self, tokens: Sequence[int]) -> Any:
        """See ReadsIds; on the host."""
        return self.step(tokens)

    def extend(self, prompt: Array, *, conditions: Any, room: int, states: bool, places: Places | None = None) -> None:  # noqa: ARG002 it grows
        """See Continuable."""
        start = self.length
        self._grow(len(prompt))
        positions = numpy.arange(start, start + len(prompt))[None]
        self.ahead = numpy.zeros(1, numpy.int64)
        self._read(prompt[None], self._stood(positions, conditions, [0]), places, [-start])

    def reorder(self, rows: Any) -> None:
        """See Session."""
        numbers = ids_of(rows)
        self.mask, self.blocks, self.ahead = self.mask[numbers], self.blocks[numbers], self.ahead[numbers]
        super().reorder(rows)

    def rewind(self, tokens: int) -> None:
        """See Session."""
        super().rewind(tokens)
        self.mask, self.blocks = (told[:, : told.shape[1] - tokens] for told in (self.mask, self.blocks))

    def _embedded(self, ids: Sequence[int]) -> Array:
        """The input embeddings of one token per row, float[batch width]."""
        return spliced(self.embed, ids, None, (), device="cpu")

    def _grow(self, tokens: int) -> None:
        """Make room for so many words in each row."""
        shape = len(self.mask), tokens
        self.mask = numpy.concatenate([self.mask, numpy.ones(shape, numpy.int64)], axis=1)
        self.blocks = numpy.concatenate([self.blocks, numpy.full(shape, -1, numpy.int64)], axis=1)

    def _blocks(self, standings: Sequence[Standing] | None) -> Whole:
        """int64[batch tokens]: which tokens of the prompts see each other, those of one number; -1: words, and what fills up."""
        if self.layout.reads == "both":
            return self.mask - 1
        blocks = numpy.full_like(self.mask, -1)
        for row, standing in zip(blocks, standings or (), strict=False):
            row[len(row) - len(standing.blocks) :] = as_array(standing.blocks)
        return blocks

    def _stood(self, positions: Whole, standings: Sequence[Standing] | None, offsets: Sequence[int]) -> Any:
        """Where tokens stand, as the graph takes it. positions: int64[batch tokens], the last ones of as many as the mask has."""
        axes = self.layout.axes
        if axes and standings is not None:
            self.ahead = numpy.array([standing.behind - len(standing.axes) for standing in standings])
            return laid(standings, self.mask.shape[1], offsets=offsets)[:, -positions.shape[1] :]
        return numpy.repeat(positions[..., None], axes, axis=-1) if axes else positions

    def _read(self, embeds: Array, positions: Any, places: Places | None = None, offsets: Sequence[int] | None = None) -> Any:
        looked = places or Places([()] * len(embeds))  # which are none: the last position alone
        index = numpy.array(looked.numbers([embeds.shape[1] - 1] * len(embeds), offsets=offsets), dtype=numpy.int64)
        told = {"attention_mask": self.mask, "position_ids": positions, "blocks": self.blocks, "places": index}
        logits = self.run({"inputs_embeds": embeds, **told})
        if self.states is not None:
            self.states = self.states[:, :, -1] if places is None else places.take(self.states)
        return logits


class CrossingDecoder:
    """A decoder that attends to a memory: what an encoder makes of its conditions, or the conditions themselves. See CrossDecoder."""

    def __init__(self, graphs: Mapping[str, Graph], layout: Caches) -> None:
        """graphs: "decoder", "crossing" and, where conditions are encoded here, "encoder"."""
        self.graphs, self.layout = graphs, layout

    def start(
        self,
        prompts: Sequence[Array],
        *,
        conditions: Sequence[Array] | None = None,
        room: int,  # noqa: ARG002 it grows
        states: bool = False,  # noqa: ARG002 the graph decides
        places: Places | None = None,
    ) -> CrossingSession:
        """See Decoder; its prompts are the beginnings of answers, in which nobody looks for places."""
        assert places is None
        assert conditions is not None
        encoder, crossing = self.graphs.get("encoder"), self.graphs["crossing"]
        memory, mask = padded(conditions, self.layout, holding_of(crossing), left=False)
        if encoder is not None:
            feed = {"inputs_embeds": memory, "attention_mask": mask}
            (memory,) = encoder(*(feed[slot.name] for slot in encoder.inputs))
        cross = dict(zip((slot.name for slot in crossing.outputs), crossing(memory), strict=True))
        return CrossingSession(self, prompts, cross, mask)


class CrossingSession(GrowingSession):
    """A session beside a memory."""

    def __init__(self, decoder: CrossingDecoder, prompts: Sequence[Array], cross: Mapping[str, Held], mask: Whole) -> None:
        super().__init__(decoder.graphs["decoder"], decoder.layout, len(prompts))
        self.cross, self.mask = cross, mask
        self._read([ids_of(prompt) for prompt in prompts])

    def step(self, tokens: Any) -> Any:
        """See Session."""
        return self._read([[token] for token in ids_of(tokens)])

    def step_ids(self, tokens: Sequence[int]) -> Any:
        """See ReadsIds; on the host."""
        return self.step(tokens)

    def reorder(self, rows: Any) -> None:
        """See Session."""
        self.mask, self.cross = self.mask[ids_of(rows)], pick(self.cross, rows, self.holding)
        super().reorder(rows)

    def _read(self, ids: Sequence[Sequence[int]]) -> Any:
        told = {"decoder_input_ids": numpy.array(ids, dtype=numpy.int64), "attention_mask": self.mask}
        return self.run({**told, **self.cross})


def pick(held: Mapping[str, Held], rows: Any, holding: Holding) -> dict[str, Held]:
    """Rows of what is held, in memory of their own."""
    numbers = ids_of(rows)
    return {name: holding.rows(one, numbers) for name, one in held.items()}


def padded(prompts: Sequence[Array], layout: Caches, holding: Holding, *, left: bool) -> tuple[Held, Whole]:
    """Stack prompts, float[tokens width] each: float[batch longest width], and int64[batch longest] that is 1 where one stands."""
    longest = max(map(len, prompts))
    whole = holding.zeros((len(prompts), longest, layout.width), layout.dtype)
    mask = numpy.zeros((len(prompts), longest), dtype=numpy.int64)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), longest) if left else slice(0, len(prompt))
        whole[row, place], mask[row, place] = holding.taken(prompt), 1
    return whole, mask
