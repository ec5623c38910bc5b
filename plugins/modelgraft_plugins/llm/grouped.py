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

On the host all of this lies in arrays of numpy, which is what sessions give there; on a device in tensors of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from modelgraft.plugin import Array, Bound, Graph, InputError, Places, as_tensor, refuse_without_room
from modelgraft_plugins.llm.holding import Held, holding_of, ids_of
from modelgraft_plugins.llm.looking import Look
from modelgraft_plugins.llm.memory import FEWER, Memory, sizes_of
from modelgraft_plugins.llm.reading import PIECE, by_pieces
from modelgraft_plugins.llm.sizes import Caches
from modelgraft_plugins.llm.standing import alike, laid, laid_deep
from modelgraft_plugins.llm.stepping import DecodeStep, Lookup, inputs_for

ROUND = 64  # capacities are multiples of this, so that runs of nearly the same length use the same memory


class GroupedDecoder:
    """A decoder over such a graph: see modelgraft.plugin.Decoder. Rows are padded on the right.

    The memory of a session that was closed serves the next one that fits into it, with all that is bound to it.
    """

    def __init__(self, graph: Graph, layout: Caches, embed: Callable[[Any], Any]) -> None:
        """embed: int64[n] -> float[n width], the model's input embeddings on the host; see `Lookup` for what makes it fast.

        Raises InputError for a float32 graph on CUDA, where the operator takes half precision only.
        """
        if graph.device != "cpu" and layout.dtype == "float32":
            raise InputError(
                f"this decoder is float32, and onnxruntime's GroupQueryAttention takes float16 on {graph.device}: "
                f"run the node with precision float16, or on device cpu"
            )
        self.graph, self.layout, self.embed, self.device = graph, layout, embed, graph.device
        self.holding = holding_of(graph)
        self.lookup = Lookup(embed, layout.dtype, self.holding, on_host=not graph.is_ordered)
        self.names = [f"{kind}.{layer}" for layer in range(layout.layers) for kind in ("key", "value")]
        self.sizes = {slot.name: slot.axes for slot in graph.outputs if not slot.name.startswith("present.")}
        self.gives_states = "states" in self.sizes
        self.reads_several = any(slot.name == "last" and len(slot.axes) > 1 for slot in graph.inputs)  # positions of a row, by the head
        self.captures = True  # until a step turns out not to be replayed
        self.spare: Memory | None = None

    def start(
        self,
        prompts: Sequence[Array],
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
        shape, size = (batch, self.layout.kv_heads, capacity, self.layout.head_width), self.layout.cache_bytes(batch, capacity)
        told = f"the caches of {batch:,} rows of {capacity:,} tokens"
        refuse_without_room(told, size, self.device, way=FEWER)
        try:
            cache = [self.holding.zeros(shape, self.layout.dtype) for _ in self.names]
        except (RuntimeError, MemoryError, ValueError) as error:  # torch has no class of its own for it, numpy another for what none has
            raise InputError(f"{told} take {size / 2**30:,.1f} GiB, and {self.device} has no room for it: {FEWER}") from error
        outputs = {name: self.holding.empty((batch, *sizes_of(axes, 1)), self.layout.dtype) for name, axes in self.sizes.items()}
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

    def last(self, places: Sequence[int]) -> Held:
        """One position of each row as the graph takes it."""
        found = numpy.array(places, dtype=numpy.int64)
        return self.holding.put(found[:, None] if self.reads_several else found)

    def bind(self, memory: Memory, inputs: Mapping[str, Held], outputs: Mapping[str, Held] | None = None) -> Bound:
        """Bind memory, these inputs, and outputs that are not written into the memory."""
        given, made = {**memory.beside, **inputs}, dict[str, Held | None]({**memory.outputs, **(outputs or {})})
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
    def logits(self) -> Any:
        """See Session."""
        return self.memory.logits

    @property
    def states(self) -> Array | None:
        """See Session."""
        found = self.memory.outputs.get("states")
        return None if found is None else found[:, :, 0]

    @property
    def bytes(self) -> int:
        """See Continuable."""
        return self.memory.bytes

    @property
    def device(self) -> str:
        """See Continuable."""
        return self.decoder.device

    def begin(self, prompts: Sequence[Array], conditions: Any, *, room: int, places: Places | None = None) -> None:
        """Read the prompts, as `Decoder.start` does."""
        graph, longest = self.decoder.graph, max(map(len, prompts))
        with graph.turn(*prompts):
            self.held = self._laid_out(len(prompts), longest + max(room, 1), conditions)
            self.read(prompts, 0, conditions, places)
        graph.hand_over(list(self.held.outputs.values()))

    def step(self, tokens: Array) -> Any:
        """See Session."""
        graph = self.decoder.graph
        if not graph.is_ordered:
            return self.step_ids(ids_of(tokens))
        with graph.turn(tokens):
            return self._step(tokens)

    def step_ids(self, tokens: Sequence[int]) -> Any:
        """See ReadsIds; on the host."""
        return self._step(tokens)

    def _step(self, tokens: Any) -> Any:
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

    def look(self, tokens: Array) -> Any:
        """See LooksAhead."""
        memory, count = self.memory, tokens.shape[1]
        if self.longest + count > memory.capacity or len(tokens) != len(self.lengths):
            raise self._refusal(len(tokens))
        graph, beside = self.decoder.graph, self._seen_on(count)
        steps = self.longest - max(self.lengths)
        with graph.turn(tokens):
            if count not in memory.looks:
                memory.looks[count] = Look(self.decoder, memory, batch=len(tokens), count=count, beside=beside)
            flat = tokens.reshape(-1)
            given = flat if graph.is_ordered else ids_of(flat)
            logits = memory.looks[count].run(given, [length + steps for length in self.lengths], self.ahead, beside)
        graph.hand_over([logits])
        self.longest += count
        self.start_again()
        return logits

    def _seen_on(self, count: int) -> dict[str, Held]:
        """Further inputs of so many new tokens."""
        return self._silence(len(self.lengths), count)

    def extend(self, prompt: Array, *, conditions: Any, room: int, states: bool, places: Places | None = None) -> None:  # noqa: ARG002 the graph decides
        """See Continuable."""
        start = self.longest
        with self.decoder.graph.turn(prompt):
            if start + len(prompt) + max(room, 1) > self.memory.capacity:
                self._grow(start + len(prompt) + max(room, 1))
            self.read([prompt], start, conditions, places)
        self.decoder.graph.hand_over(list(self.memory.outputs.values()))

    def reorder(self, rows: Array) -> None:
        """See Session."""
        memory, decoder, numbers = self.memory, self.decoder, ids_of(rows)
        self._follow(numbers)
        with decoder.graph.turn():
            if len(numbers) == len(memory.cache[0]):
                for held in (*memory.cache, *memory.beside.values()):
                    held[...] = decoder.holding.rows(held, numbers)
                self.start_again()
            else:
                self.held = memory.picked(numbers, decoder.holding)
                decoder.drop(memory)

    def fork(self, rows: Array) -> GroupedSession:
        """See Session."""
        other, numbers = self.decoder.session(), ids_of(rows)
        other.lengths, other.longest, other.ahead = list(self.lengths), self.longest, list(self.ahead)
        other._follow(numbers)
        with self.decoder.graph.turn():
            other.held = self.memory.picked(numbers, self.decoder.holding)
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

    def _seen(self, start: int, longest: int, conditions: Any) -> dict[str, Held]:
        """Further inputs of the positions of prompts from `start` on."""
        found = self._silence(len(self.lengths), longest - start)
        if found and conditions is not None:
            laid_deep(conditions, as_tensor(found["deep"]), offsets=[-start] * len(self.lengths))
        return found

    def read(self, prompts: Sequence[Array], start: int, conditions: Any = None, places: Places | None = None) -> None:
        """Read prompts, of a single row those behind what the cache holds."""
        decoder, lengths, batch = self.decoder, [start + len(prompt) for prompt in prompts], len(prompts)
        self.lengths, self.longest = lengths, (longest := max(lengths))
        if longest - start > PIECE and conditions is None and places is None and not decoder.graph.is_ordered:
            by_pieces(self, prompts, start)
            return
        last = [length - 1 - start for length in lengths]
        inputs = {
            "inputs_embeds": self._padded(prompts, longest - start),
            "position_ids": self._positions(batch, start, longest, conditions),
            "seqlens_k": decoder.holding.put(numpy.array(lengths, dtype=numpy.int32) - 1),
            "total": numpy.array([longest], dtype=numpy.int32),
            "last": decoder.last(last),
            **self._seen(start, longest, conditions),
        }
        if decoder.gives_states:
            looked = (places or Places([()] * batch)).numbers(last, offsets=[-start] * batch)
            inputs["places"] = decoder.holding.put(numpy.array(looked, dtype=numpy.int64))
        if places is None:
            decoder.bind(self.memory, inputs).run()
        else:
            self._read_places(inputs, places)
        self.start_again()

    def _positions(self, batch: int, start: int, longest: int, conditions: Any) -> Held:
        """Where the tokens from `start` on stand, as the graph takes it."""
        axes, holding = self.decoder.layout.axes, self.decoder.holding
        self.ahead = [0] * batch
        if axes and conditions is not None:
            self.ahead = [standing.behind - len(standing.axes) for standing in conditions]
            return holding.taken(laid(conditions, longest, offsets=[0] * batch)[:, start:])
        shape = (batch, longest - start, axes) if axes else (batch, longest - start)
        places = numpy.arange(start, longest, dtype=numpy.int64)
        return holding.put(numpy.broadcast_to(places[:, None] if axes else places, shape))

    def _read_places(self, inputs: Mapping[str, Held], places: Places) -> None:
        """Read prompts, and note the states of some places: they are written where only this call needs them."""
        decoder, kept = self.decoder, self.memory.outputs["states"]
        batch, count = inputs["places"].shape
        states = decoder.holding.empty((batch, kept.shape[1], count, kept.shape[3]), decoder.layout.dtype)
        decoder.bind(self.memory, inputs, {"states": states}).run()
        kept[:, :, 0] = decoder.holding.taken(places.take(states))

    def _padded(self, prompts: Sequence[Array], longest: int) -> Held:
        layout, holding = self.decoder.layout, self.decoder.holding
        embeds = holding.zeros((len(prompts), longest, layout.width), layout.dtype)
        for row, prompt in enumerate(prompts):
            embeds[row, : len(prompt)] = holding.taken(prompt)
        return embeds

    def _follow(self, rows: Sequence[int]) -> None:
        """Count as the rows do that take the place of these."""
        steps = self.longest - max(self.lengths)
        self.lengths = [self.lengths[row] + steps for row in rows]
        self.ahead = [self.ahead[row] for row in rows]
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
        decoder, batch = self.decoder, len(self.lengths)
        inputs = {**inputs_for(decoder.holding, decoder.layout, batch, gives_states=decoder.gives_states), **self._silence(batch)}
        inputs["last"] = decoder.last([0] * batch)
        bound = decoder.bind(memory, inputs)
        step = DecodeStep(
            decoder.graph,
            bound,
            inputs,
            memory.logits,
            capacity=memory.capacity,
            lookup=decoder.lookup,
            holding=decoder.holding,
            captures=decoder.captures,
        )
        step.start([length + self.longest - max(self.lengths) for length in self.lengths], self.ahead)
        return step

    def _silence(self, batch: int, count: int = 1) -> dict[str, Held]:
        """What so many new tokens hear: nothing."""
        layout = self.decoder.layout
        shape = (batch, count, layout.deep, layout.width)
        return {"deep": self.decoder.holding.zeros(shape, layout.dtype)} if layout.deep else {}

    def _refusal(self, rows: int) -> InputError:
        if rows != len(self.lengths):
            return InputError(f"{rows} tokens came for {len(self.lengths)} rows; wanted: one for each row that was read")
        room = f"the cache was made for {self.memory.capacity:,}"
        return InputError(f"more tokens than there is room for: {room}; start with a larger room")
