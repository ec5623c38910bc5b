"""Numbers for people keep what matters of them."""

from __future__ import annotations

import pytest

from modelgraft.kernel.words.sizes import bytes_of, sizes_of
from modelgraft.records.amounts import in_bytes, in_seconds, short_count


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


@pytest.mark.parametrize(
    ("word", "number"),
    [(700, 700), ("700", 700), ("8GB", 8_000_000_000), ("1.5 gb", 1_500_000_000), ("500MiB", 500 << 20), ("2KiB", 2048), ("7 B", 7)],
)
def test_bytes_are_read_as_they_are_written(word, number):
    """Powers of 1000, or of 1024 with an i."""
    assert bytes_of(word) == number


@pytest.mark.parametrize("word", ["", "GB", "-3GB", "0", 0, True, None, 2.5e-3, "8 apples", "8GiB of", "1e9", [1]])
def test_what_is_no_size_says_what_is_wanted(word):
    """With an example of both forms."""
    with pytest.raises(ValueError, match="wanted: a size such as 8GB or 500MiB, or one for each device: cpu=2GB,cuda:0=8GB"):
        bytes_of(word)


@pytest.mark.parametrize(
    ("found", "sizes"),
    [
        ("8GB", {"*": 8_000_000_000}),
        ("cpu=2GB, cuda:0=500MiB", {"cpu": 2_000_000_000, "cuda:0": 500 << 20}),
        ({"cpu": "2GB", "cuda:1": 7}, {"cpu": 2_000_000_000, "cuda:1": 7}),
        (9, {"*": 9}),
    ],
)
def test_sizes_are_of_every_device_or_of_each(found, sizes):
    """One alone is that of each device."""
    assert sizes_of(found) == sizes


@pytest.mark.parametrize("found", ["cpu=1GB,cpu=2GB", "cpu=", "=2GB", {0: "8GB"}, {"cpu": None}, "cpu=2GB;cuda:0=8GB"])
def test_sizes_that_mean_nothing_are_refused(found):
    """Twice the same device, none, or no size."""
    with pytest.raises(ValueError, match="wanted: a size such as 8GB"):
        sizes_of(found)
