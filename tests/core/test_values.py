"""What a user gives becomes a batch; what is no record of the port's kind is refused."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image

from modelgraft import InputError, port
from modelgraft.records.batch import Batch
from modelgraft.records.sounds import Audio
from modelgraft.records.values import describe, present, read_input


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
    assert Batch(read_input("p", port("text"), "a").value).spread(3) == ["a", "a", "a"]
    tensor = torch.randn(1, 2)
    assert torch.equal(Batch(read_input("t", port("float[batch n]"), tensor).value).spread(3), torch.cat([tensor] * 3))


def test_one_record_comes_back_as_itself_and_tensors_whole():
    """A list of one becomes its record only when one record was given."""
    assert present(port("text"), ["a"], single=True) == "a"
    assert present(port("text"), ["a"], single=False) == ["a"]
    tensor = torch.zeros(1, 3)
    assert present(port("float[batch n]"), tensor, single=True) is tensor


def test_an_object_of_a_plugin_is_handed_on_by_reference():
    """Only its plugin knows how to copy it; what is made of lists and mappings is copied."""
    payload, mapping = object(), {"id": [7]}
    assert read_input("x", port("object"), payload).value[0] is payload
    given = read_input("x", port("object"), mapping).value[0]
    mapping["id"].append(8)
    assert given == {"id": [7]}


def test_what_a_user_gives_is_copied():
    """Later changes by the user reach no run, and no run reaches the user's own."""
    array, tensor = numpy.zeros((1, 4), numpy.float32), torch.zeros(1, 4, requires_grad=True)
    from_array, from_tensor = (read_input("x", port("float[batch n]"), value).value for value in (array, tensor))
    array[0, 0] = 7
    from_tensor[0, 0] = 7
    assert from_array[0, 0] == 0
    assert tensor[0, 0] == 0
    picture, sound = Image.new("RGB", (2, 2)), Audio(numpy.zeros((1, 4), numpy.float32), 8000)
    seen, heard = read_input("x", port("image"), picture).value[0], read_input("x", port("audio"), sound).value[0]
    seen.putpixel((0, 0), (9, 9, 9))
    sound.samples[0, 0] = 1
    assert picture.getpixel((0, 0)) == (0, 0, 0)
    assert heard.samples[0, 0] == 0


def test_an_array_keeps_its_numbers_whatever_its_memory():
    """Other byte orders, backward and sliced arrays: element for element."""
    plain = numpy.arange(24, dtype=numpy.float32).reshape(4, 6)
    for odd in (plain.astype(">f4"), plain[::-1, ::-2], plain.T, numpy.asfortranarray(plain)):
        assert numpy.array_equal(read_input("x", port("float[batch n]"), odd).value.numpy(), odd)


def test_numbers_of_a_list_become_what_the_port_takes():
    """A list has no dtype: whole numbers are floats where that is exact, and never the other way round."""
    assert read_input("x", port("float[batch n]"), [[1, 2]]).value.tolist() == [[1.0, 2.0]]
    assert read_input("x", port("float16[batch n]"), [[0.5]]).value.dtype == torch.float16
    with pytest.raises(InputError, match="the dtype is int64"):
        read_input("x", port("float[batch n]"), [[2**24 + 1]])
    with pytest.raises(InputError, match="the dtype is float32"):
        read_input("x", port("int[batch n]"), [[1.0]])


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("text", 3, r"input 'x': found 3, wanted text: a string"),
        ("text", "a\ud800", r"input 'x': letter 2 of the text is '.ud800', half a character; wanted text that UTF-8 can write"),
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
        (
            "conversation",
            [{"role": "user", "content": [{"type": "text", "text": "?", "detail": "low"}]}],
            r"message 0 part 0: found detail beside type and text, which nothing reads: leave it out",
        ),
        ("boxes", [{"x0": 1}], "box 0: found .* wanted a mapping with the numbers x0, y0, x1, y1"),
        ("float[batch 3]", torch.zeros(2, 4), r"found float32\[2 4\], wanted float\[batch 3\]: an axis is 4 long, not 3"),
        ("float[batch 3]", torch.zeros(3), r"it has 1 axis, not 2; put one record into brackets of its own"),
        ("int[batch]", torch.zeros(3), r"the dtype is float32, not int16 or int32"),
        ("float[batch n]", [["a"]], r"wanted numbers for float\[batch n\]"),
        ("float[batch n]", object(), "a tensor, an array or lists of numbers"),
        ("float[batch n]", [[1e39]], "holds a number beyond what float32 holds"),
        ("int[batch n]", [[2**70]], "wanted numbers for int"),
        ("float[batch n]", numpy.array([["a"]]), "torch has no such numbers"),
        ("float[batch n]", numpy.ma.masked_equal(numpy.ones((1, 2)), 1), r"fill what is masked first, array\.filled\(0\)"),
        ("float[batch n]", torch.zeros(0, 3), "the batch is empty"),
        ("float[batch n]", torch.zeros(1, 2, device="meta"), "a plain tensor with its numbers"),
        ("float[batch n]", torch.zeros(1, 2).to_sparse(), "found a torch.sparse_coo tensor"),
        ("image", numpy.zeros((2, 4, 4, 3), numpy.uint8), r"a batch is a list of pictures: list\(array\)"),
        ("image", numpy.zeros((3, 5, 7), numpy.uint8), r"channels come last: array\.transpose\(1, 2, 0\)"),
        ("image", numpy.zeros((5, 7), numpy.uint16), r"16 bits are \(array // 257\)\.astype\('uint8'\)"),
        ("image", Image.new("RGB", (0, 5)), "has 0 x 5 pixels; wanted: at least one"),
        ("image", Image.new("F", (4, 5)), "a picture of floating numbers, of which nobody knows what white is; scale it to 8 bits first"),
        ("image", Image.new("I", (4, 5)), "a picture of 32-bit integers"),
        ("image", Image.new("LAB", (4, 5)), "a picture of mode LAB"),
        ("audio", (numpy.zeros((50, 2), numpy.float32), 8000), "found 50 channels of 2 frames, wanted samples .*: transpose them"),
        ("audio", (numpy.full((1, 9), 9000.0), 8000), r"holds samples up to 9000, wanted -1\.\.1: divide them"),
        ("audio", (numpy.array([[0, numpy.nan]]), 8000), "no finite numbers"),
        ("audio", (numpy.array([[0, -numpy.inf]]), 8000), "no finite numbers"),
        ("audio", (numpy.zeros((1, 9), numpy.int64), 8000), "wanted floats in -1..1, or int16"),
        ("audio", (numpy.zeros((1, 9)), 44_100.5), "states a sample rate of 44100.5 Hz; wanted: a whole number"),
        ("audio", (numpy.zeros((1, 9)), "16000"), "states a sample rate of '16000' Hz"),
        ("audio", Audio(numpy.zeros((1, 9), numpy.float64), 8000), "found samples float64.1 9., wanted float32"),
        ("audio", Audio(numpy.zeros((1, 9), numpy.float32), 2_000_000), "states a sample rate of 2,000,000 Hz"),
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
    assert given.value[0][0]["content"][0]["image"].size == (3, 2)
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
