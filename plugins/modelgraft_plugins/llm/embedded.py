"""Embeddings of media on their way into prompts: arrays of numpy before an exported decoder, tensors of torch before one in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modelgraft.plugin import Array, Table, as_array, as_tensor


def is_embedded(value: Any) -> bool:
    """Whether a value of a field is embeddings, and no text and no conversation; a text of numpy's has a shape, but no axes."""
    return bool(getattr(value, "ndim", 0))


def joined(parts: Sequence[Any], axis: int = 0) -> Any:
    """Parts of one kind, arrays or tensors, behind each other."""
    if hasattr(parts[0], "detach"):
        import torch

        return torch.cat(list(parts), axis)
    import numpy

    return numpy.concatenate(list(parts), axis)


def cut(whole: Array, sizes: Sequence[int], axis: int = 0) -> list[Any]:
    """Parts of so many embeddings each, which are views."""
    found, start = list[Any](), 0
    for size in sizes:
        place = (*[slice(None)] * axis, slice(start, start + size))
        found.append(whole[place])
        start += size
    return found


def spliced(table: Callable[[Any], Any], ids: Sequence[int], media: Array | None, places: Sequence[int], *, device: str) -> Array:
    """Embedded tokens with media in their places, float[tokens width]: an array where the table is one that numpy indexes, else a tensor.

    table   int64[n] -> float[n width], the input embeddings, on `device`
    places  where media go, as many as they have rows; what stands in `ids` there says nothing
    """
    if isinstance(table, Table):
        return _in_numpy(table, ids, media, places)
    import torch

    numbers = torch.tensor(ids, device=device)
    there = torch.tensor(places, dtype=torch.int64, device=device)
    embedded: torch.Tensor = table(numbers if media is None else numbers.index_fill(0, there, 0))
    if media is None:
        return embedded
    return embedded.index_copy(0, there, as_tensor(media).to(device=embedded.device, dtype=embedded.dtype))


def _in_numpy(table: Table, ids: Sequence[int], media: Array | None, places: Sequence[int]) -> Array:
    """See `spliced`; float32."""
    if media is None:
        return table(list(ids))
    taken = frozenset(places)
    embedded = table([0 if place in taken else token for place, token in enumerate(ids)])
    embedded[list(places)] = as_array(media)
    return embedded
