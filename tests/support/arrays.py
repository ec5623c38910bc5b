"""Small parts that give and take arrays of numpy."""

from __future__ import annotations

import numpy

from support.running import TEXT, function

FLOATS = "float[batch 2]"


def lengths(x):
    """The length of each text and its half, float32[batch 2]."""
    return numpy.array([[len(text), len(text) / 2] for text in x], numpy.float32)


def measuring(**facts):
    """Code that gives arrays."""
    return function("toy/lengths", TEXT, {"out": FLOATS}, lengths, arrays=True, **facts)


def doubling(seen, *, arrays):
    """Code that doubles, and notes the class of what it was given."""

    def double(x):
        seen.note(type(x))
        return x * 2

    return function("toy/arrays" if arrays else "toy/tensors", {"x": FLOATS}, {"out": FLOATS}, double, arrays=arrays)


CHAIN = {
    "long": {"use": "toy/lengths", "in": {"x": "inputs.x"}},
    "one": {"use": "toy/tensors", "in": {"x": "long"}},
    "two": {"use": "toy/arrays", "in": {"x": "one"}},
    "three": {"use": "toy/arrays", "in": {"x": "two"}},
    "four": {"use": "toy/tensors", "in": {"x": "three"}},
}
