"""What a language model must offer to be generated from: sessions, several of which may be under way at once.

A session gives its logits as tensors, or, on the host, as arrays of numpy, and is handed tokens and rows in the same kind (`Any`): so a
model whose graph was exported answers without torch. Who computes with torch sees one of arrays through `InTensors` (tensor_sessions.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy

from modelgraft.loops.chosen import Tokens
from modelgraft.loops.prompt_places import Places
from modelgraft.records.arrays import on_host

if TYPE_CHECKING:
    import torch

    from modelgraft.records.arrays import Array


class Session(Protocol):
    """What a decoder has read for the rows of one batch, with memory of its own."""

    @property
    def logits(self) -> Array:
        """float[batch vocab] after the last position that each row has read; valid until the session reads on."""
        ...

    @property
    def states(self) -> Array | None:
        """float[batch layers width], the hidden states of that position, where they were asked for at the start; else None."""
        ...

    def step(self, tokens: Any) -> Array:
        """Read one more token per row, int64[batch], which must not be changed afterwards; gives `logits`.

        Raises InputError for more tokens than there is room for, or another number than there are rows.
        """
        ...

    def reorder(self, rows: Any) -> None:
        """Let row i go on from what row `rows[i]` holds, int64[new batch]; the batch may grow, as when beams start."""
        ...

    def fork(self, rows: Any) -> Session:
        """Another session, whose row i goes on from what row `rows[i]` of this one holds; this one stays as it is."""
        ...

    def rewind(self, tokens: int) -> None:
        """Take the last tokens of every row back; `logits` and `states` stay those of the last position until the next step.

        Raises InputError for a model that cannot forget, and for more tokens than were read.
        """
        ...

    def close(self) -> None:
        """Give the memory back, to the next session of the decoder. What a closed session holds is gone; closing twice does nothing."""
        ...


@runtime_checkable
class LooksAhead(Session, Protocol):
    """A session that can read several tokens at once and say what stands behind each."""

    @property
    def looks(self) -> bool:
        """Whether this one can: it takes its last tokens back, and what runs it gives the logits of several places."""
        ...

    def look(self, tokens: Any) -> Any:
        """Read more tokens per row, int64[batch tokens]; float[batch tokens vocab], the logits behind each, valid until it reads on.

        Raises InputError as `step` does.
        """
        ...


@runtime_checkable
class ReadsIds(Session, Protocol):
    """A session on the host that takes tokens as numbers, so that none becomes a tensor between two steps."""

    def step_ids(self, tokens: Sequence[int]) -> Array:
        """As `step`, by one number per row."""
        ...


def stepping(session: Session) -> Callable[[Tokens], Array]:
    """What reads one more token per row and gives `logits`: by numbers, where logits are on the host and the session takes these."""
    if isinstance(session, ReadsIds) and on_host(session.logits):
        by_ids = session.step_ids
        return lambda tokens: by_ids(tokens.ids)
    step = session.step
    if isinstance(session.logits, numpy.ndarray):
        return lambda tokens: step(tokens.array)
    return lambda tokens: step(tokens.tensor)


@runtime_checkable
class Weighed(Protocol):
    """A session that tells what it takes."""

    @property
    def bytes(self) -> int:
        """What its memory takes."""
        ...

    @property
    def device(self) -> torch.device | str:
        """Where its memory lies: as a text it is "cpu" or "cuda:0"."""
        ...


class Continuable(Session, Weighed, Protocol):
    """A session of one row that can read on as if a longer prompt had been read from the start."""

    def discard(self) -> None:
        """Close it, and free its memory instead of giving it to the next session. It may be called while another session reads."""
        ...

    def extend(self, prompt: Any, *, conditions: Any, room: int, states: bool, places: Places | None = None) -> None:
        """Read what follows, float[tokens width], at least one token; the rest as in `Decoder.start`, `conditions` and `places` for the
        whole, of which none lies before."""
        ...


class Decoder(Protocol):
    """A language model that reads and writes, whatever runs it.

    The decoder chooses on which side it pads prompts of unequal length; no answer may depend on the other rows of the batch
    beyond rounding. Several sessions may be under way at once, each with memory of its own.
    """

    def start(
        self, prompts: Sequence[Any], *, conditions: Any = None, room: int, states: bool = False, places: Places | None = None
    ) -> Session:
        """Read one prompt per row.

        prompts     float[tokens width] each: embedded tokens, spliced with whatever else the model can read; at least one token.
                    Of a decoder that attends to a memory int64[tokens]: the tokens that answers begin with, equally many
        conditions  what the tokens look at beside each other, such as media or a memory; `Any`: the decoder's own kind
        room        the most tokens that `step` will add, so that memory can be laid out once
        states      the hidden states of each position that is read last are wanted
        places      places of the prompts whose hidden states are wanted, which are noted there; given to who can tell them alone

        Raises InputError when there is not enough memory.
        """
        ...


class Remembered(Protocol):
    """A decoder whose sessions may be kept and continued: see prefixes.py."""

    def start(
        self, prompts: Sequence[Any], *, conditions: Any = None, room: int, states: bool = False, places: Places | None = None
    ) -> Continuable:
        """See Decoder."""
        ...

    def alike(self, one: Any, other: Any, tokens: int) -> bool:
        """Whether the first tokens of a prompt look at the same under both conditions."""
        ...
