"""The solver of dimensions: equalities, sums and multiples, in any order."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from modelgraft.kernel.checking.solver import Dims
from modelgraft.kernel.words.ports import Axis
from support.work import grows


def axis(text):
    """Read `2*a+b-3`."""
    terms, constant = {}, 0
    for part in text.replace("-", "+-").split("+"):
        sign, word = (-1, part[1:]) if part.startswith("-") else (1, part)
        factor, _, name = word.rpartition("*")
        if name.isdigit():
            constant += sign * int(name)
        else:
            terms[name] = terms.get(name, 0) + sign * int(factor or 1)
    return Axis(tuple(terms.items()), constant)


def solved(*equations, **known):
    dims = Dims()
    for text in equations:
        left, right = text.split("=")
        dims.equate(axis(left), axis(right), why=text)
    for name, value in known.items():
        dims.know(name, value)
    return dims


def test_equal_symbols_share_a_number_whenever_it_comes():
    """Before or after, through any number of steps."""
    dims = solved("a=b", "c=d", "b=c", d=7)
    assert [dims.value(name) for name in "abcd"] == [7, 7, 7, 7]
    assert dims.fact("a").symbol == "d"


def test_sums_and_multiples_are_solved_for_the_last_unknown():
    """In either direction; what waits is solved when its neighbour is."""
    assert solved("tokens+1=257").value("tokens") == 256
    assert solved("4*groups=n", n=256).value("groups") == 64
    dims = solved("a+b=c", "2*b=6", c=10)
    assert (dims.value("a"), dims.value("b")) == (7, 3)


def test_equal_sums_make_their_symbols_equal():
    """a+1 = b+1 needs no number; merged unknowns add up."""
    assert solved("a+1=b+1", b=5).value("a") == 5
    assert solved("a+b=6", "a=b").value("a") == 3


def test_contradictions_are_kept_and_the_first_number_stays():
    """Each with what was given as its reason."""
    dims = solved("a=1408", "a=768", "b=a")
    assert [conflict.why for conflict in dims.conflicts] == ["a=768"]
    assert (dims.value("a"), dims.value("b")) == (1408, 1408)
    twice = Dims()
    twice.know("x", 3)
    twice.know("x", 4)
    assert [(str(c.left), str(c.right)) for c in twice.conflicts] == [("x", "4")]


def test_sizes_are_whole_and_positive():
    """No half tokens, no negative ones, none at all neither."""
    for equation in ("2*a=7", "a+9=2", "a+2=2"):
        dims = solved(equation)
        assert [conflict.why for conflict in dims.conflicts] == [equation]
        assert dims.value("a") is None


def test_what_is_not_decided_stays_open():
    """Two unknowns in one sum."""
    dims = solved("a+b=5")
    assert dims.value("a") is None
    assert dims.conflicts == []


def test_news_are_told_once():
    """The symbols that became known, those that were merged with them as well."""
    dims = solved("a=b")
    assert dims.news() == []
    dims.know("b", 3)
    assert sorted(dims.news()) == ["a", "b"]
    assert dims.news() == []
    dims.equate(axis("c"), axis("a"))
    assert dims.news() == ["c"]


NAMES = st.sampled_from("abcdefgh")


@given(
    sizes=st.lists(st.integers(1, 50), min_size=8, max_size=8),
    drawn=st.lists(st.tuples(NAMES, NAMES, st.integers(1, 4), st.integers(0, 3)), max_size=16),
    told=st.sets(NAMES),
    seed=st.integers(0, 1000),
)
def test_true_equations_never_contradict_and_the_order_changes_nothing(sizes, drawn, told, seed):
    """Equations that hold for a hidden assignment: nothing else is found, in any order."""
    truth = dict(zip("abcdefgh", sizes, strict=True))
    statements = []
    for one, other, factor, extra in drawn:
        left = Axis(((one, factor), (other, 1)) if one != other else ((one, factor + 1),), extra)
        size = left.bind(truth).size
        statements.append((left, Axis((), size)))
    statements += [(Axis(((a, 1),)), Axis(((b, 1),))) for a, b, _, _ in drawn if truth[a] == truth[b]]
    results = []
    for attempt in range(2):
        order = list(statements)
        random.Random(seed + attempt).shuffle(order)
        dims = Dims()
        for left, right in order:
            dims.equate(left, right)
        for name in sorted(told):
            dims.know(name, truth[name])
        assert dims.conflicts == []
        assert all(dims.value(name) in (None, size) for name, size in truth.items())
        assert all(dims.value(name) == truth[name] for name in told)
        results.append({name: dims.value(name) for name in truth})
    assert results[0] == results[1]


def test_work_grows_with_the_number_of_equations():
    """A chain of thirty thousand steps, solved from its far end, and thirty thousand symbols merged into one."""

    def solve(count):
        dims = Dims()
        for index in range(count):
            dims.equate(Axis(((f"n{index}", 1),)), Axis(((f"n{index + 1}", 1),), 1))
        for index in range(count):
            dims.equate(Axis(((f"m{index}", 1),)), Axis((("batch", 1),)))
        dims.know(f"n{count}", 5)
        dims.know("m7", 3)
        assert dims.value("n0") == count + 5
        assert dims.value(f"m{count - 1}") == 3

    solve(30_000)
    assert grows(lambda count: lambda: solve(count), 1_000) < 15  # ten times as much, and a little; quadratic work would be a hundred
