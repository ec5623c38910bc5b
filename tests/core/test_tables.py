"""Tables of embeddings as numpy indexes them, against torch: every type that files hold, wherever it begins in its file."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import numpy
import pytest
import torch
from safetensors.torch import save_file

from modelgraft.sources.row_tables import table_in, table_of

IDS = [4, 0, 4, 12]
KINDS = [torch.float32, torch.float16, torch.float64, torch.bfloat16, torch.float8_e4m3fn]


def numbers(kind):
    """[13 5], some of them neither small nor round."""
    draw = torch.Generator().manual_seed(2)
    return (torch.randn(13, 5, generator=draw) * torch.logspace(-6, 2, 13)[:, None]).to(kind)


def write(path, tensor, *, before):
    """A file of safetensors with so many bytes of another tensor before this one."""
    kinds = {torch.float32: "F32", torch.float16: "F16", torch.float64: "F64", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3"}
    content = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    about = {"table": {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [before, before + len(content)]}}
    if before:
        about["a"] = {"dtype": "U8", "shape": [before], "data_offsets": [0, before]}
    header = json.dumps(about).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(before) + content)


def looked_up(tensor):
    return tensor[IDS].to(torch.float32)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("before", [0, 3, 5000], ids=["first", "at an odd byte", "on a later page"])
def test_a_mapped_table_has_the_rows_that_torch_reads(tmp_path, kind, before):
    """To the bit, as float32; bytes of another tensor lie before it."""
    tensor = numbers(kind)
    write(tmp_path / "model.safetensors", tensor, before=before)
    found = table_in(tmp_path / "model.safetensors", "table").rows(IDS)
    assert found.dtype == numpy.float32
    assert torch.equal(torch.from_numpy(found), looked_up(tensor))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_tensor_is_a_table_and_a_table_a_tensor(kind):
    """On the same memory, but for what numpy has nothing like."""
    tensor = numbers(kind)
    table = table_of(tensor)
    assert torch.equal(torch.from_numpy(table.rows(numpy.array(IDS))), looked_up(tensor))
    again = table.tensor()
    assert torch.equal(again.to(torch.float32), tensor.to(torch.float32))
    assert (again.data_ptr() == tensor.data_ptr()) is (kind is not torch.float8_e4m3fn)


def test_what_is_written_to_a_mapped_table_stays_out_of_its_file(tmp_path):
    """It is mapped as torch maps files: for this process alone."""
    save_file({"table": numbers(torch.float32)}, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    table_in(tmp_path / "model.safetensors", "table").numbers[:] = 0
    assert (tmp_path / "model.safetensors").read_bytes() == before


ALONE = """
import sys
from pathlib import Path
from modelgraft.sources.row_tables import table_in
print(table_in(Path(sys.argv[1]), "table").rows([1]).shape, "torch" in sys.modules)
"""


def test_a_table_is_read_without_torch(tmp_path):
    """In a process of its own."""
    save_file({"table": numbers(torch.bfloat16)}, tmp_path / "model.safetensors")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ALONE, str(tmp_path / "model.safetensors")]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=100)
    assert ran.stdout.strip() == "(1, 5) False"
