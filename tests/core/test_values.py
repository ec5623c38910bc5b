"""What a user gives becomes a batch; what is no record of the port's kind is refused."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image

from modelgraft import InputError, port
from modelgraft.values import Audio, describe, present, read_input, spread


def test_a_list_is_a_batch_and_a_single_value_a_batch_of_one():
    """Of texts; and of lists of texts, where one list is one record."""
    one, two = read_input("prompt", port("text"), "a"), read_input("prompt", port("text"), ["a", "b"])
    assert (one.value, one.count, one.single) == (["a"], 1, True)
    assert (two.value, two.count, two.single) == (["a", "b"], 2, False)
    labels = read_input("labels", port("list[text]"), ["cat", "dog"])
    assert (labels.value, labels.single) == ([["cat", "dog"]], True)
    assert read_input("labels", port("list[text]"), [["cat"], ["dog"]]).count == 2


def test_a_single_record_is_repeated_to_the_size_of_the_batch():
    """Texts and tensors alike."""
    assert spread(read_input("p", port("text"), "a"), 3) == ["a", "a", "a"]
    tensor = torch.randn(1, 2)
    assert torch.equal(spread(read_input("t", port("float[batch n]"), tensor), 3), torch.cat([tensor] * 3))


def test_one_record_comes_back_as_itself_and_tensors_whole():
    """A list of one becomes its record only when one record was given."""
    assert present(port("text"), ["a"], single=True) == "a"
    assert present(port("text"), ["a"], single=False) == ["a"]
    tensor = torch.zeros(1, 3)
    assert present(port("float[batch n]"), tensor, single=True) is tensor


def test_an_object_is_handed_on_by_reference():
    """A payload is the same object in the batch."""
    payload = {"id": 7}
    assert read_input("x", port("object"), payload).value[0] is payload


def test_arrays_share_their_memory_with_the_tensor():
    """No copy of a large array; a read-only one is copied rather than made writable."""
    array = numpy.zeros((1, 4), numpy.float32)
    tensor = read_input("x", port("float[batch n]"), array).value
    array[0, 0] = 7
    assert tensor[0, 0] == 7
    array.flags.writeable = False
    assert read_input("x", port("float[batch n]"), array).value[0, 0] == 7


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("text", 3, r"input 'x': found 3, wanted text: a string"),
        ("text", ["a", None], r"input 'x'\[1\]: found None, wanted text"),
        ("text", [], "the batch is empty"),
        ("image", 3.5, "found 3.5, wanted an image: a file name, bytes"),
        ("image", numpy.zeros((4, 4, 3)), r"found float64\[4 4 3\], wanted uint8\[height width\]"),
        ("image", numpy.zeros((0, 4, 3), numpy.uint8), r"found uint8\[0 4 3\]"),
        ("audio", numpy.zeros(3), r"wanted audio: a file name, bytes, modelgraft.Audio or \(samples, sample_rate_hz\)"),
        ("audio", Audio(numpy.zeros((1, 0), numpy.float32), 8000), "at least one frame"),
        ("list[text]", "cat", r"found 'cat', wanted list\[text\]: a list, such as \[a, b\]"),
        ("list[text]", ["cat", 3], r"\[1\]: found 3, wanted text"),
        ("conversation", [{"role": "user"}], "wanted a mapping of exactly `role`"),
        ("conversation", [{"role": "user", "content": [{"type": "smell"}]}], r"message 0 part 0: found .*wanted \{type: text"),
        ("boxes", [{"x0": 1}], "box 0: found .* wanted a mapping with the numbers x0, y0, x1, y1"),
        ("float[batch 3]", torch.zeros(2, 4), r"found float32\[2 4\], wanted float\[batch 3\]: an axis is 4 long, not 3"),
        ("float[batch 3]", torch.zeros(3), r"it has 1 axes, not 2"),
        ("int[batch]", torch.zeros(3), r"the dtype is float32, not int16 or int32"),
        ("float[batch n]", [["a"]], r"wanted numbers for float\[batch n\]"),
        ("float[batch n]", object(), "a tensor, an array or lists of numbers"),
    ],
)
def test_what_is_no_record_of_the_kind_is_refused(text, value, message):
    """The message names the input, what was found and what was wanted."""
    with pytest.raises(InputError, match=message):
        read_input("x", port(text), value)


def test_a_conversation_has_one_form_inside():
    """A string, text content and parts become messages of parts; pictures in them are decoded."""
    picture = Image.new("RGB", (3, 2))
    given = read_input(
        "c", port("conversation"), [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "?"}]}]
    )
    assert given.single
    assert given.value[0][0]["content"][0]["image"] is picture
    short = read_input("c", port("conversation"), "Hi").value[0]
    assert short == ({"role": "user", "content": [{"type": "text", "text": "Hi"}]},)


def test_a_tensor_may_take_the_place_of_a_text():
    """Of the alternatives of a port the value's kind decides."""
    both = port("text | float[batch n 2]")
    assert isinstance(read_input("x", both, torch.zeros(1, 3, 2)).value, torch.Tensor)
    assert read_input("x", both, "a").value == ["a"]


def test_values_are_named_short_in_messages():
    """Shapes instead of contents, long texts cut."""
    assert describe(torch.zeros(2, 3)) == "float32[2 3]"
    assert describe("x" * 99) == repr("x" * 37 + "...")
    assert describe([1, 2]) == "a list of 2"
