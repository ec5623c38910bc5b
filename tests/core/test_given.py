"""Words of the command line as values: what is in the files they name, and nothing else."""

from __future__ import annotations

import io
import json
import tracemalloc

import numpy
import pytest
import torch
from safetensors.torch import save_file

from modelgraft import InputError
from modelgraft.cli.given import read_word
from modelgraft.kernel.words.ports import port

ONE = torch.zeros(1)


@pytest.mark.parametrize("content", [b"one\r\ntwo\r\n", b"\xef\xbb\xbfone\r\ntwo", b"one\rtwo\r", b"one\ntwo\n"])
def test_a_prompt_is_the_same_whatever_system_wrote_it(content, tmp_path):
    """Lines that end as on Windows, a mark at the start, a last line that ends: one prompt."""
    (tmp_path / "prompt.txt").write_bytes(content)
    assert read_word("x", port("text"), f"@{tmp_path / 'prompt.txt'}") == "one\ntwo"


def test_only_the_last_end_of_a_line_is_left_off(tmp_path):
    """An empty line that was meant stays."""
    (tmp_path / "prompt.txt").write_bytes(b" one\r\n\r\n")
    assert read_word("x", port("text"), f"@{tmp_path / 'prompt.txt'}") == " one\n"


def test_another_encoding_is_named(tmp_path):
    """UTF-16 is what an editor on Windows may write."""
    (tmp_path / "prompt.txt").write_bytes("one".encode("utf-16"))
    with pytest.raises(InputError, match="no UTF-8 text: byte 0 is 0xff; it looks like UTF-16: save it as UTF-8"):
        read_word("x", port("text"), f"@{tmp_path / 'prompt.txt'}")


def test_an_entry_of_a_list_opens_no_file(tmp_path):
    """A label may begin with @, in a file and on the line; and one line is one label, whatever letters it holds."""
    (tmp_path / "labels.txt").write_bytes("@home\r\nat\u2028work\nC++\n".encode())
    assert read_word("x", port("list[text]"), f"@{tmp_path / 'labels.txt'}") == ["@home", "at\u2028work", "C++"]
    assert read_word("x", port("list[text]"), "cat,@dog") == ["cat", "@dog"]


def test_a_text_without_end_is_bounded(monkeypatch):
    """Nothing is read into memory that no model could read."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a" * (16 * 2**20 + 1))))
    with pytest.raises(InputError, match="has more than 16,777,216 bytes of text"):
        read_word("x", port("text"), "@-")


def npy(tmp_path, header, body=b""):
    from numpy.lib import format as form

    path = tmp_path / "t.npy"
    with path.open("wb") as file:
        form.write_array_header_2_0(file, header)
        file.write(body)
    return str(path)


def test_an_array_whose_header_states_more_than_there_is_takes_no_memory(tmp_path):
    """A file of 100 bytes that states 8 TB."""
    word = npy(tmp_path, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    tracemalloc.start()
    with pytest.raises(InputError, match=r"states float64\[1000000, 1000000\], 8,000,000,000,000 bytes, and 0 are there: it is cut"):
        read_word("x", port("float[batch n]"), word)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: numpy.save(path / "t.npy", numpy.array([{}]), allow_pickle=True), "holds pickled objects, which can run code"),
        (
            lambda path: (path / "t.npy").write_bytes(b"PK\x03\x04" + bytes(99)),
            "cannot be read as a tensor: the magic string is not correct",
        ),
        (lambda path: save_file({"a": ONE, "b": ONE + 1}, path / "t.safetensors"), r"holds 2 tensors \(a, b\); wanted: one"),
        (lambda path: (path / "t.json").write_text("[" * 200_000), "deeper than is read"),
        (lambda path: (path / "t.json").write_text("[[1e999]]"), "1e999 is beyond what a float holds"),
    ],
)
def test_a_file_that_is_no_tensor_is_one_sentence(make, message, tmp_path):
    """Pickles, several tensors, endless depth, numbers beyond numbers."""
    make(tmp_path)
    (path,) = tmp_path.iterdir()
    with pytest.raises(InputError, match=message):
        read_word("x", port("float[batch n]"), str(path))


@pytest.mark.parametrize("text", ["[" * 200_000, '[{"role": 1e999}]'])
def test_json_on_the_line_is_bounded_too(text):
    """As in a file."""
    with pytest.raises(InputError, match="this is no JSON: "):
        read_word("x", port("conversation"), text)


def test_an_ending_may_be_in_capitals(tmp_path):
    """A file of another system is the same file."""
    numpy.save(tmp_path / "t.npy", numpy.ones((1, 2), numpy.float32))
    (tmp_path / "t.npy").rename(tmp_path / "T.NPY")
    (tmp_path / "T.JSON").write_text(json.dumps([[1.0, 2.0]]))
    assert read_word("x", port("float[batch n]"), str(tmp_path / "T.NPY")).shape == (1, 2)
    assert read_word("x", port("float[batch n]"), str(tmp_path / "T.JSON")) == [[1.0, 2.0]]
