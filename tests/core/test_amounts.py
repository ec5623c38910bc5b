"""Numbers for people keep what matters of them."""

from __future__ import annotations

import pytest

from modelgraft.kernel.words.amounts import in_bytes, in_seconds, short_count


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (985, "985"), (1_000, "1.00 k"), (12_345, "12.3 k"), (985_952_256, "986 M"), (999_960, "1.00 M"), (2_651_596_800, "2.65 B")],
)
def test_counts_keep_three_digits(number, text):
    """Large numbers are readable at a glance."""
    assert short_count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 µs"),
        (12.3e-6, "12.3 µs"),
        (3.4e-3, "3.40 ms"),
        (0.9999, "1.00 s"),
        (1.25, "1.25 s"),
        (95.4, "95.4 s"),
        (1234.5, "1234 s"),
    ],
)
def test_seconds_keep_three_digits(seconds, text):
    """From microseconds to minutes."""
    assert in_seconds(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(None, "?"), (985, "985 B"), (12_700, "12.4 KiB"), (1 << 30, "1 GiB")])
def test_bytes_have_a_unit(number, text):
    """And what is not known is a question mark."""
    assert in_bytes(number) == text
