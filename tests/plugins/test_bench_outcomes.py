"""What cells answer: written by one process, read by another, and held beside each other."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from PIL import Image

import modelgraft as mg
from modelgraft_plugins.benching.outcomes import Answers, Outcomes, likeness


def kept(folder, *outputs):
    outcomes = Outcomes(folder)
    for record, values in enumerate(outputs):
        outcomes.add(record, values)
    return Answers(folder)


VALUES = {
    "text": "käse",
    "none": None,
    "absent": mg.ABSENT,
    "whole": 7,
    "number": 0.1,
    "endless": math.inf,
    "list": ["a", [1, 2.5]],
    "parts": {"box": [1.0, 2.0], "of": "cat"},
    "single": torch.tensor(3.25),
    "empty": torch.zeros(0, 3),
    "matrix": torch.arange(6, dtype=torch.int64).reshape(2, 3),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "array": numpy.arange(5, dtype=numpy.float32)[::2],
    "picture": Image.new("RGB", (2, 3), (1, 2, 3)),
    "sound": mg.Audio(numpy.array([0.0, 0.5], dtype=numpy.float32), 16_000),
}


def test_what_is_read_is_what_was_written(tmp_path):
    """Also the second record, whose arrays lie behind those of the first."""
    answers = dict(kept(tmp_path, VALUES, {"matrix": torch.full((3, 1), 9.5)}).read())
    first = answers[0]
    for name in ("text", "none", "absent", "whole", "number", "endless", "list", "parts"):
        assert first[name] == VALUES[name], name
    assert first["single"].shape == ()
    assert first["single"] == 3.25
    assert first["empty"].shape == (0, 3)
    assert first["matrix"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert first["half"].tolist() == [1.5]
    assert first["array"].tolist() == [0.0, 2.0, 4.0]
    assert first["picture"].shape == (3, 2, 3)
    assert first["picture"][0, 0].tolist() == [1, 2, 3]
    assert first["sound"]["samples"].tolist() == [0.0, 0.5]
    assert answers[1]["matrix"].tolist() == [[9.5], [9.5], [9.5]]
    assert list(kept(tmp_path / "other", {}, {"a": 1}).of([1])) == [1]


def test_parity_is_the_largest_difference_as_a_part_of_the_largest_value(tmp_path):
    """Over all records, by output; whole numbers and texts are answers."""
    first = kept(tmp_path / "a", {"x": torch.tensor([1.0, -4.0]), "text": "a"}, {"x": torch.tensor([2.0, 0.0]), "text": "b"})
    second = kept(tmp_path / "b", {"x": torch.tensor([1.0, -4.0]), "text": "a"}, {"x": torch.tensor([2.5, 0.0]), "text": "c"})
    alike = likeness(first, second)
    assert alike.parity == {"x": 0.125}
    assert alike.agreement == 0.5
    assert likeness(first, second, without={1}).agreement == 1.0


@pytest.mark.parametrize(
    ("one", "other", "parity"),
    [
        ([math.nan, 1.0], [math.nan, 1.0], 0.0),
        ([math.nan, 1.0], [0.0, 1.0], 1.0),
        ([math.inf, 2.0], [math.inf, 1.0], 0.5),
        ([0.0], [0.5], 1.0),
        ([1.0], [9.0], 1.0),
        ([[0.5, 1.0]], [[0.5, 0.5]], 0.5),
    ],
)
def test_parity_of_numbers_that_are_none_and_of_zeros(tmp_path, one, other, parity):
    """Never more than 1, never a number that JSON has not."""
    assert likeness(kept(tmp_path / "a", {"x": one}), kept(tmp_path / "b", {"x": other})).parity == {"x": parity}


def test_numbers_of_another_shape_are_not_compared(tmp_path):
    """The reason is told; of numbers alone there is no agreement."""
    alike = likeness(kept(tmp_path / "a", {"x": torch.ones(2, 3)}), kept(tmp_path / "b", {"x": torch.ones(3, 2)}))
    assert alike.parity == {}
    assert alike.unlike == {"x": "its shape is [3, 2], and that of the baseline [2, 3]"}
    assert alike.agreement is None


def test_records_that_only_one_has_are_left_out(tmp_path):
    """And outputs that only one has."""
    alike = likeness(kept(tmp_path / "a", {"t": "a", "u": "b"}, {"t": "c"}), kept(tmp_path / "b", {"t": "a"}))
    assert (alike.n, alike.agreement) == (1, 1.0)
