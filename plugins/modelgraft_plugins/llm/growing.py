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

Memory is torch's, on the host as well; prompts that come as arrays are taken as tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from modelgraft.plugin import Array, Graph, InputError, Places, as_tensor
from modelgraft_plugins.llm.memory import sizes_of
from modelgraft_plugins.llm.sizes import Caches
from modelgraft_plugins.llm.standing import Standing, alike, laid


class GrowingSession:
    """What was read: see modelgraft.plugin.Session. Subclasses say what a graph takes beside the past."""

    logits: Tensor
    states: Tensor | None = None

    def __init__(self, graph: Graph, layout: Caches, batch: int) -> None:
        self.graph, self.layout = graph, layout
        empty = torch.empty(batch, layout.kv_heads, 0, layout.head_width, dtype=layout.in_torch, device=graph.device)
        self.past = {slot.name: empty for slot in graph.inputs if slot.name.startswith("past.")}

    @property
    def bytes(self) -> int:
        """See Continuable."""
        return sum(tensor.nbytes for tensor in self.past.values())

    @property
    def device(self) -> str:
        """See Continuable."""
        return self.graph.device

    @property
    def length(self) -> int:
        """How many positions are read."""
        return next(iter(self.past.values())).shape[2]

    def run(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Read some tokens; gives the logits."""
        with self.graph.turn(*tensors.values()):
            made = self._run({**tensors, **self.past})
        self.graph.hand_over(made)
        return self.logits

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        with self.graph.turn(rows):
            self.past = pick(self.past, rows)

    def fork(self, rows: Tensor) -> Self:
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
                self.past = {name: tensor[:, :, : tensor.shape[2] - tokens].contiguous() for name, tensor in self.past.items()}

    def close(self) -> None:
        """See Session."""
        self.past = {}

    def discard(self) -> None:
        """See Continuable."""
        self.close()

    def _run(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        graph, layout = self.graph, self.layout
        kept = {slot.name: given[slot.name].to(slot.device, getattr(torch, slot.dtype)).contiguous() for slot in graph.inputs}
        batch, places = len(next(iter(kept.values()))), kept["places"].shape[1] if "places" in kept else 1
        outputs: dict[str, Tensor | None] = {
            slot.name: None
            if slot.name.startswith("present.")
            else torch.empty(batch, *sizes_of(slot.axes, places), dtype=layout.in_torch, device=graph.device)
            for slot in graph.outputs
        }
        bound = graph.bind(kept, outputs)
        bound.run()
        self.past = {name.replace("present.", "past.", 1): tensor for name, tensor in bound.made().items()}
        made = {name: tensor for name, tensor in outputs.items() if tensor is not None}
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
    """A session of a decoder alone."""

    def __init__(
        self, decoder: GrowingDecoder, prompts: Sequence[Array], places: Places | None = None, standings: Sequence[Standing] | None = None
    ) -> None:
        super().__init__(decoder.graph, decoder.layout, len(prompts))
        self.embed = decoder.embed
        embeds, self.mask = padded(prompts, self.layout, left=True)
        offsets = [embeds.shape[1] - len(prompt) for prompt in prompts]
        self.ahead = torch.zeros(len(prompts), dtype=torch.int64)  # how far tokens stand before their number
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.blocks = self._blocks(standings)
        self._read(embeds, self._stood(positions, standings, offsets), places, offsets)

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        self._grow(1)
        embeds, positions = as_tensor(self.embed(tokens.cpu())), (self.mask.sum(-1) - 1 + self.ahead)[:, None]
        return self._read(embeds[:, None], self._stood(positions, None, ()))

    def extend(self, prompt: Array, *, conditions: Any, room: int, states: bool, places: Places | None = None) -> None:  # noqa: ARG002 it grows
        """See Continuable."""
        start = self.length
        self._grow(len(prompt))
        positions = torch.arange(start, start + len(prompt))[None]
        self.ahead = torch.zeros(1, dtype=torch.int64)
        self._read(as_tensor(prompt)[None], self._stood(positions, conditions, [0]), places, [-start])

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        self.mask, self.blocks, self.ahead = self.mask[rows.cpu()], self.blocks[rows.cpu()], self.ahead[rows.cpu()]
        super().reorder(rows)

    def rewind(self, tokens: int) -> None:
        """See Session."""
        super().rewind(tokens)
        self.mask, self.blocks = (told[:, : told.shape[1] - tokens] for told in (self.mask, self.blocks))

    def _grow(self, tokens: int) -> None:
        """Make room for so many words in each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), tokens)], dim=1)
        self.blocks = torch.cat([self.blocks, self.blocks.new_full((len(self.blocks), tokens), -1)], dim=1)

    def _blocks(self, standings: Sequence[Standing] | None) -> Tensor:
        """int64[batch tokens]: which tokens of the prompts see each other, those of one number; -1: words, and what fills up."""
        if self.layout.reads == "both":
            return self.mask - 1
        blocks = torch.full_like(self.mask, -1)
        for row, standing in zip(blocks, standings or (), strict=False):
            row[len(row) - len(standing.blocks) :] = standing.blocks
        return blocks

    def _stood(self, positions: Tensor, standings: Sequence[Standing] | None, offsets: Sequence[int]) -> Tensor:
        """Where tokens stand, as the graph takes it. positions: int64[batch tokens], the last ones of as many as the mask has."""
        axes = self.layout.axes
        if axes and standings is not None:
            self.ahead = torch.tensor([standing.behind - len(standing.axes) for standing in standings])
            return laid(standings, self.mask.shape[1], offsets=offsets)[:, -positions.shape[1] :].contiguous()
        return positions[..., None].repeat(1, 1, axes) if axes else positions

    def _read(self, embeds: Tensor, positions: Tensor, places: Places | None = None, offsets: Sequence[int] | None = None) -> Tensor:
        looked = places or Places([()] * len(embeds))  # which are none: the last position alone
        index = looked.index([embeds.shape[1] - 1] * len(embeds), torch.device("cpu"), offsets=offsets)
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
        prompts: Sequence[Tensor],
        *,
        conditions: Sequence[Array] | None = None,
        room: int,  # noqa: ARG002 it grows
        states: bool = False,  # noqa: ARG002 the graph decides
        places: Places | None = None,
    ) -> CrossingSession:
        """See Decoder; its prompts are the beginnings of answers, in which nobody looks for places."""
        assert places is None
        assert conditions is not None
        memory, mask = padded(conditions, self.layout, left=False)
        encoder, crossing = self.graphs.get("encoder"), self.graphs["crossing"]
        if encoder is not None:
            feed = {"inputs_embeds": memory, "attention_mask": mask}
            memory = as_tensor(*encoder(*(feed[slot.name] for slot in encoder.inputs)))
        cross = dict(zip((slot.name for slot in crossing.outputs), map(as_tensor, crossing(memory)), strict=True))
        return CrossingSession(self, prompts, cross, mask)


