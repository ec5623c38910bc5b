"""The least time of a case: what is multiplied is counted, and divided by what the processor does."""

from __future__ import annotations

import pytest
import torch

from benchmarks import bounds, limits


def test_products_are_counted_by_what_they_multiply():
    """Of matrices and a convolution by their sizes; attention is products too, of what was computed."""
    linear, patches = torch.nn.Linear(6, 10), torch.nn.Conv2d(3, 5, 4, stride=4)
    heads = torch.randn(2, 3, 7, 8)

    def run():
        linear(torch.randn(2, 4, 6))
        patches(torch.randn(1, 3, 8, 12))
        torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)

    found = bounds.multiplied(run)
    by_weights = sum(found[name] for name in bounds.OF_MATRICES)
    assert by_weights == 2 * 4 * 6 * 10 + 2 * 3 * (3 * 4 * 4) * 5
    assert sum(found.values()) - by_weights == 2 * (2 * 3 * 7 * 7 * 8)


@pytest.mark.parametrize(("precision", "wanted"), [("float32", 20 + 5 + 3 * 4 * 2), ("int8", 10 + 5 + 3 * 1 * 2)])
def test_the_least_time_is_that_of_products_and_of_weights_read(precision, wanted):
    """In milliseconds, at 1, 2 and 0.5 thousand millions a second."""
    counted = {"by_weights": 20_000_000, "others": 5_000_000, "steps": 3, "weights": 1_000_000}
    fastest = {"float32": 1.0, "int8": 2.0, "read": 0.5}
    assert bounds.least_ms(counted, fastest, precision) == pytest.approx(wanted)


def test_the_fastest_of_each_kind_counts_and_eight_bits_may_be_multiplied_as_float32():
    """By the best of its rounds: a bound that something has passed is none."""
    found = {"float32": {"a": [1.0, 9.0, 5.0], "b": [4.0]}, "int8": {"a": [3.0]}, "read": {"a": [2.0], "b": [6.0]}}
    assert limits.fastest(found) == {"float32": 9.0, "int8": 9.0, "read": 6.0}


@pytest.mark.parametrize("kind", ["float32", "as they lie", "int8", "uint8"])
def test_every_kind_of_product_runs_here(kind):
    (found,) = limits.products([(64, 32)], 3, kind=kind)()
    assert found.shape == (3, 32)
