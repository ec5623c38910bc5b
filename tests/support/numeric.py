"""A language model of numpy alone, whose sessions give their logits as arrays or, for comparison, as tensors with the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

VOCABULARY, WIDTH = 23, 4
TABLE = numpy.random.RandomState(5).standard_normal((3, VOCABULARY, VOCABULARY)).astype(numpy.float32) * 2


def embed(ids: Any) -> Any:
    """int64[n] -> float[n width] in the kind of the ids: each token as itself, and more."""
    if isinstance(ids, numpy.ndarray):
        return (ids[:, None] * numpy.arange(1, WIDTH + 1)).astype(numpy.float32)
    import torch

    return torch.from_numpy(embed(ids.numpy()))


class Numeric:
    """A decoder: the logits behind a token follow from it, the one before, and how many there are."""

    def __init__(self, kind: str = "array", dtype: Any = numpy.float32) -> None:
        """kind: array, or tensor."""
        self.kind, self.dtype, self.read = kind, dtype, 0

    def start(self, prompts: Sequence[Any], *, conditions: Any = None, room: int, states: bool = False, places: Any = None) -> Read:
        """See Decoder."""
        return Read(self, [[int(token) for token in prompt[:, 0]] for prompt in prompts])

    def alike(self, one: Any, other: Any, tokens: int) -> bool:
        """See Remembered."""
        return True


class Read:
    """A session, see Continuable and LooksAhead: its logits always lie in the same memory."""

    device, bytes, looks = "cpu", 1000, True

    def __init__(self, owner: Numeric, rows: list[list[int]]) -> None:
        self.owner, self.rows = owner, rows
        owner.read += sum(map(len, rows))
        self.array = self._now()

    def _now(self) -> Any:
        found = [TABLE[len(row) % 3, row[-1]] + 0.5 * TABLE[0, row[-2] if len(row) > 1 else 0] for row in self.rows]
        return numpy.stack(found).astype(self.owner.dtype)

    def _given(self, array: Any) -> Any:
        if self.owner.kind == "array":
            return array
        import torch

        return torch.from_numpy(array)

    def _taken(self, value: Any) -> list[Any]:
        assert isinstance(value, numpy.ndarray) == (self.owner.kind == "array"), "handed in another kind than its logits"
        assert str(value.dtype).removeprefix("torch.") == "int64"
        return value.tolist()

    def _add(self, tokens: Sequence[int]) -> None:
        assert len(tokens) == len(self.rows)
        self.owner.read += len(tokens)
        for row, token in zip(self.rows, tokens, strict=True):
            row.append(token)
        self.array[...] = self._now()

    @property
    def logits(self) -> Any:
        """See Session."""
        return self._given(self.array)

    @property
    def states(self) -> Any:
        """See Session: float[batch 2 width], of the last token."""
        last = embed(numpy.array([row[-1] for row in self.rows]))
        return self._given(numpy.stack([last, last + 1], 1))

    def step(self, tokens: Any) -> Any:
        """See Session."""
        self._add(self._taken(tokens))
        return self.logits

    def step_ids(self, tokens: Sequence[int]) -> Any:
        """See ReadsIds."""
        assert {type(token) for token in tokens} == {int}
        self._add(tokens)
        return self.logits

    def look(self, tokens: Any) -> Any:
        """See LooksAhead."""
        found = []
        for each in zip(*self._taken(tokens), strict=True):
            self._add(each)
            found.append(self.array.copy())
        return self._given(numpy.stack(found, 1))

    def reorder(self, rows: Any) -> None:
        """See Session."""
        self.rows = [list(self.rows[row]) for row in self._taken(rows)]
        self.array = self._now()

    def fork(self, rows: Any) -> Read:
        """See Session."""
        return Read(self.owner, [list(self.rows[row]) for row in self._taken(rows)])

    def rewind(self, tokens: int) -> None:
        """See Session."""
        for row in self.rows:
            del row[len(row) - tokens :]

    def extend(self, prompt: Any, *, conditions: Any, room: int, states: bool, places: Any = None) -> None:
        """See Continuable."""
        for token in prompt[:, 0]:
            self._add([int(token)])

    def close(self) -> None:
        """See Session."""

    discard = close


class Plain:
    """Such a decoder whose sessions only step, by arrays or tensors."""

    def __init__(self, kind: str = "array") -> None:
        self.inner = Numeric(kind)

    def start(self, prompts: Sequence[Any], **asked: Any) -> Stepping:
        """See Decoder."""
        return Stepping(self.inner.start(prompts, **asked))


class Stepping:
    """See Plain."""

    def __init__(self, inner: Read) -> None:
        self.inner = inner
        self.step, self.reorder, self.fork, self.rewind, self.close = inner.step, inner.reorder, inner.fork, inner.rewind, inner.close

    @property
    def logits(self) -> Any:
        """See Session."""
        return self.inner.logits

    @property
    def states(self) -> Any:
        """See Session."""
        return self.inner.states