class CrossingSession(GrowingSession):
    """A session beside a memory."""

    def __init__(self, decoder: CrossingDecoder, prompts: Sequence[Tensor], cross: Mapping[str, Tensor], mask: Tensor) -> None:
        super().__init__(decoder.graphs["decoder"], decoder.layout, len(prompts))
        self.cross, self.mask = cross, mask
        self._read(torch.stack(list(prompts)))

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        return self._read(tokens[:, None])

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        self.mask, self.cross = self.mask[rows.cpu()], pick(self.cross, rows)
        super().reorder(rows)

    def _read(self, ids: Tensor) -> Tensor:
        return self.run({"decoder_input_ids": ids, "attention_mask": self.mask, **self.cross})


def pick(held: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Rows of tensors, in memory of torch's."""
    return {name: tensor.index_select(0, rows.to(tensor.device)) for name, tensor in held.items()}


def padded(prompts: Sequence[Array], layout: Caches, *, left: bool) -> tuple[Tensor, Tensor]:
    """Stack prompts, float[tokens width] each: float[batch longest width], and int64[batch longest] that is 1 where one stands."""
    longest = max(map(len, prompts))
    whole = torch.zeros(len(prompts), longest, layout.width, dtype=layout.in_torch)
    mask = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), longest) if left else slice(0, len(prompt))
        whole[row, place], mask[row, place] = as_tensor(prompt), 1
    return whole, mask
