"""Keys and values of what a decoder has read, laid out once for a whole answer."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class Slab(DynamicLayer):  # type: ignore[no-untyped-call]  # transformers is only partly annotated
    """One layer's keys and values in memory that is allocated once; what was written so far is seen as a view.

    Growing by concatenation, as DynamicLayer does, copies all of it at every token and holds both copies for a moment.
    """

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room, self.length = room, 0
        self.all_keys: Tensor | None = None
        self.all_values: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002 as in the base
        """Write new positions, [batch heads tokens d] each; gives all that were written."""
        if self.all_keys is None or self.all_values is None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.all_keys, self.all_values = _empty(key_states, self.room), _empty(value_states, self.room)
            self.is_initialized = True
        start, self.length = self.length, self.length + key_states.shape[2]
        self.all_keys[:, :, start : self.length] = key_states
        self.all_values[:, :, start : self.length] = value_states
        self.keys, self.values = self.all_keys[:, :, : self.length], self.all_values[:, :, : self.length]
        if start == 0:
            return key_states, value_states  # the same numbers, but close together: attention over a prompt is faster on them
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """How many positions are written."""
        return self.length

    def reorder(self, rows: Tensor, *, is_own: bool = True) -> None:
        """Let row i hold what row `rows[i]` holds; the number of rows may change. is_own: nobody else sees this memory."""
        if self.all_keys is None or self.all_values is None:
            return
        whole = (self.all_keys, self.all_values)
        self.all_keys, self.all_values = (_gather(part, rows, self.length, is_own=is_own) for part in whole)
        self.keys, self.values = self.all_keys[:, :, : self.length], self.all_values[:, :, : self.length]

    def rewind(self, length: int) -> None:
        """Forget all positions but the first."""
        self.length = length
        if self.all_keys is not None and self.all_values is not None:
            self.keys, self.values = self.all_keys[:, :, :length], self.all_values[:, :, :length]

    def make_room(self, room: int) -> None:
        """Let so many positions be written."""
        if self.all_keys is None or self.all_values is None or room <= self.room:
            self.room = max(room, self.room)
            return
        self.room = room
        self.all_keys, self.all_values = (_longer(whole, room, self.length) for whole in (self.all_keys, self.all_values))
        self.rewind(self.length)

    @property
    def nbytes(self) -> int:
        """What its memory takes."""
        return 0 if self.all_keys is None or self.all_values is None else self.all_keys.nbytes + self.all_values.nbytes

    def fork(self, rows: Tensor) -> Slab:
        """Another layer, whose row i holds what row `rows[i]` of this one holds."""
        other = copy.copy(self)
        other.reorder(rows, is_own=False)
        return other


def _longer(whole: Tensor, room: int, length: int) -> Tensor:
    longer = _empty(whole, room)
    longer[:, :, :length] = whole[:, :, :length]
    return longer


def _empty(states: Tensor, room: int) -> Tensor:
    batch, heads, _, width = states.shape
    return torch.empty((batch, heads, room, width), dtype=states.dtype, device=states.device)


def _gather(whole: Tensor, rows: Tensor, length: int, *, is_own: bool = True) -> Tensor:
    picked = whole[:, :, :length].index_select(0, rows)
    if len(rows) != whole.shape[0] or not is_own:
        whole = _empty(picked[:, :, :0].expand(len(rows), -1, -1, -1), whole.shape[2])
    whole[:, :, :length] = picked
    return whole


def cache_of(config: Any, room: int) -> Cache:
    """A cache for one run of a decoder: slabs, and what transformers chooses for layers that are no plain attention."""
    cache = DynamicCache(config=config)
    if not cache.layers:
        layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers  # of T5 they may differ from the encoder's
        return Cache(layers=[Slab(room) for _ in range(layers)])
    cache.layers = [Slab(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def reorder(cache: Cache, rows: Tensor) -> None:
    """Reorder every layer of a cache."""
    for layer in cache.layers:
        if isinstance(layer, Slab):
            layer.reorder(rows)
        else:
            layer.batch_select_indices(rows)  # type: ignore[union-attr]  # every layer that decoders have can do it


def fork(cache: Cache, rows: Tensor) -> Cache:
    """Another cache, whose row i holds what row `rows[i]` of this one holds."""
    layers = list[Any]()  # Any: as transformers chooses them
    for layer in cache.layers:
        if isinstance(layer, Slab):
            layers.append(layer.fork(rows))
        else:
            layers.append(copy.deepcopy(layer))
            layers[-1].batch_select_indices(rows)
    other = copy.copy(cache)
    other.layers = layers
    return other


def can_forget(config: Any) -> bool:
    """Whether the last positions can be taken back: not of windows, which have let go of earlier ones, nor of states that are summed."""
    return all(isinstance(layer, Slab) for layer in cache_of(config, 1).layers)


def rewind(cache: Cache, length: int) -> None:
    """Forget all positions but the first, of a cache that can: see `can_forget`."""
    for layer in _slabs(cache):
        layer.rewind(length)


def make_room(cache: Cache, room: int) -> None:
    """Let so many positions be written to such a cache."""
    for layer in _slabs(cache):
        layer.make_room(room)


def bytes_of(cache: Cache) -> int:
    """What the memory of a cache takes, as far as it is in slabs."""
    return sum(layer.nbytes for layer in _slabs(cache))


def _slabs(cache: Cache) -> list[Slab]:
    return [layer for layer in cache.layers if isinstance(layer, Slab)]
