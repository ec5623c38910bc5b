"""Sessions that are kept: a prompt that begins as an earlier one did is read from where they part.

The same picture with another question, the next turn of a chat, one instruction before many inputs: several conversations may go on
beside each other. What is kept are whole sessions of one row; of those, the one that shares most with a prompt is continued. Where a
prompt parts from it early, it is copied, so that its own conversation can go on as well. The answers are those of a run that reads
everything, up to rounding.

What is kept is counted by the memory ledger of the pipeline, from when a session is closed until it is continued or let go of. It goes
before any node when somebody needs room under `max_memory`, what was used least recently first.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy

from modelgraft.kernel.words.errors import InputError
from modelgraft.loops.chosen import Tokens
from modelgraft.loops.decoder import Continuable, LooksAhead, ReadsIds, Remembered, Session
from modelgraft.loops.prompt_places import Places
from modelgraft.records.arrays import as_tensor
from modelgraft.records.owning import is_tensor

if TYPE_CHECKING:
    from torch import Tensor, device

    from modelgraft.engine.ledger import Holding, Ledger
    from modelgraft.records.arrays import Array

ROWS = 256  # of two prompts that are compared at once
SHORTEST = 8  # tokens of a common beginning below which reading them again costs nothing
MOST = 8  # conversations, of whatever size, where their device has no `max_memory`
MOST_BYTES = 2**30  # of them all there, beside the newest: as much as the cache of a 7B model takes for 2,000 tokens
MOST_COMPARED = 64  # conversations where the ledger bounds their bytes: a prompt is compared with each


@dataclass(slots=True, eq=False)
class _Kept:
    """A session, and what it has read: float[tokens width] of the prompt, then tokens: numbers, or int64[1] where these lie on a device.

    held  in the ledger, while it is kept
    """

    session: Continuable
    prompt: Array
    conditions: Any
    said: list[Tensor | int] = field(default_factory=list)
    held: Holding | None = None

    def take(self) -> bool:
        """Begin a use; gives False when the ledger has let go of it."""
        return self.held is None or self.held.take()

    def give_back(self) -> None:
        """End a use."""
        if self.held is not None:
            self.held.give_back()

    def leave(self) -> bool:
        """Take it out of the ledger, for it to be closed; gives False when the ledger has let go of it."""
        return self.held is None or self.held.leave()


class Remembering:
    """A Decoder that keeps sessions of one row when they are closed. `reused`: how many tokens the last start did not read again."""

    def __init__(self, inner: Remembered, embed: Callable[[Any], Array], *, most_bytes: int = MOST_BYTES) -> None:
        """embed: int64[n] -> float[n width], the input embeddings of tokens, in an array where prompts are arrays."""
        self.inner, self.embed, self.most_bytes = inner, embed, most_bytes
        self.kept: list[_Kept] = []  # the newest last
        self.reused = 0
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None
        self._what, self._is_closed = "", False

    def count_in(self, ledger: Ledger, what: str) -> None:
        """Have a ledger count what will be kept, and bound it where it has a limit for its device. what: a conversation, for people."""
        self._ledger, self._what = ledger, what

    @property
    def bytes(self) -> int:
        """What the kept sessions take."""
        return sum(one.session.bytes for one in self.kept)

    def start(
        self, prompts: Sequence[Any], *, conditions: Any = None, room: int, states: bool = False, places: Places | None = None
    ) -> Session:
        """See Decoder. Batches are always read whole; of places whose states are wanted nothing can have been read before."""
        if len(prompts) != 1:
            return self.inner.start(prompts, conditions=conditions, room=room, states=states, places=places)
        prompt = prompts[0]
        found, count = self._take(prompt, conditions, most=None if places is None else places.first)
        self.reused = count
        if found is None:
            self._make_room()
            session = self.inner.start(prompts, conditions=conditions, room=room, states=states, places=places)
        else:
            session = found
            try:
                session.extend(prompt[count:], conditions=conditions, room=room, states=states, places=places)
            except BaseException:  # stopped, or refused: nobody else holds it
                found.discard()
                raise
        return _Noted(self, _Kept(session, prompt, conditions))

    def forget(self) -> None:
        """Close all that is kept, as when the weights change."""
        with self._lock:
            kept, self.kept = self.kept, []
        for one in kept:
            if one.leave():
                one.session.close()

    def close(self) -> None:
        """Close all that is kept, and keep nothing any more."""
        self._is_closed = True
        self.forget()

    def keep(self, one: _Kept) -> None:
        """Keep a session; the oldest go when all take too much. Without a limit in the ledger the newest stays whatever it takes."""
        if not self._enter(one):
            one.session.discard()
            return
        most, most_bytes = self._bounds(one.session)
        with self._lock:
            if one.held is None or not one.held.is_gone:
                self.kept.append(one)
            gone = list[_Kept]()
            while len(self.kept) > 1 and (len(self.kept) > most or self.bytes > most_bytes):
                gone.append(self.kept.pop(0))
        for old in gone:
            if old.leave():
                old.session.close()
        if self._is_closed:
            self.forget()

    def _enter(self, one: _Kept) -> bool:
        """Have the ledger hold a session that is to be kept; gives whether there is room."""
        if self._ledger is None:
            return True
        try:
            size, device = one.session.bytes, str(one.session.device)
            one.held = self._ledger.hold(self._what, size, device, partial(self._let_go, one), is_spare=True)
        except InputError:
            return False
        one.held.measured(one.held.blocks)
        return True

    def _let_go(self, one: _Kept) -> None:
        """Free a session that the ledger has let go of."""
        with self._lock:
            if one in self.kept:
                self.kept.remove(one)
        device = str(one.session.device)
        one.session.discard()
        if device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()  # for those who do not ask torch for memory

    def _bounds(self, session: Continuable) -> tuple[int, int]:
        """The most conversations to keep, and the most bytes, on the device of a session."""
        is_counted = self._ledger is not None and self._ledger.limit(str(session.device)) is not None
        return (MOST_COMPARED, sys.maxsize) if is_counted else (MOST, self.most_bytes)

    def _take(self, prompt: Array, conditions: Any, *, most: int | None) -> tuple[Continuable | None, int]:
        """A session that holds the beginning of a prompt and nothing behind it, and how many tokens that is: `most` at most."""
        with self._lock:
            shared = [self._shared(one, prompt, conditions, most=most) for one in self.kept]
            count = max(shared, default=0)
            if count < SHORTEST:
                return None, 0
            best = self.kept[len(shared) - 1 - shared[::-1].index(count)]
            if not best.take():
                return None, 0
            behind = len(best.prompt) + len(best.said) - count
            try:
                session = self._used(best, is_left=behind <= max(SHORTEST, count // 8))  # little is lost: its own memory serves
            finally:
                best.give_back()
        session.rewind(behind)
        return session, count

    def _used(self, one: _Kept, *, is_left: bool) -> Continuable:
        """What goes on from a session that is kept: itself, or a copy. is_left: it is not kept as it is."""
        if not is_left:
            return one.session.fork(_first_row(one.session))  # type: ignore[return-value]  # of its own kind
        self.kept.remove(one)
        if one.held is not None:
            one.held.release()
        return one.session

    def _shared(self, one: _Kept, prompt: Array, conditions: Any, *, most: int | None) -> int:
        """How many tokens at the beginning of a prompt a session holds, `most` at most; at least one is always read anew."""
        long = len(one.prompt) + len(one.said)
        most = min(long, len(prompt) - 1, len(prompt) if most is None else most)
        if most < SHORTEST:
            return 0
        count = _alike(one.prompt[:most], prompt)
        if count == len(one.prompt) < most:
            count += _alike(prompt[count:most], self.embed(_ids(one.said[: most - count], prompt)))
        return count if count >= SHORTEST and self.inner.alike(one.conditions, conditions, count) else 0

    def _make_room(self) -> None:
        """Let the oldest go before another session is made, where it would go afterwards: its memory may serve again."""
        with self._lock:
            if not self.kept:
                return
            newest = self.kept[-1].session
            size, device = newest.bytes, str(newest.device)
            most, most_bytes = self._bounds(newest)
            gone = [self.kept.pop(0)] if len(self.kept) >= most or self.bytes + size > most_bytes else []
        for old in gone:
            if old.leave():
                old.session.close()
        if self._ledger is not None:
            with suppress(InputError):
                self._ledger.hold(self._what, size, device, _nothing, is_spare=True).release()


def _alike(one: Any, other: Any) -> int:
    """How many rows are the same before the first that is not; float[rows width]."""
    if is_tensor(one) or is_tensor(other):
        one = as_tensor(one)
        other = as_tensor(other).to(one)
    count = min(len(one), len(other))
    for start in range(0, count, ROWS):
        end = min(start + ROWS, count)
        same: list[bool] = (one[start:end] == other[start:end]).all(-1).tolist()
        if not all(same):
            return start + same.index(False)
    return count


def _ids(said: Sequence[Any], like: Any) -> Array:
    """int64[tokens] of single ones, in the kind of `like`, and where it lies."""
    if isinstance(like, numpy.ndarray):
        return numpy.array([int(one) for one in said], numpy.int64)
    import torch

    return torch.cat([one.to(like.device) if is_tensor(one) else torch.tensor([one], device=like.device) for one in said])


def _first_row(session: Session) -> Array:
    """What `fork` is asked for a copy of the only row."""
    if isinstance(session.logits, numpy.ndarray):
        return numpy.zeros(1, numpy.int64)
    import torch

    return torch.zeros(1, dtype=torch.int64)


def _nothing() -> None:
    """Let go of room that nothing has taken yet."""


class _Noted:
    """A session that notes what it reads, and is kept when it is closed."""

    def __init__(self, owner: Remembering, holds: _Kept) -> None:
        self.owner, self.holds, self.inner = owner, holds, holds.session
        self.is_known = True  # what the memory holds: not after a call that failed, nor when rows were reordered
        self.is_open = True
        self.by_ids = self.inner.step_ids if isinstance(self.inner, ReadsIds) else None

    @property
    def logits(self) -> Array:
        """See Session."""
        return self.inner.logits

    @property
    def states(self) -> Array | None:
        """See Session."""
        return self.inner.states

    def step(self, tokens: Any) -> Array:
        """See Session."""
        known, self.is_known = self.is_known, False
        logits = self.inner.step(tokens)
        self.holds.said += tokens.tolist() if isinstance(tokens, numpy.ndarray) else [tokens]
        self.is_known = known
        return logits

    def step_ids(self, tokens: Sequence[int]) -> Array:
        """See ReadsIds."""
        if self.by_ids is None:
            read = Tokens(tokens)
            return self.step(read.array if isinstance(self.logits, numpy.ndarray) else read.tensor)
        known, self.is_known = self.is_known, False
        logits = self.by_ids(tokens)
        self.holds.said += tokens
        self.is_known = known
        return logits

    @property
    def looks(self) -> bool:
        """See LooksAhead."""
        return isinstance(self.inner, LooksAhead) and self.inner.looks

    def look(self, tokens: Any) -> Array:
        """See LooksAhead."""
        assert isinstance(self.inner, LooksAhead)
        known, self.is_known = self.is_known, False
        logits: Array = self.inner.look(tokens)
        self.holds.said += tokens[0].tolist() if isinstance(tokens, numpy.ndarray) else tokens.unbind(1)
        self.is_known = known
        return logits

    @property
    def bytes(self) -> int:
        """See Weighed."""
        return self.inner.bytes

    @property
    def device(self) -> device | str:
        """See Weighed."""
        return self.inner.device

    def reorder(self, rows: Any) -> None:
        """See Session."""
        self.is_known = False
        self.inner.reorder(rows)

    def fork(self, rows: Any) -> Session:
        """See Session."""
        return self.inner.fork(rows)

    def rewind(self, tokens: int) -> None:
        """See Session."""
        self.inner.rewind(tokens)
        said = self.holds.said
        if tokens > len(said):
            self.holds.prompt = self.holds.prompt[: len(self.holds.prompt) + len(said) - tokens]
        del said[max(len(said) - tokens, 0) :]

    def close(self) -> None:
        """See Session."""
        if not self.is_open:
            return
        self.is_open = False
        if self.is_known:
            self.owner.keep(self.holds)
        else:
            self.inner.close()
