"""The nearest of many vectors: exactly, by comparing with each, or by an approximate graph of usearch whose hits are compared exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelgraft.plugin import InputError

Vectors = NDArray[np.float32]
Found = tuple[NDArray[np.int64], Vectors]  # rows and scores, both [queries count], nearest first

AT_ONCE = 1 << 24  # scores that are held at a time: 64 MB
TRIED = 4  # candidates that an approximate search gives for each hit: they are compared exactly
SAMPLE, AMONG = 200, 10  # of which recall is measured: so many vectors, and the ten nearest of each
EFFORT = 128  # usearch's expansion: more finds more, and takes longer


def unit(vectors: NDArray[Any]) -> Vectors:
    """Vectors of length 1. Raises InputError for one that has no direction."""
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    if not bool(np.isfinite(lengths).all() and (lengths > 0).all()):
        raise InputError("a vector has no direction: it is zero, or holds numbers that are not finite")
    found: Vectors = (wide / lengths).astype(np.float32)
    return found


def exact(vectors: Vectors, queries: Vectors, count: int) -> Found:
    """Compare every query with every vector; of equals the first comes first.

    vectors  float32[entries width], queries float32[queries width], both of length 1
    """
    step = max(1, AT_ONCE // max(1, len(vectors)))
    found = [_best(queries[start : start + step] @ vectors.T, count) for start in range(0, len(queries), step)]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])


def _best(scores: Vectors, count: int) -> Found:
    """The highest of each row, in order."""
    count = min(count, scores.shape[1])
    rows = np.empty((len(scores), count), np.int64)
    for place, line in enumerate(scores):
        least = np.partition(line, -count)[-count]
        among = np.flatnonzero(line >= least)
        rows[place] = among[np.argsort(-line[among], kind="stable")][:count]
    return rows, np.take_along_axis(scores, rows, axis=1)


def graph_of(vectors: Vectors) -> NDArray[np.uint8]:
    """An approximate index of vectors in usearch's own form, with half precision inside."""
    index = _usearch().Index(ndim=vectors.shape[1], metric="ip", dtype="f16", expansion_add=EFFORT, expansion_search=EFFORT)
    index.add(np.arange(len(vectors), dtype=np.uint64), vectors)
    return np.frombuffer(bytes(index.save()), np.uint8)


class Approximate:
    """An approximate index that is searched; several may search at once."""

    def __init__(self, vectors: Vectors, graph: NDArray[np.uint8]) -> None:
        self._vectors = vectors
        self._index = _usearch().Index.restore(graph.tobytes())
        if self._index is None or len(self._index) != len(vectors) or self._index.ndim != vectors.shape[1]:
            raise InputError("the approximate graph of the index is not one of its vectors: index the folder again")

    def search(self, queries: Vectors, count: int) -> Found:
        """As `exact`, among what the graph finds; where that is too little, among all."""
        rows, scores = [], []
        for query in queries:
            near = np.sort(self._index.search(query, min(TRIED * count, len(self._vectors))).keys.astype(np.int64))
            if len(near) < min(count, len(self._vectors)):
                near = np.arange(len(self._vectors))
            place, score = _best(query[None] @ self._vectors[near].T, count)
            rows.append(near[place[0]])
            scores.append(score[0])
        return np.stack(rows), np.stack(scores)


def recall_of(vectors: Vectors, graph: NDArray[np.uint8]) -> float:
    """The share of the ten nearest to vectors of the index that the graph finds, of a sample drawn evenly."""
    asked = vectors[np.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors))).astype(int)]
    wanted, found = exact(vectors, asked, AMONG)[0], Approximate(vectors, graph).search(asked, AMONG)[0]
    shared = sum(len(set(one) & set(other)) for one, other in zip(wanted.tolist(), found.tolist(), strict=True))
    return float(shared / wanted.size)


def _usearch() -> Any:  # Any: a module without complete types
    try:
        from usearch import index
    except ImportError as error:
        raise InputError("approximate search is usearch's: pip install 'modelgraft[retrieval]'; exact search needs nothing more") from error
    return index
