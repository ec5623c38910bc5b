"""A decoder on exported graphs whose tokens look at media (gated cross-attention): their keys and values are made once per prompt.

media takes media float[batch media media_size], the vectors of all media of a record in a row, and gives of each block
media.key.i and media.value.i float[batch heads media d]. The decoder takes, beside what grouped.py or growing.py lists, these and
    seen    int64[batch tokens]  the number of the medium that each token sees, from 1; 0: none
    medium  int64[batch media]   the number of the medium that each vector belongs to
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from modelgraft.plugin import Array, Graph, Places
from modelgraft_plugins.llm.grouped import GroupedDecoder, GroupedSession
from modelgraft_plugins.llm.growing import AloneSession, GrowingDecoder, pick
from modelgraft_plugins.llm.holding import Held, Holding, holding_of, ids_of
from modelgraft_plugins.llm.memory import Memory
from modelgraft_plugins.llm.shown import Shown
from modelgraft_plugins.llm.sizes import Caches


class GatedGroupedDecoder(GroupedDecoder):
    """See GroupedDecoder; its conditions say what a prompt sees.

    What steps are bound to stays where it is, as the cache does: the media of a later session of the same sizes are written over these.
    """

    def __init__(self, graph: Graph, layout: Caches, embed: Callable[[Any], Any], *, media: Graph) -> None:
        """media: the graph of keys and values."""
        super().__init__(graph, layout, embed)
        self.media = media

    def session(self) -> GatedGroupedSession:
        """See GroupedDecoder."""
        return GatedGroupedSession(self)

    def alike(self, one: Shown, other: Shown, tokens: int) -> bool:
        """See Remembered: what was read while other media were shown is not what would be read now."""
        return one.is_like(other, tokens)


class GatedGroupedSession(GroupedSession):
    """See GroupedSession. `medium`, `seen` and the keys and values of media stand beside the cache."""

    decoder: GatedGroupedDecoder

    def _laid_out(self, batch: int, capacity: int, conditions: Shown) -> Memory:
        decoder, (_, images, latents) = self.decoder, conditions.media.shape[:3]
        vectors = images * latents
        memory = decoder.memory(batch, capacity, fits=lambda spare: spare.beside["medium"].shape[1] == vectors)
        holding = decoder.holding
        if not memory.beside:
            memory.beside = {
                **{name: holding.empty(shape, decoder.layout.dtype) for name, shape in room_for(decoder.media, batch, vectors).items()},
                "medium": holding.empty((batch, vectors), "int64"),
                "seen": holding.empty((batch, 1), "int64"),  # what new tokens see, per row
            }
        memory.beside["medium"][...] = holding.put(numbers_of(images, latents))
        memory.beside["seen"][...] = holding.put(conditions.new[:, None])
        with decoder.media.turn(conditions.media):
            look(decoder.media, conditions.media, memory.beside, holding)
        return memory

    def extend(self, prompt: Array, *, conditions: Shown, room: int, states: bool, places: Places | None = None) -> None:
        """See Continuable."""
        with self.decoder.graph.turn():
            self.memory.beside["seen"][...] = self.decoder.holding.put(conditions.new[:, None])
        super().extend(prompt, conditions=conditions, room=room, states=states, places=places)

    def _seen(self, start: int, longest: int, conditions: Shown) -> dict[str, Held]:
        """What the prompts see; padding sees nothing."""
        rows = [row[start:longest] for row in conditions.seen]
        seen = numpy.zeros((len(rows), max(map(len, rows))), dtype=numpy.int64)
        for whole, row in zip(seen, rows, strict=True):
            whole[: len(row)] = row
        return {"seen": self.decoder.holding.put(seen)}

    @property
    def looks(self) -> bool:
        """See LooksAhead; as in torch."""
        return False


class GatedGrowingDecoder(GrowingDecoder):
    """The same over a graph whose cache grows; rows are padded on the left, where nothing is seen."""

    def __init__(self, graph: Graph, layout: Caches, embed: Callable[[Any], Any], *, media: Graph) -> None:
        """See GatedGroupedDecoder."""
        super().__init__(graph, layout, embed)
        self.media = media

    def start(
        self,
        prompts: Sequence[Array],
        *,
        conditions: Shown | None = None,
        room: int,  # noqa: ARG002 it grows
        states: bool = False,  # noqa: ARG002 a graph that gives states gives them always
        places: Places | None = None,
    ) -> AloneSession:
        """See Decoder."""
        assert conditions is not None
        return GatedGrowingSession(self, prompts, conditions, places)

    def alike(self, one: Shown, other: Shown, tokens: int) -> bool:
        """See GatedGroupedDecoder.alike."""
        return one.is_like(other, tokens)


class GatedGrowingSession(AloneSession):
    """A session whose tokens see something."""

    def __init__(self, decoder: GatedGrowingDecoder, prompts: Sequence[Array], shown: Shown, places: Places | None = None) -> None:
        (batch, images, latents), graph = shown.media.shape[:3], decoder.graph
        holding = holding_of(graph)
        with graph.turn(shown.media):
            shapes = room_for(decoder.media, batch, images * latents)
            pairs = {name: holding.empty(shape, decoder.layout.dtype) for name, shape in shapes.items()}
            look(decoder.media, shown.media, pairs, holding)
            self.beside = {**pairs, "medium": holding.put(numpy.tile(numbers_of(images, latents), (batch, 1)))}
        longest = max(map(len, shown.seen))
        self.seen = numpy.stack([numpy.pad(row, (longest - len(row), 0)) for row in shown.seen])
        super().__init__(decoder, prompts, places)
        self.seen = shown.new[:, None]

    def run(self, given: Mapping[str, Any]) -> Any:
        """See GrowingSession."""
        return super().run({**given, "seen": self.seen, **self.beside})

    def extend(self, prompt: Array, *, conditions: Shown, room: int, states: bool, places: Places | None = None) -> None:
        """See Continuable."""
        self.seen = conditions.seen[0][None, -len(prompt) :]
        super().extend(prompt, conditions=conditions, room=room, states=states, places=places)
        self.seen = conditions.new[:, None]

    def reorder(self, rows: Any) -> None:
        """See Session."""
        super().reorder(rows)
        with self.graph.turn(rows):
            self.beside = pick(self.beside, rows, self.holding)
        self.seen = self.seen[ids_of(rows)]


def numbers_of(images: int, latents: int) -> Any:
    """Of so many vectors of each medium its number, int64[images * latents]."""
    return numpy.repeat(numpy.arange(1, images + 1), latents)


def room_for(media: Graph, batch: int, vectors: int) -> dict[str, tuple[int, ...]]:
    """The shapes of keys and values of so many vectors, by their names."""
    sizes = {slot.name: slot.axes for slot in media.outputs}
    return {name: (batch, int(heads), vectors, int(width)) for name, (_, heads, _, width) in sizes.items()}


def look(media: Graph, shown: Array, pairs: Mapping[str, Held], holding: Holding) -> None:
    """Make keys and values of media, float[batch images latents width], in the memory that there is for them."""
    vectors = holding.fed(shown.reshape(shown.shape[0], -1, shown.shape[-1]), media.inputs[0])
    media.bind({"media": vectors}, {each.name: pairs[each.name] for each in media.outputs}).run()
