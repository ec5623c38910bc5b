"""The ways between arrays and tensors."""

from __future__ import annotations

import ml_dtypes
import numpy
import pytest
import torch

from modelgraft.engine.parity import parity_of
from modelgraft.plugin import as_array, as_tensor, on_host


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float16, numpy.float64, numpy.int64, numpy.int32, numpy.uint8, numpy.bool_])
def test_an_array_and_its_tensor_share_their_memory_both_ways(dtype):
    """What is written to one stands in the other; the type stays."""
    array = numpy.arange(6).reshape(2, 3).astype(dtype)
    tensor = as_tensor(array)
    tensor[1, 2] = 1
    assert array[1, 2] == 1
    assert str(tensor.dtype).removeprefix("torch.") == array.dtype.name
    again = as_array(tensor)
    again[0, 0] = 1
    assert tensor[0, 0] == array[0, 0] == 1


def test_what_is_of_the_wanted_kind_or_of_none_stays_as_it_is():
    """Also what is no number."""
    array, tensor = numpy.ones(2), torch.ones(2)
    assert as_array(array) is array
    assert as_tensor(tensor) is tensor
    assert as_tensor(None) is as_array(None) is None
    assert (as_tensor("text"), as_array([1.5])) == ("text", [1.5])


def test_a_tensor_of_a_type_that_numpy_has_not_comes_as_the_next_wider_one():
    """bfloat16 as float32, each number what it was."""
    given = torch.tensor([1.0, -2.5, 3e38], dtype=torch.bfloat16)
    found = as_array(given)
    assert found.dtype == numpy.float32
    assert found.tolist() == given.tolist()


@pytest.mark.parametrize("cut", [lambda array: array, lambda array: array.T, lambda array: array[::-1], lambda array: array[:, ::2]])
def test_an_array_of_bfloat16_is_a_tensor_of_it_and_an_array_of_float32(cut):
    """As ml_dtypes has it, which exporters bring along: however it lies, on the memory that it has where torch knows its steps."""
    given = cut(numpy.arange(-6, 6, dtype=numpy.float32).reshape(3, 4).astype(ml_dtypes.bfloat16))
    found = as_tensor(given)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == as_array(given).tolist() == given.tolist()
    assert as_array(given).dtype == numpy.float32
    if min(given.strides) > 0:
        assert found.data_ptr() == given.ctypes.data


def test_a_tensor_that_keeps_a_gradient_comes_without_it():
    """On the same memory."""
    given = torch.ones(2, requires_grad=True)
    assert as_array(given).ctypes.data == given.data_ptr()


def test_an_array_that_may_not_be_written_to_becomes_a_tensor_without_a_copy_or_a_warning(tmp_path):
    """A mapped file, and a part of one; the tensor holds it open."""
    numpy.save(tmp_path / "table.npy", numpy.arange(12, dtype=numpy.float32).reshape(4, 3))
    table = numpy.load(tmp_path / "table.npy", mmap_mode="r")
    part = as_tensor(table[1:3])
    assert part.data_ptr() == table[1:3].ctypes.data
    del table
    assert part.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert as_tensor(numpy.broadcast_to(numpy.float32(2), (2, 2))).tolist() == [[2, 2], [2, 2]]


def test_an_array_that_runs_backwards_is_copied():
    """Torch knows no strides below 0."""
    assert as_tensor(numpy.arange(6).reshape(2, 3)[:, ::-1]).tolist() == [[2, 1, 0], [5, 4, 3]]


def test_a_field_of_records_is_copied():
    """Torch knows no steps between numbers that are not a multiple of their size."""
    fields = numpy.array([(1, 2.5), (3, 4.5)], [("flag", "u1"), ("size", "<f4")])
    assert as_tensor(fields["size"]).tolist() == [2.5, 4.5]


def test_a_view_that_torch_has_not_computed_yet_is_computed():
    """The imaginary part of a conjugate has its sign in a flag, which numpy does not know."""
    assert as_array(torch.tensor([1 + 2j]).conj().imag).tolist() == [-2.0]


def test_arrays_and_tensors_of_the_host_lie_on_the_host():
    """And what lies elsewhere does not."""
    assert on_host(numpy.ones(1))
    assert on_host(torch.ones(1))
    assert not on_host(torch.ones(1, device="meta"))


def test_the_gate_compares_arrays_with_tensors():
    """In either place; a difference is found in both."""
    case = (torch.tensor([[1.0, 2.0]]),)
    for one, other in ((lambda x: (x * 2,), lambda x: (x.numpy() * 2,)), (lambda x: (x.numpy() * 2,), lambda x: (x * 2,))):
        assert parity_of(one, other, [case], tolerance=0.0, writes=True).same == 1.0
        assert not parity_of(one, lambda x: (x.numpy() * 2 + 1,), [case], tolerance=0.1).holds
