"""A decoder on an exported graph that reads prompts and writes tokens, its cache updated in place.

The graph takes, for a batch of right-padded rows,
    inputs_embeds  float[batch tokens width]     position_ids  int64[batch tokens], or int64[batch tokens axes]
    seqlens_k      int32[batch]                  tokens that each row holds after this call, minus one
    total          int32[1], on the host         the longest of them
    last           int64[batch read]             positions of each row that the head reads; int64[batch]: one
    past.key.i, past.value.i  float[batch kv_heads capacity head_width]
    places         int64[batch places]           of a graph that was traced for states: where they are given
    deep           float[batch tokens layers width]  of a model whose first layers hear inner layers of an eye: what is added to each token
and gives logits float[batch read vocab], or float[batch vocab], and present.key.i, present.value.i, which are bound to the memory of the
past: the GroupQueryAttention operator then writes new keys and values where they belong and copies nothing. A graph that was traced for
them gives states float[batch layers places width] as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import Bound, Graph, InputError, Places
from modelgraft_plugins.llm.looking import Look
from modelgraft_plugins.llm.memory import Memory, sizes_of
from modelgraft_plugins.llm.reading import PIECE, by_pieces
from modelgraft_plugins.llm.sizes import Caches
from modelgraft_plugins.llm.standing import alike, laid, laid_deep
from modelgraft_plugins.llm.stepping import DecodeStep, Lookup

ROUND = 64  # capacities are multiples of this, so that runs of nearly the same length use the same memory


class GroupedDecoder:
    """A decoder over such a graph: see modelgraft.plugin.Decoder. Rows are padded on the right.

    The memory of a session that was closed serves the next one that fits into it, with all that is bound to it.
    """

    def __init__(self, graph: Graph, layout: Caches, embed: Callable[[Tensor], Tensor]) -> None:
        """embed: int64[n] -> float[n width], the model's input embeddings on the host; see `Lookup` for what makes it fast.

        Raises InputError for a float32 graph on CUDA, where the operator takes half precision only.
        """
        if graph.device.type != "cpu" and layout.dtype is torch.float32:
            raise InputError(
                f"this decoder is float32, and onnxruntime's GroupQueryAttention takes float16 on {graph.device}: "
                f"run the node with precision float16, or on device cpu"
            )
        self.graph, self.layout, self.embed, self.device = graph, layout, embed, graph.device
        self.lookup = Lookup(embed, layout.dtype, self.device, by_numpy=not graph.is_ordered)
        self.names = [f"{kind}.{layer}" for layer in range(layout.layers) for kind in ("key", "value")]
        self.sizes = {slot.name: slot.axes for slot in graph.outputs if not slot.name.startswith("present.")}
        self.gives_states = "states" in self.sizes
        self.reads_several = any(slot.name == "last" and len(slot.axes) > 1 for slot in graph.inputs)  # positions of a row, by the head
        self.captures = True  # until a step turns out not to be replayed
        self.spare: Memory | None = None

    def start(
        self,
        prompts: Sequence[Tensor],
        *,
        conditions: Any = None,
        room: int,
        states: bool = False,  # noqa: ARG002 a graph that gives states gives them always
        places: Places | None = None,
    ) -> GroupedSession:
        """See Decoder."""
        session = self.session()
        session.begin(prompts, conditions, room=room, places=places)
        return session

    def session(self) -> GroupedSession:
        """One that has read nothing."""
        return GroupedSession(self)

    def alike(self, one: Any, other: Any, tokens: int) -> bool:
        """See Remembered; its conditions say where tokens stand."""
        return alike(one, other, tokens)

    def _refuse_longer(self, tokens: int) -> None:
        """Raise InputError for more tokens than the graph has positions for: its operator would read beyond the table of their angles."""
        most = self.layout.most
        if most and tokens > most + 1:  # the last token that is written is not read
            found = f"{tokens:,} tokens were to be read and written, and this export tells {most:,} positions apart"
            raise InputError(f"{found}: shorten the prompt or the answer, or set max_position_embeddings to what the model was trained for")

    def memory(self, batch: int, capacity: int, *, fits: Callable[[Memory], bool] = lambda _: True) -> Memory:
        """Memory for so many rows and tokens: what is spare where it fits, else new. Raises InputError when there is not enough."""
        self._refuse_longer(capacity)
        capacity = -(-capacity // ROUND) * ROUND
        spare, self.spare = self.spare, None
        if spare is not None:
            if len(spare.cache[0]) == batch and capacity <= spare.capacity <= 2 * capacity and fits(spare):
                return spare
            self.drop(spare)
            spare = None  # the old memory is free before the new is taken
        shape = (batch, self.layout.kv_heads, capacity, self.layout.head_width)
        try:
            cache = [torch.zeros(shape, dtype=self.layout.dtype, device=self.device) for _ in self.names]
        except (RuntimeError, MemoryError) as error:  # torch has no class of its own for the memory of the host
            size = self.layout.cache_bytes(batch, capacity) / 2**30
            found = f"the cache of {batch} rows of {capacity:,} tokens takes {size:,.1f} GiB, and {self.device} has no room for it"
            raise InputError(f"{found}: take fewer records at once, a shorter prompt, or a smaller max_new_tokens") from error
        outputs = {
            name: torch.empty(batch, *sizes_of(axes, 1), dtype=self.layout.dtype, device=self.device) for name, axes in self.sizes.items()
        }
        return Memory(cache, min(capacity, self.layout.most or capacity), outputs)

    def take_back(self, memory: Memory) -> None:
        """Keep the memory of a session that was closed for the next."""
        spare, self.spare = self.spare, memory
        if spare is not None:
            self.drop(spare)

    def drop(self, memory: Memory) -> None:
        """Let go of what is bound to memory that is about to go."""
        if memory.one is not None and memory.one.release() is False:
            self.captures = False
        memory.one, memory.looks = None, {}

    def last(self, places: Tensor) -> Tensor:
        """One position of each row, int64[batch], as the graph takes it."""
        return places[:, None] if self.reads_several else places

    def bind(self, memory: Memory, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor] | None = None) -> Bound:
        """Bind memory, these inputs, and outputs that are not written into the memory."""
        given, made = {**memory.beside, **inputs}, dict[str, Tensor | None]({**memory.outputs, **(outputs or {})})
        for name, slab in zip(self.names, memory.cache, strict=True):
            given[f"past.{name}"] = made[f"present.{name}"] = slab
        return self.graph.bind(given, made)


class GroupedSession:
    """What was read: see modelgraft.plugin.Session."""

    def __init__(self, decoder: GroupedDecoder) -> None:
        self.decoder = decoder
        self.held: Memory | None = None  # what it is bound to; None once it is closed
        self.lengths: list[int] = []  # tokens of each row when the last prompt or reordering was over
        self.longest = 0  # tokens in the longest row now
        self.ahead: list[int] = []  # how far the tokens of each row stand before their number: pictures take less room than tokens

    @property
    def memory(self) -> Memory:
        """What it is bound to. Raises InputError when it is closed."""
        if self.held is None:
            raise InputError("this session is closed, and its memory may be another's: start a new one")
        return self.held

    @property
    def logits(self) -> Tensor:
        """See Session."""
        return self.memory.logits

    @property
    def states(self) -> Tensor | None:
        """See Session."""
        found = self.memory.outputs.get("states")
        return None if found is None else found[:, :, 0]

    @property
    def bytes(self) -> int:
        """See Continuable."""
        return self.memory.bytes

    @property
    def device(self) -> torch.device:
        """See Continuable."""
        return self.decoder.device

    def begin(self, prompts: Sequence[Tensor], conditions: Any, *, room: int, places: Places | None = None) -> None:
        """Read the prompts, as `Decoder.start` does."""
        graph, longest = self.decoder.graph, max(map(len, prompts))
        with graph.turn(*prompts):
            self.held = self._laid_out(len(prompts), longest + max(room, 1), conditions)
            self.read(prompts, 0, conditions, places)
        graph.hand_over(list(self.held.outputs.values()))

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        graph = self.decoder.graph
        if not graph.is_ordered:
            return self.step_ids(tokens.tolist())
        with graph.turn(tokens):
            return self._step(tokens)

    def step_ids(self, tokens: Sequence[int]) -> Tensor:
        """See ReadsIds; on the host."""
        return self._step(tokens)

    def _step(self, tokens: Tensor | Sequence[int]) -> Tensor:
        """Read one more token per row: numbers, or on a device a tensor there."""
        memory = self.memory
        if self.longest >= memory.capacity or len(tokens) != len(self.lengths):
            raise self._refusal(len(tokens))  # the operator does not look, and would write beyond the end of the cache
        if memory.one is None:
            memory.one = self._bind_step(memory)
        memory.one.run(tokens)
        self.longest += 1
        return memory.logits

    @property
    def looks(self) -> bool:
        """See LooksAhead; the operator reads several tokens behind a cache of one row alone."""
        return self.decoder.reads_several and len(self.lengths) == 1

    def look(self, tokens: Tensor) -> Tensor:
        """See LooksAhead."""
        memory, count = self.memory, tokens.shape[1]
        if self.longest + count > memory.capacity or len(tokens) != len(self.lengths):
            raise self._refusal(len(tokens))
        graph, beside = self.decoder.graph, self._seen_on(count)
        steps = self.longest - max(self.lengths)
        with graph.turn(tokens):
            if count not in memory.looks:
                memory.looks[count] = Look(self.decoder, memory, batch=len(tokens), count=count, beside=beside)
            logits = memory.looks[count].run(tokens, [length + steps for length in self.lengths], self.ahead, beside)
        graph.hand_over([logits])
        self.longest += count
        self.start_again()
        return logits

    def _seen_on(self, count: int) -> dict[str, Tensor]:
        """Further inputs of so many new tokens."""
        return self._silence(len(self.lengths), count)

    def extend(self, prompt: Tensor, *, conditions: Any, room: int, states: bool, places: Places | None = None) -> None:  # noqa: ARG002 the graph decides
        """See Continuable."""
        start = self.longest
        with self.decoder.graph.turn(prompt):
            if start + len(prompt) + max(room, 1) > self.memory.capacity:
                self._grow(start + len(prompt) + max(room, 1))
            self.read([prompt], start, conditions, places)
        self.decoder.graph.hand_over(list(self.memory.outputs.values()))

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        memory, decoder = self.memory, self.decoder
        self._follow(rows)
        with decoder.graph.turn(rows):
            picked = rows.to(decoder.device)
            if len(rows) == len(memory.cache[0]):
                for tensor in (*memory.cache, *memory.beside.values()):
                    tensor.copy_(tensor.index_select(0, picked))
                self.start_again()
            else:
                self.held = memory.picked(picked)
                decoder.drop(memory)

    def fork(self, rows: Tensor) -> GroupedSession:
        """See Session."""
        other = self.decoder.session()
        other.lengths, other.longest, other.ahead = list(self.lengths), self.longest, list(self.ahead)
        other._follow(rows)
        with self.decoder.graph.turn(rows):
            other.held = self.memory.picked(rows.to(self.decoder.device))
        return other

    def rewind(self, tokens: int) -> None:
        """See Session."""
        steps = self.longest - max(self.lengths)
        if tokens >= min(self.lengths) + steps:
            raise InputError(f"{tokens} tokens cannot be taken back of {min(self.lengths) + steps} that were read; the first stays")
        if tokens:
            self.lengths = [length + steps - tokens for length in self.lengths]
            self.longest -= tokens
            self.start_again()

    def close(self) -> None:
        """See Session."""
        if self.held is not None:
            self.decoder.take_back(self.held)
            self.held = None

    def discard(self) -> None:
        """See Continuable."""
        if self.held is not None:
            self.decoder.drop(self.held)
            self.held = None

    def _laid_out(self, batch: int, capacity: int, conditions: Any) -> Memory:  # noqa: ARG002 there are none
        """Memory for the prompts, with what they look at."""
        return self.decoder.memory(batch, capacity)

    def _seen(self, start: int, longest: int, conditions: Any) -> dict[str, Tensor]:
        """Further inputs of the positions of prompts from `start` on."""
        layout, batch = self.decoder.layout, len(self.lengths)
        if not layout.deep:
            return {}
        found = torch.zeros(batch, longest - start, layout.deep, layout.width, dtype=layout.dtype, device=self.decoder.device)
        return {"deep": laid_deep(conditions, found, offsets=[-start] * batch)}

    def read(self, prompts: Sequence[Tensor], start: int, conditions: Any = None, places: Places | None = None) -> None:
        """Read prompts, of a single row those behind what the cache holds."""
        decoder, lengths, batch = self.decoder, [start + len(prompt) for prompt in prompts], len(prompts)
        self.lengths, self.longest = lengths, (longest := max(lengths))
        if longest - start > PIECE and conditions is None and places is None and not decoder.graph.is_ordered:
            by_pieces(self, prompts, start)
            return
        held = torch.tensor(lengths)
        inputs = {
            "inputs_embeds": self._padded(prompts, longest - start),
            "position_ids": self._positions(batch, start, longest, conditions),
            "seqlens_k": (held - 1).to(decoder.device, torch.int32),
            "total": torch.tensor([longest], dtype=torch.int32),
            "last": decoder.last((held - 1 - start).to(decoder.device)),
            **self._seen(start, longest, conditions),
        }
        if decoder.gives_states:
            last = [length - 1 - start for length in lengths]
            inputs["places"] = (places or Places([()] * batch)).index(last, decoder.device, offsets=[-start] * batch)
        if places is None:
            decoder.bind(self.memory, inputs).run()
        else:
            self._read_places(inputs, places)
        self.start_again()

    def _positions(self, batch: int, start: int, longest: int, conditions: Any) -> Tensor:
        """Where the tokens from `start` on stand, as the graph takes it."""
        axes, device = self.decoder.layout.axes, self.decoder.device
        self.ahead = [0] * batch
        if axes and conditions is not None:
            self.ahead = [standing.behind - len(standing.axes) for standing in conditions]
            return laid(conditions, longest, offsets=[0] * batch)[:, start:].contiguous().to(device)
        shape = (batch, longest - start, axes) if axes else (batch, longest - start)
        places = torch.arange(start, longest, device=device)
        return (places[:, None] if axes else places).expand(shape).contiguous()

    def _read_places(self, inputs: Mapping[str, Tensor], places: Places) -> None:
        """Read prompts, and note the states of some places: they are written where only this call needs them."""
        decoder, kept = self.decoder, self.memory.outputs["states"]
        batch, count = inputs["places"].shape
        states = kept.new_empty(batch, kept.shape[1], count, kept.shape[3])
        decoder.bind(self.memory, inputs, {"states": states}).run()
        kept[:, :, 0] = places.take(states)

    def _padded(self, prompts: Sequence[Tensor], longest: int) -> Tensor:
        layout = self.decoder.layout
        embeds = torch.zeros(len(prompts), longest, layout.width, dtype=layout.dtype, device=self.decoder.device)
        for row, prompt in enumerate(prompts):
            embeds[row, : len(prompt)] = prompt
        return embeds

    def _follow(self, rows: Tensor) -> None:
        """Count as the rows do that take the place of these."""
        steps = self.longest - max(self.lengths)
        self.lengths = [self.lengths[row] + steps for row in rows.tolist()]
        self.ahead = [self.ahead[row] for row in rows.tolist()]
        self.longest = max(self.lengths)

    def _grow(self, capacity: int) -> None:
        """Move to memory with more room."""
        old = self.memory
        new = self.decoder.memory(len(old.cache[0]), capacity, fits=lambda _: not old.beside)
        for slab, held in zip(new.cache, old.cache, strict=True):
            slab[:, :, : self.longest] = held[:, :, : self.longest]
        new.beside = old.beside
        self.decoder.drop(old)
        self.held = new

    def start_again(self) -> None:
        """Let the step go on from other lengths."""
        one = self.memory.one
        if one is not None:
            steps = self.longest - max(self.lengths)
            one.start([length + steps for length in self.lengths], self.ahead)

    def _bind_step(self, memory: Memory) -> DecodeStep:
        decoder, batch, kind = self.decoder, len(self.lengths), self.decoder.device
        inputs = {
            "inputs_embeds": torch.empty(batch, 1, decoder.layout.width, dtype=decoder.layout.dtype, device=kind),
            "position_ids": torch.empty(batch, 1, *([axes] if (axes := decoder.layout.axes) else []), dtype=torch.int64, device=kind),
            "seqlens_k": torch.empty(batch, dtype=torch.int32, device=kind),
            "total": torch.empty(1, dtype=torch.int32),
            "last": decoder.last(torch.zeros(batch, dtype=torch.int64, device=kind)),
            **({"places": torch.zeros(batch, 1, dtype=torch.int64, device=kind)} if decoder.gives_states else {}),
            **self._silence(batch),
        }
        bound = decoder.bind(memory, inputs)
        step = DecodeStep(
            decoder.graph,
            bound,
            inputs,
            memory.logits,
            capacity=memory.capacity,
            lookup=decoder.lookup,
            captures=decoder.captures,
        )
        step.start([length + self.longest - max(self.lengths) for length in self.lengths], self.ahead)
        return step

    def _silence(self, batch: int, count: int = 1) -> dict[str, Tensor]:
        """What so many new tokens hear: nothing."""
        layout = self.decoder.layout
        shape = (batch, count, layout.deep, layout.width)
        return {"deep": torch.zeros(shape, dtype=layout.dtype, device=self.decoder.device)} if layout.deep else {}

    def _refusal(self, rows: int) -> InputError:
        if rows != len(self.lengths):
            return InputError(f"{rows} tokens came for {len(self.lengths)} rows; wanted: one for each row that was read")
        room = f"the cache was made for {self.memory.capacity:,}"
        return InputError(f"more tokens than there is room for: {room}; start with a larger room")
