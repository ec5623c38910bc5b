"""Modules brought to another dtype: the numbers are torch's own, what is one in memory stays one, and pages of files are given back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import safe_open, save_file
from torch import Tensor, nn

from modelgraft.engine.modules.casting import PIECE, cast
from support.mapped import bytes_in_memory


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def holding(**tensors: Tensor) -> nn.Module:
    """A module of these parameters; what is no float becomes a buffer."""
    module = nn.Module()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        else:
            module.register_buffer(name, tensor)
    return module


def test_every_number_is_what_torch_makes_of_it():
    """Tables of several pieces, rows that lie apart, a lone number, none at all, and whole numbers, which stay."""
    given = {
        "large": numbers(PIECE // 1024 + 3, 1031),
        "apart": numbers(7, 5).t(),
        "lone": torch.tensor(0.1),
        "none": torch.empty(0, 3),
        "whole": torch.arange(3),
    }
    made = cast(holding(**given), torch.bfloat16).state_dict()
    for name, tensor in given.items():
        assert torch.equal(made[name], tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor), name


def test_a_sparse_tensor_is_brought_over_by_torch():
    """It has no one place in memory."""
    module = nn.Linear(3, 3)
    module.register_buffer("sparse", torch.eye(3).to_sparse())
    cast(module, torch.bfloat16)
    assert (module.sparse.dtype, module.weight.dtype) == (torch.bfloat16, torch.bfloat16)
    assert torch.equal(module.sparse.to_dense(), torch.eye(3, dtype=torch.bfloat16))
    assert cast(module, torch.bfloat16).sparse is module.sparse


def test_what_is_one_in_memory_stays_one():
    """A head that is the table of embeddings, under two names of two modules."""
    table = numbers(11, 3)
    module = holding(embed=table, head=table)
    cast(module, torch.float16)
    assert module.embed.data_ptr() == module.head.data_ptr()
    assert torch.equal(module.head, table.half())


def test_numbers_that_begin_at_any_byte_get_a_place_of_their_own():
    """As in a file whose head has any length, floats in either dtype and whole numbers."""
    for tensor in (numbers(5, 3), torch.arange(4)):
        room = torch.zeros(tensor.nbytes + 3, dtype=torch.uint8)
        room[3:] = tensor.flatten().view(torch.uint8)
        apart = torch.empty(0, dtype=tensor.dtype).set_(room.untyped_storage()[3:], 0, tensor.shape)
        assert apart.data_ptr() % tensor.element_size()
        for dtype in (torch.float32, torch.float16):
            made = cast(holding(a=apart), dtype).a
            assert made.data_ptr() % tensor.element_size() == 0
            assert torch.equal(made, tensor.to(dtype) if tensor.is_floating_point() else tensor)


def from_file(path: Path, tensor: Tensor) -> Tensor:
    save_file({"a": tensor}, path)
    with safe_open(path, framework="pt") as file:
        found: Tensor = file.get_tensor("a")
    return found


def test_parts_of_one_tensor_are_each_brought_over(tmp_path):
    """Their pages overlap: none is given back before the other was read."""
    whole = numbers(4096, 16)
    mapped = from_file(tmp_path / "m.safetensors", whole)
    module = holding(first=mapped[:3000], second=mapped[2000:])
    mapped[2500] = 7.0  # in memory alone: the file has another number
    cast(module, torch.bfloat16)
    assert (module.first[2500] == 7).all()
    assert (module.second[500] == 7).all()
    assert torch.equal(module.second[501:], whole[2501:].bfloat16())


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell which pages of a file are in memory")
def test_pages_of_a_file_are_given_back(tmp_path):
    """Of 40 MB that were brought to another dtype hardly any are in memory; they can be read again."""
    whole = numbers(10_000, 1000)
    mapped = from_file(tmp_path / "m.safetensors", whole)
    module = cast(holding(a=mapped), torch.bfloat16)
    assert torch.equal(module.a, whole.bfloat16())
    assert bytes_in_memory(tmp_path / "m.safetensors") < 1_000_000
    assert torch.equal(mapped, whole)
