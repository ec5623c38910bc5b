"""The port language: reading, printing, spaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgraft.kernel.words.ports import Axis, PortSyntaxError, Space, Tensor, port

AXES = st.sampled_from(["batch", "tokens", "3", "tokens+1", "2*width", "a+b-4", "height"])
TYPES = st.one_of(
    st.sampled_from(["image", "text", "audio", "list[text]"]),
    st.lists(AXES, min_size=1, max_size=4).map(lambda axes: f"float[{' '.join(axes)}]"),
)


@given(st.lists(TYPES, min_size=1, max_size=3), st.booleans())
def test_a_printed_type_reads_back_as_itself(types, optional):
    """Printing and reading are inverse."""
    text = " | ".join(types)
    parsed = port(f"optional[{text}]" if optional else text)
    assert port(str(parsed)) == parsed
    assert parsed.optional is optional
    assert len(parsed.types) == len(types)


@given(st.integers(-50, 50), st.integers(1, 9), st.integers(1, 99))
def test_an_axis_is_the_sum_it_says(constant, factor, value):
    """Binding the names of an axis gives the number that the formula gives."""
    sign = "+" if constant >= 0 else "-"
    axis = port(f"float[{factor}*tokens{sign}{abs(constant)}]").tensor.axes[0]
    assert axis.bind({"tokens": value}).size == factor * value + constant
    assert axis.bind({"other": value}) == axis


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("float", r"'float' needs axes, e.g. float\[batch\]"),
        ("picture[3]", r"'picture\[...\]' is no dtype; the dtypes are float, int, mask"),
        ("float[a b*2]", r"cannot read the axis 'b\*2'"),
        ("float[... a ...]", "only one '...' can be told apart"),
        ("Image", "cannot read 'Image'"),
        ("", "cannot read ''"),
    ],
)
def test_a_type_that_cannot_be_read_is_named(text, message):
    """The message has the text, the piece that is wrong and what to write."""
    with pytest.raises(PortSyntaxError, match=message):
        port(text)


def test_alternatives_are_cut_outside_brackets_only():
    """`a | b` inside list[...] belongs to the list, outside to the port."""
    parsed = port("text | float[batch n width]")
    assert [str(kind) for kind in parsed.types] == ["text", "float[batch n width]"]
    assert parsed.tensor == Tensor("float", (Axis((("batch", 1),)), Axis((("n", 1),)), Axis((("width", 1),))))


def test_spaces_differ_in_the_facts_that_both_state():
    """A fact that one side leaves open is no difference; another family is."""
    mine = Space.of("pixels", mean=[0.5, 0.5], std=(0.5, 0.5), size=None)
    theirs = Space.of("pixels", mean=(0.4, 0.5), size=224)
    assert mine.differences(theirs) == [("mean", (0.5, 0.5), (0.4, 0.5))]
    assert mine.differences(Space.of("tokens")) == [("family", "pixels", "tokens")]
    assert mine.differences(Space.of("pixels", std=[0.5, 0.5])) == []
