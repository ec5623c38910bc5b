"""Search by cosine among the vectors of all records: recall at k, and the median rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from modelgraft.plugin import Embedding, LoadContext
    from modelgraft_plugins.metrics import MedianRank, Recall
    from modelgraft_plugins.metrics.answers import Rows

    Vectors = NDArray[numpy.float32]
    Rank = Callable[[Any, Sequence[Sequence[Embedding]]], Rows]

AT_ONCE = 512  # queries that are compared with all others at a time: the memory of a search is that of so many rows


def recall(config: Recall, _context: LoadContext) -> Rank:
    """Row: hits, and queries."""
    return _over(config.queries, lambda ranks: [sum(rank <= config.k for rank in ranks), len(ranks)])


def median_rank(config: MedianRank, _context: LoadContext) -> Rank:
    """Row: the median of the ranks of a record."""
    return _over(config.queries, lambda ranks: [sorted(ranks)[len(ranks) // 2]])


def _over(queries: str, row: Callable[[list[int]], list[float]]) -> Rank:
    def score(predictions: Any, references: Sequence[Sequence[Embedding]]) -> Rows:
        if bare := [index for index, those in enumerate(references) if not those]:
            raise ValueError(f"record {bare[0]} has no references to be found")
        owners = [index for index, those in enumerate(references) for _ in those]
        found, wanted = _unit(predictions), _unit([one for those in references for one in those])
        if found.shape[1] != wanted.shape[1]:
            raise ValueError(
                f"predictions are vectors of {found.shape[1]} numbers, references of {wanted.shape[1]}: they are of other spaces"
            )
        if queries == "predictions":
            return [row([rank]) for rank in _ranks(found, wanted, owners, list(range(len(found))))]
        ranks: list[list[int]] = [[] for _ in references]
        for owner, rank in zip(owners, _ranks(wanted, found, list(range(len(found))), owners), strict=True):
            ranks[owner].append(rank)
        return [row(those) for those in ranks]

    return score


def _ranks(queries: Vectors, gallery: Vectors, owners: Sequence[int], wanted: Sequence[int]) -> Iterator[int]:
    """The rank of the best right member of the gallery for each query: behind all others that are as near.

    owners  of the members of the gallery;  wanted  whose members are right, for each query
    """
    import numpy

    owned, right = numpy.asarray(owners), numpy.asarray(wanted)
    for start in range(0, len(queries), AT_ONCE):
        near = queries[start : start + AT_ONCE] @ gallery.T
        is_right = owned[None, :] == right[start : start + AT_ONCE, None]
        best = numpy.where(is_right, near, -numpy.inf).max(axis=1)
        ahead = (numpy.where(is_right, -numpy.inf, near) >= best[:, None]).sum(axis=1)
        yield from (int(count) + 1 for count in ahead)


def _unit(vectors: Any) -> Vectors:
    """Vectors of the length 1, whatever they come as: records or a tensor."""
    import numpy

    plain = vectors.float().cpu().numpy() if hasattr(vectors, "cpu") else numpy.stack([one.vector for one in vectors])
    lengths = numpy.linalg.norm(plain, axis=1, keepdims=True)
    unit: Vectors = (plain / numpy.maximum(lengths, numpy.finfo(numpy.float32).tiny)).astype(numpy.float32)
    return unit
