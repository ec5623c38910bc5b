"""What a sweep is written in: lists, times, shares, counts and values as words."""

from __future__ import annotations

import pytest

from modelgraft_plugins.benching import words
from modelgraft_plugins.listed import listed


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a,b", ["a", "b"]),
        (" a , b ", ["a", "b"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ('"a, b",c', ['"a, b"', "c"]),
        ("it's,x", ["it's", "x"]),
        ("f(a, b),{c, d}", ["f(a, b)", "{c, d}"]),
    ],
)
def test_a_list_is_cut_at_its_own_commas(text, parts):
    """Not at those of a list or a text within."""
    assert listed(text) == parts


@pytest.mark.parametrize("text", ["", "a,", ",a", "a,,b", "a,b,a"])
def test_a_list_with_a_hole_or_a_twin_is_refused(text):
    """A cell without a value, or measured twice, is nothing that anybody asks for."""
    with pytest.raises(ValueError, match="found '"):
        listed(text)


@pytest.mark.parametrize(("word", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("300ms", 0.3), ("2", 2), ("1.5 min", 90)])
def test_times_have_units(word, seconds):
    """Seconds without one."""
    assert words.duration(word) == pytest.approx(seconds)


@pytest.mark.parametrize(("word", "found"), [("3%", 0.03), ("0.05", 0.05), ("12.5%", 0.125)])
def test_parts_are_read_with_and_without_the_sign(word, found):
    """As people write them."""
    assert words.part(word) == pytest.approx(found)


@pytest.mark.parametrize(
    ("read", "word"),
    [
        *((words.duration, word) for word in ("", "0", "-1s", "5 days", "nan", "s")),
        *((words.part, word) for word in ("0", "100%", "-3%", "x", "nan", "1")),
        *((words.counts, [word]) for word in ("0", "1.5", "-2", True, "x")),
    ],
)
def test_what_is_no_such_number_is_told(read, word):
    """With what was wanted."""
    with pytest.raises(ValueError, match="wanted"):
        read(word)


@pytest.mark.parametrize("value", ["5", "true", "null", "a b", "[x]", 'say "hi"', "", "1e-3", 7, 0.5, True, None])
def test_a_value_of_a_file_becomes_a_word_that_means_it(value):
    """So that the command of a cell sets what the file said."""
    assert words.value_named(words.word_of(value)) == value
