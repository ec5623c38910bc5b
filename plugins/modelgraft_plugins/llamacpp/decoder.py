"""A decoder on llama.cpp: prompts are read as embeddings, answers as tokens, each row as a sequence of its own.

No row is padded: each stands at its own positions. Rows that come of one row, as beams and judged texts do, share what they have read, and
only what follows takes room.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelgraft.plugin import Array, InputError, Places, as_array, as_tensor
from modelgraft_plugins.llamacpp.native import STEP, Context, Model

ROOMIER = 4  # a context that is so many times as large as what is asked for is left to others

Numbers = Any  # an array of numpy; its shape stands in words


@dataclass(slots=True)
class _Row:
    """A row of a session: the sequence that it is, and how many tokens that has read."""

    sequence: int
    length: int


class LlamaDecoder:
    """See modelgraft.plugin.Decoder. Of the layers it knows the last, behind its norm."""

    def __init__(self, model: Model, *, threads: int) -> None:
        self.model, self.threads = model, threads
        self.check: Callable[[], None] = lambda: None  # raises where the run was stopped
        self._idle: list[Context] = []  # one that the next session may have
        self._lock = threading.Lock()

    def start(
        self,
        prompts: Sequence[Array],
        *,
        conditions: Any = None,  # noqa: ARG002 nothing is looked at beside the tokens
        room: int,
        states: bool = False,
        places: Places | None = None,
    ) -> LlamaSession:
        """See Decoder."""
        most = max(map(len, prompts)) + max(room, 1)
        context = self.open(len(prompts), most * len(prompts), states=states or places is not None)
        session = LlamaSession(self, context, [_Row(number, 0) for number in range(len(prompts))], most=most)
        try:
            session.read_prompts(prompts, places=places, gives=states)
        except BaseException:
            session.close()
            raise
        return session

    def alike(self, one: Any, other: Any, tokens: int) -> bool:  # noqa: ARG002 there are no conditions
        """See Remembered."""
        return True

    def open(self, rows: int, most: int, *, states: bool) -> Context:
        """A context with room for so many rows, and so many tokens in all, that holds nothing."""
        with self._lock:
            for context in self._idle:
                if context.states == states and context.rows >= rows and most <= context.most <= ROOMIER * max(most, STEP):
                    self._idle.remove(context)
                    return context
        return Context(self.model, rows=rows, most=most, threads=self.threads, states=states)

    def give_back(self, context: Context) -> None:
        """Keep a context for the next session, in place of the one that was kept."""
        context.clear()
        with self._lock:
            gone, self._idle = self._idle, [context]
        for old in gone:
            old.close()

    def close(self) -> None:
        """Free what no session has."""
        with self._lock:
            gone, self._idle = self._idle, []
        for context in gone:
            context.close()


@dataclass(eq=False)
class LlamaSession:
    """What was read: see modelgraft.plugin.LooksAhead and Continuable; tokens may come as numbers (ReadsIds of the core's loops), and what
    it gives are arrays of numpy.

    most  tokens that each row may read, prompt and answer
    made  where the logits of a step are put, float32[rows vocabulary]: they are valid until the session reads on
    """

    decoder: LlamaDecoder
    context: Context | None
    rows: list[_Row]
    most: int
    logits: Numbers = field(default_factory=lambda: np.empty(0, np.float32))
    states: Numbers | None = None
    gives_states: bool = False
    made: Numbers | None = None

    @property
    def bytes(self) -> int:
        """See Continuable."""
        return 0 if self.context is None else self.context.bytes

    @property
    def device(self) -> str:
        """See Continuable."""
        return "cpu"

    @property
    def looks(self) -> bool:
        """See LooksAhead."""
        return True

    def step(self, tokens: Array) -> Numbers:
        """See Session."""
        return self.step_ids(tokens.tolist())

    def step_ids(self, tokens: Sequence[int]) -> Numbers:
        """See ReadsIds."""
        context, rows = self._open, self.rows
        if len(tokens) == len(rows) <= context.steps:
            self._fits([1] * len(rows))
            if self.made is None or len(self.made) != len(rows):  # as large as a row of the head: making it anew costs more than to fill it
                self.made = np.empty((len(rows), context.model.vocabulary), np.float32)
            context.step(tokens, [row.length for row in rows], [row.sequence for row in rows], self.made)
            self.rows = [_Row(row.sequence, row.length + 1) for row in rows]
            self.logits, self.states = self.made, None
            return self.logits
        logits, states = self._read_tokens(np.array(tokens, np.int32), 1)
        self.logits, self.states = logits, states[:, None] if states is not None and self.gives_states else None
        return self.logits

    def look(self, tokens: Array) -> Numbers:
        """See LooksAhead."""
        logits, _ = self._read_tokens(as_array(tokens).reshape(-1).astype(np.int32), tokens.shape[1])
        found = logits.reshape(*tokens.shape, -1)
        self.logits = found[:, -1]
        return found

    def read_prompts(self, prompts: Sequence[Array], *, places: Places | None, gives: bool, read: int = 0) -> None:
        """Read what the prompts go on with, float[tokens width] each. read: tokens of a single row that were read before."""
        self.gives_states, lengths = gives, [len(prompt) for prompt in prompts]
        wanted = np.zeros(sum(lengths), bool)
        ends = np.cumsum(lengths) - 1
        wanted[ends] = True
        asked = [
            [place - read + end + 1 - length for place in row]
            for row, end, length in zip(places.wanted if places is not None else [()] * len(prompts), ends, lengths, strict=True)
        ]
        wanted[[place for row in asked for place in row]] = True
        embedded = np.concatenate([as_array(prompt) for prompt in prompts]).astype(np.float32, copy=False)
        logits, states = self._read(embedded, lengths, wanted)
        nth = np.cumsum(wanted) - 1  # which of those that are wanted a place is
        self.logits = logits[nth[ends]]
        self.states = states[nth[ends]][:, None] if states is not None and gives else None
        if places is not None and states is not None:
            places.found = [as_tensor(states[nth[np.array(row, int)]][None]) for row in asked]  # copies

    def extend(self, prompt: Array, *, conditions: Any, room: int, states: bool, places: Places | None = None) -> None:  # noqa: ARG002 there are none
        """See Continuable."""
        read = self.rows[0].length
        self.most = max(self.most, read + len(prompt) + max(room, 1))
        context = self._open
        wants = states or places is not None
        if self.most > context.most or wants != context.states:
            self._move([0], states=wants)
        self.read_prompts([prompt], places=places, gives=states, read=read)

    def reorder(self, rows: Array) -> None:
        """See Session: rows that are copies share what they have read."""
        chosen, context = [int(row) for row in rows], self._open
        if len(set(chosen)) == len(chosen):
            gone = {row.sequence for row in self.rows} - {self.rows[row].sequence for row in chosen}
            self.rows = [self.rows[row] for row in chosen]
            for sequence in gone:
                context.forget(sequence)
        elif len(chosen) <= context.rows and self._tokens(chosen) <= context.most:
            self._share(chosen, context)
        else:
            self._move(chosen, states=context.states)

    def fork(self, rows: Array) -> LlamaSession:
        """See Session."""
        context = self._open
        other = LlamaSession(self.decoder, context, list(self.rows), self.most, self.logits.copy(), self.states, self.gives_states)
        other._move([int(row) for row in rows], states=context.states, leaves=True)
        return other

    def rewind(self, tokens: int) -> None:
        """See Session."""
        if not tokens:
            return
        shortest = min(row.length for row in self.rows)
        if tokens > shortest:
            raise InputError(f"{tokens} tokens cannot be taken back of {shortest} that were read")
        for row in self.rows:
            self._open.forget(row.sequence, row.length - tokens)
        self.rows = [_Row(row.sequence, row.length - tokens) for row in self.rows]

    def close(self) -> None:
        """See Session."""
        if self.context is not None:
            context, self.context = self.context, None
            self.decoder.give_back(context)

    def discard(self) -> None:
        """See Continuable."""
        if self.context is not None:
            context, self.context = self.context, None
            context.close()

    @property
    def _open(self) -> Context:
        if self.context is None:
            raise InputError("this session is closed, and what it held is gone")
        return self.context

    def _read_tokens(self, tokens: Numbers, count: int) -> tuple[Numbers, Numbers | None]:
        """Read so many tokens of each row, int32[batch * count], and give what stands behind each."""
        rows = len(tokens) // max(count, 1)
        if rows != len(self.rows):
            raise InputError(f"{rows} rows of tokens are no answer to {len(self.rows)} rows that were read")
        return self._read(tokens, [count] * rows, np.ones(len(tokens), bool))

    def _read(self, given: Numbers, counts: Sequence[int], wanted: Numbers) -> tuple[Numbers, Numbers | None]:
        """Read so many tokens of each row, one row behind the other."""
        context = self._open
        self._fits(counts)
        read = list(zip(self.rows, counts, strict=True))
        positions = np.array([place for row, count in read for place in range(row.length, row.length + count)], np.int32)
        sequences = np.array([row.sequence for row, count in read for _ in range(count)], np.int32)
        logits, states = context.read(given, positions, sequences, wanted, check=self.decoder.check)
        self.rows = [_Row(row.sequence, row.length + count) for row, count in read]
        return logits, states

    def _fits(self, counts: Sequence[int]) -> None:
        """Raise InputError where there is no room for so many tokens more of each row."""
        for row, count in zip(self.rows, counts, strict=True):
            if row.length + count > self.most:
                raise InputError(f"there is room for {self.most:,} tokens of a row, and {row.length + count:,} are to be read")

    def _tokens(self, chosen: Sequence[int]) -> int:
        """What a memory must have room for: what these rows hold, each once, and what each may read behind it."""
        held = sum(self.rows[row].length for row in set(chosen))
        return held + sum(self.most - self.rows[row].length for row in chosen)

    def _share(self, chosen: Sequence[int], context: Context) -> None:
        """Let rows go on from others in the memory that they share."""
        kept = {self.rows[row].sequence for row in chosen}
        free = [sequence for sequence in range(context.rows) if sequence not in kept]
        for sequence in free:
            context.forget(sequence)
        found, taken = list[_Row](), set[int]()
        for row in (self.rows[number] for number in chosen):
            target = free.pop() if row.sequence in taken else row.sequence
            if target != row.sequence:
                context.copy(row.sequence, target)
            taken.add(row.sequence)
            found.append(_Row(target, row.length))
        self.rows = found

    def _move(self, chosen: Sequence[int], *, states: bool, leaves: bool = False) -> None:
        """Go on in another context, where rows go on from those of this one. leaves: this one stays somebody's."""
        old, target = self._open, self.decoder.open(len(chosen), self._tokens(chosen), states=states)
        there, found = dict[int, int](), list[_Row]()
        for sequence, number in enumerate(chosen):
            row = self.rows[number]
            if number in there:
                target.copy(there[number], sequence)
            else:
                target.put_in(old.taken_out(row.sequence), sequence)
                there[number] = sequence
            found.append(_Row(sequence, row.length))
        self.context, self.rows = target, found
        if not leaves:
            self.decoder.give_back(old)
