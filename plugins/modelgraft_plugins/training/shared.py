"""What the variants of a sweep have in common: records read once, batches made once, frozen parts run once a batch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from modelgraft.commands import Learning, ReadBatch, size_bytes
from modelgraft.plugin import ModelgraftError

if TYPE_CHECKING:
    import torch

    from modelgraft import Pipeline
    from modelgraft_plugins.training.rows import Rows

T = TypeVar("T")
Ref = Any  # a port of a node, as the plan names it

MOST_BYTES = 256 << 20  # of batches: variants are a step apart at most, and evaluate after the same steps
UNKNOWN_BYTES = 1 << 20  # what is taken for a batch of a type whose size nobody tells


class Shared:
    """What was made for one variant is there for the others, as long as it is near.

    rows  the data that were read, by what they were read for;  front_s  what calling frozen parts took;  calls  and how often
    """

    def __init__(self) -> None:
        self.rows: dict[Hashable, Rows] = {}
        self.front_s, self.calls = 0.0, 0
        self._made: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}
        self._lock = threading.Lock()  # batches may be read ahead by threads

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made under this key, or is made now; another thread that makes it is waited for."""
        with self._lock:
            there: Future[T] | None = self._made.get(key)
            mine: Future[T] = Future()
            if there is None:
                self._made[key] = mine
            else:
                self._made.move_to_end(key)
        if there is not None:
            return there.result()
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._made[key]
            mine.set_exception(error)
            raise
        mine.set_result(made)
        with self._lock:
            self._sizes[key] = _size(made)
            while sum(self._sizes.values()) > MOST_BYTES:
                gone = next(iter(one for one in self._made if one in self._sizes))
                del self._made[gone], self._sizes[gone]
        return made


def once(shared: Shared | None, key: Hashable, make: Callable[[], T]) -> T:
    """As `Shared.once`, where something is shared; else it is made."""
    return make() if shared is None else shared.once(key, make)


def _size(made: Any) -> int:
    values = made.values if isinstance(made, ReadBatch | Seen) else made
    return size_bytes(list(values.values()) if isinstance(values, Mapping) else values) or UNKNOWN_BYTES


@dataclass(frozen=True, slots=True)
class Seen:
    """What frozen parts give for some records, by port; nothing where some are refused: by their index, with the reason."""

    values: Mapping[Ref, torch.Tensor]
    refused: Mapping[int, str]


class Front:
    """The frozen parts before what is trained, which give the same to every variant: called once for each batch.

    key  tells what they give apart from that of other parts, weights and data
    """

    def __init__(self, shared: Shared, pipeline: Pipeline, refs: Sequence[Ref], *, key: str, begin: Callable[[Learning], None]) -> None:
        self.refs, self.key = tuple(refs), key
        self._shared, self._pipeline, self._begin = shared, pipeline, begin
        self._learning: Learning | None = None  # until a batch is wanted that nobody has made

    def take(self, rows: Rows, numbers: Sequence[int], *, seed: int) -> Seen:
        """What the parts give for some records."""
        return self._shared.once((self.key, self.refs, id(rows), *numbers), lambda: self._called(rows, numbers, seed))

    def _called(self, rows: Rows, numbers: Sequence[int], seed: int) -> Seen:
        learning = self._opened()
        batch = learning.read(*rows.take(numbers, learning.inputs))
        if batch.left_out:
            return Seen({}, {index: error.unworded for index, error in batch.left_out.items()})
        start = perf_counter()
        try:
            found = learning(batch, seed=seed)
        except ModelgraftError:
            if refused := self._refused(rows, numbers, seed):
                return Seen({}, refused)
            raise
        self._shared.front_s += perf_counter() - start
        self._shared.calls += 1
        return Seen({ref: found[str(ref)] for ref in self.refs}, {})

    def _opened(self) -> Learning:
        if self._learning is None:
            self._learning = Learning(self._pipeline, [str(ref) for ref in self.refs], learners=())
            self._begin(self._learning)
        return self._learning

    def _refused(self, rows: Rows, numbers: Sequence[int], seed: int) -> dict[int, str]:
        learning = self._opened()
        found: dict[int, str] = {}
        for index, number in enumerate(numbers):
            try:
                learning(learning.read(*rows.take([number], learning.inputs)), seed=seed)
            except ModelgraftError as error:
                found[index] = error.unworded
        return found
