"""Sessions that are kept: a prompt that begins as an earlier one did is read from where they part.

The same picture with another question, the next turn of a chat, one instruction before many inputs: several conversations may go on
beside each other. What is kept are whole sessions of one row; of those, the one that shares most with a prompt is continued. Where a
prompt parts from it early, it is copied, so that its own conversation can go on as well. The answers are those of a run that reads
everything, up to rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modelgraft.loops.decoder import Continuable, Remembered, Session

SHORTEST = 8  # tokens of a common beginning below which reading them again costs nothing
MOST = 8  # conversations, of whatever size
MOST_BYTES = 2**30  # of all that is kept, beside the newest: as much as the cache of a 7B model takes for 2,000 tokens


@dataclass(slots=True)
class _Kept:
    """A session, and what it has read: float[tokens width] of the prompt, then tokens."""

    session: Continuable
    prompt: Tensor
    conditions: Any
    said: list[Tensor] = field(default_factory=list)


class Remembering:
    """A Decoder that keeps sessions of one row when they are closed. `reused`: how many tokens the last start did not read again."""

    def __init__(self, inner: Remembered, embed: Callable[[Tensor], Tensor], *, most_bytes: int = MOST_BYTES) -> None:
        """embed: int64[n] -> float[n width], the input embeddings of tokens."""
        self.inner, self.embed, self.most_bytes = inner, embed, most_bytes
        self.kept: list[_Kept] = []  # the newest last
        self.reused = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """What the kept sessions take."""
        return sum(one.session.bytes for one in self.kept)

    def start(self, prompts: Sequence[Tensor], *, conditions: Any = None, room: int, states: bool = False) -> Session:
        """See Decoder. Batches are always read whole."""
        if len(prompts) != 1:
            return self.inner.start(prompts, conditions=conditions, room=room, states=states)
        prompt = prompts[0]
        found, count = self._take(prompt, conditions)
        self.reused = count
        if found is None:
            self._make_room()
            session = self.inner.start(prompts, conditions=conditions, room=room, states=states)
        else:
            session = found
            session.extend(prompt[count:], conditions=conditions, room=room, states=states)
        return _Noted(self, _Kept(session, prompt, conditions))

    def forget(self) -> None:
        """Close all that is kept, as when the weights change."""
        with self._lock:
            kept, self.kept = self.kept, []
        for one in kept:
            one.session.close()

    def keep(self, one: _Kept) -> None:
        """Keep a session; the oldest go when all take too much, the newest stays whatever it takes."""
        with self._lock:
            self.kept.append(one)
            gone = list[_Kept]()
            while len(self.kept) > 1 and (len(self.kept) > MOST or self.bytes > self.most_bytes):
                gone.append(self.kept.pop(0))
        for old in gone:
            old.session.close()

    def _take(self, prompt: Tensor, conditions: Any) -> tuple[Continuable | None, int]:
        """A session that holds the beginning of a prompt and nothing behind it, and how many tokens that is."""
        with self._lock:
            shared = [self._shared(one, prompt, conditions) for one in self.kept]
            count = max(shared, default=0)
            if count < SHORTEST:
                return None, 0
            best = self.kept[len(shared) - 1 - shared[::-1].index(count)]
            behind = len(best.prompt) + len(best.said) - count
            if behind <= max(SHORTEST, count // 8):  # little is lost: it goes on in its own memory
                self.kept.remove(best)
                session = best.session
            else:
                session = best.session.fork(torch.zeros(1, dtype=torch.int64))  # type: ignore[assignment]  # of its own kind
        session.rewind(behind)
        return session, count

    def _shared(self, one: _Kept, prompt: Tensor, conditions: Any) -> int:
        """How many tokens at the beginning of a prompt a session holds; at least one is always read anew."""
        held = one.prompt
        if one.said and len(prompt) > len(held):
            held = torch.cat([held, self.embed(torch.cat(one.said).to(prompt.device)).to(held)])
        most = min(len(held), len(prompt) - 1)
        if most < SHORTEST or not torch.equal(held[:1], prompt[:1].to(held)):
            return 0
        same = (held[:most] == prompt[:most].to(held)).all(-1)
        count = int(same.long().cumprod(0).sum())
        return count if count >= SHORTEST and self.inner.alike(one.conditions, conditions, count) else 0

    def _make_room(self) -> None:
        """Let the oldest go before another session is made, where it would go afterwards: its memory may serve again."""
        with self._lock:
            is_full = bool(self.kept) and (len(self.kept) >= MOST or self.bytes + self.kept[-1].session.bytes > self.most_bytes)
            gone = [self.kept.pop(0)] if is_full else []
        for old in gone:
            old.session.close()


class _Noted:
    """A session that notes what it reads, and is kept when it is closed."""

    def __init__(self, owner: Remembering, holds: _Kept) -> None:
        self.owner, self.holds, self.inner = owner, holds, holds.session
        self.is_known = True  # what the memory holds: not after a call that failed, nor when rows were reordered
        self.is_open = True

    @property
    def logits(self) -> Tensor:
        """See Session."""
        return self.inner.logits

    @property
    def states(self) -> Tensor | None:
        """See Session."""
        return self.inner.states

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        known, self.is_known = self.is_known, False
        logits = self.inner.step(tokens)
        self.holds.said.append(tokens)
        self.is_known = known
        return logits

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        self.is_known = False
        self.inner.reorder(rows)

    def fork(self, rows: Tensor) -> Session:
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
