"""The nearest of many vectors: exact search is brute force, approximate search says what it misses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelgraft as mg
from modelgraft_plugins.retrieval import searching


def vectors(rows, width, seed=0):
    return searching.unit(np.random.default_rng(seed).standard_normal((rows, width)))


def brute_force(held, asked, count):
    """Every product, sorted by a loop: higher first, of equals the earlier."""
    scores = asked @ held.T
    rows = [sorted(range(len(held)), key=lambda row, line=line: (-line[row], row))[:count] for line in scores]
    return np.array(rows), np.array([[line[row] for row in near] for line, near in zip(scores, rows, strict=True)])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5), st.integers(1, 50), st.booleans(), st.integers(0, 9))
def test_exact_search_is_brute_force(rows, width, queries, count, are_doubled, seed):
    """Also with vectors that stand there twice, and where more are wanted than there are."""
    held = vectors(rows, width, seed)
    held = np.concatenate([held, held[: rows // 2 + 1]]) if are_doubled else held
    asked = vectors(queries, width, seed + 1)
    found, wanted = searching.exact(held, asked, count), brute_force(held, asked, count)
    assert np.array_equal(found[0], wanted[0])
    assert np.array_equal(found[1], wanted[1])


def test_exact_search_is_the_same_piece_by_piece(monkeypatch):
    """Where not all scores fit into memory at once."""
    held, asked = vectors(31, 5), vectors(7, 5, 1)
    monkeypatch.setattr(searching, "AT_ONCE", 64)
    assert np.array_equal(searching.exact(held, asked, 4)[0], brute_force(held, asked, 4)[0])


def test_scores_are_cosines_and_vectors_without_direction_are_refused():
    """Lengths do not count."""
    held = searching.unit(np.array([[3.0, 0.0], [0.0, 0.5], [-1.0, 0.0]]))
    rows, scores = searching.exact(held, searching.unit(np.array([[2.0, 2.0]])), 3)
    assert rows.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(scores, [[np.sqrt(0.5), np.sqrt(0.5), -np.sqrt(0.5)]], atol=1e-7)
    for vector in ([0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(mg.InputError, match="no direction"):
            searching.unit(np.array([vector]))


def test_an_approximate_graph_finds_most_and_scores_them_exactly():
    """What it finds has the scores of brute force, and its recall is the share of the true ten that it finds."""
    pytest.importorskip("usearch", reason="approximate search is usearch's")
    held, asked = vectors(1_500, 24), vectors(20, 24, 1)
    graph = searching.graph_of(held)
    rows, scores = searching.Approximate(held, graph).search(asked, 10)
    np.testing.assert_allclose(scores, np.take_along_axis(asked @ held.T, rows, 1), atol=1e-6)
    assert all(list(line) == sorted(line, reverse=True) for line in scores.tolist())
    wanted = brute_force(held, asked, 10)[0]
    share = sum(len({*one} & {*other}) for one, other in zip(rows.tolist(), wanted.tolist(), strict=True)) / wanted.size
    assert share > 0.9
    assert 0.9 < searching.recall_of(held, graph) <= 1.0


def test_a_graph_of_other_vectors_is_refused():
    pytest.importorskip("usearch", reason="approximate search is usearch's")
    graph = searching.graph_of(vectors(9, 4))
    with pytest.raises(mg.InputError, match="not one of its vectors"):
        searching.Approximate(vectors(8, 4), graph)
