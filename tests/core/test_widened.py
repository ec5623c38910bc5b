"""Modules whose weights stay as they lie compute what their widened twins do, and pages of files go back layer by layer."""

from __future__ import annotations

import copy
import multiprocessing
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from safetensors.torch import safe_open, save_file
from torch import Tensor, nn

from modelgraft.engine.modules import pages, widened
from modelgraft.engine.modules.pages import give_back_file, give_back_files, let_go, mappings_change
from modelgraft.engine.modules.widened import PIECE, giving_back, in_turn
from support.mapped import bytes_in_memory

TELLS = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell which pages of a file are in memory")


class Scaled(nn.Module):
    """Parameters and a buffer of its own, around another module."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.rand(5)), nn.Linear(5, 3)
        self.register_buffer("shift", torch.rand(5))
        self.register_buffer("none", None)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x * self.scale + self.shift)
        return made


class Net(nn.Module):
    """Every kind of weights, one of them of two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.scaled = nn.Embedding(11, 5), nn.LayerNorm(5), Scaled()
        self.head = nn.Linear(5, 11, bias=False)
        self.head.weight = self.embed.weight
        self.wide = nn.Linear(PIECE // 4 + 1, 7)  # three rows are a piece

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        x = self.norm(self.embed(ids))
        return self.head(x), self.scaled(x), self.wide(x.repeat(1, PIECE // 20 + 1)[:, : PIECE // 4 + 1])


IDS = torch.tensor([3, 7, 1])


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_it_computes_what_its_widened_twin_does_and_is_left_as_it_was(stored):
    """Within other orders of summation; names, dtypes and calls are its own again afterwards."""
    torch.manual_seed(0)
    module = Net().to(stored)
    twin, before = copy.deepcopy(module).float(), {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad(), in_turn(module, torch.float32):
        for _ in range(2):
            for got, expected in zip(module(IDS), twin(IDS), strict=True):
                assert got.dtype is torch.float32
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        assert module.head.weight is module.embed.weight
    assert all(torch.equal(tensor, before[name]) and tensor.dtype is stored for name, tensor in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in module.modules())
    with torch.no_grad():
        assert module(IDS)[0].dtype is stored


def test_it_is_left_as_it_was_by_a_call_that_fails():
    """Within a module that holds wider weights meanwhile."""
    module = Net().bfloat16()
    with pytest.raises(RuntimeError), in_turn(module, torch.float32):
        module.scaled(torch.rand(2, 4))
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.bfloat16}


def mapped(path: Path, tensor: Tensor) -> Tensor:
    save_file({"a": tensor}, path)
    with safe_open(path, framework="pt") as file:
        found: Tensor = file.get_tensor("a")
    return found


@TELLS
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_pages_of_a_layer_go_back_once_it_was_called(tmp_path, stored):
    """Of 8 MB or more hardly any are in memory, in either dtype; they can be read again."""
    whole, file = torch.randn(2000, 1000).to(stored), tmp_path / "m.safetensors"
    layer = nn.Linear(1000, 2000, bias=False)
    layer.weight = nn.Parameter(mapped(file, whole), requires_grad=False)
    x = torch.randn(3, 1000)
    with in_turn(layer, torch.float32):
        got = layer(x)
        assert bytes_in_memory(file) < 500_000
    torch.testing.assert_close(got, x @ whole.float().T, rtol=1e-5, atol=1e-3)


@TELLS
def test_pages_that_were_written_to_stay(tmp_path):
    """Their numbers are nowhere else."""
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "other")]
    one, other = (mapped(file, torch.ones(1000, 1000)) for file in files)
    one[500] = 7.0
    assert [float(tensor.sum()) for tensor in (one, other)] == [1_006_000, 1_000_000]
    for give in (give_back_files, let_go):
        give()
        assert (one[500] == 7).all()
        assert bytes_in_memory(files[1]) == 0
        assert float(other.sum()) == 1_000_000


@TELLS
@pytest.mark.parametrize("table", ["pagemap", "none"])
def test_a_file_is_untouched_until_a_page_of_it_is_written_to(tmp_path, monkeypatch, table):
    """As the system's sums over what is mapped have it, whichever of its tables is read; at either end of a file."""
    if table == "none":
        monkeypatch.setattr(pages, "PAGES", tmp_path / table)
    files = [tmp_path / f"{name}.safetensors" for name in ("read", "first", "last")]
    tensors = [mapped(file, torch.ones(500, 1000)) for file in files]
    assert [float(tensor.sum()) for tensor in tensors] == [500_000] * 3
    assert [len(pages.untouched(file)) for file in files] == [1, 1, 1]
    tensors[1][0, 0] = tensors[2][-1, -1] = 7.0
    assert [len(pages.untouched(file)) for file in files] == [1, 0, 0]
    assert set(pages.untouched()) <= {span for span, written, _ in pages._mapped("smaps") if written == 0}


@TELLS
def test_pages_of_one_file_go_back_and_those_of_others_stay(tmp_path):
    """Where nobody has written to them; also where the file is named by a link, as a cache may be that lies elsewhere."""
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "other")]
    tensors = [mapped(file, torch.ones(1000, 1000)) for file in files]
    assert [float(tensor.sum()) for tensor in tensors] == [1_000_000] * 2
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    give_back_file(tmp_path / "link" / files[0].name)
    assert bytes_in_memory(files[0]) == 0
    assert bytes_in_memory(files[1]) > 3_900_000
    assert float(tensors[0].sum()) == 1_000_000
    tensors[0][500] = 7.0
    give_back_file(files[0])
    assert (tensors[0][500] == 7).all()


@TELLS
def test_pages_of_tensors_go_back_again_and_again_and_of_no_other_tensor(tmp_path):
    """Also where they lie side by side in one file; numbers that were written, and those of memory, stay."""
    files = [tmp_path / f"{name}.safetensors" for name in ("read", "written", "other")]
    save_file({name: torch.ones(500, 1000) for name in "ab"}, files[0])
    with safe_open(files[0], framework="pt") as file:
        read = [file.get_tensor(name) for name in "ab"]
    written, other = (mapped(file, torch.ones(1000, 1000)) for file in files[1:])
    written[500], kept = 7.0, torch.full((1000, 1000), 3.0)
    give = giving_back([*read, written, kept, torch.empty(0)])
    for _ in range(2):
        assert [float(tensor.sum()) for tensor in (*read, written, other, kept)] == [500_000, 500_000, 1_006_000, 1_000_000, 3_000_000]
        give()
        assert bytes_in_memory(files[0]) < 10_000
        assert bytes_in_memory(files[2]) > 3_900_000


@TELLS
def test_no_pages_are_let_go_of_while_a_library_maps_files(tmp_path):
    """A thread that opens a session unmaps files: other memory may lie there by the time that pages are let go of."""
    file = tmp_path / "m.safetensors"
    tensor = mapped(file, torch.ones(1000, 1000))
    held, done = Event(), Event()

    def opening() -> None:
        with mappings_change():
            held.set()
            done.wait(60)

    thread = Thread(target=opening)
    thread.start()
    assert held.wait(60)
    assert float(tensor.sum()) == 1_000_000
    give_back_files()
    assert bytes_in_memory(file) >= tensor.nbytes
    done.set()
    thread.join()
    give_back_files()
    assert bytes_in_memory(file) == 0


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_process_waits_for_no_thread_of_the_other():
    """What maps files there does not go on here."""
    with mappings_change(), multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_lets_go).get(timeout=60) == 0


def _lets_go() -> int:
    give_back_files()
    return pages._changing


@TELLS
def test_of_a_large_matrix_a_piece_is_in_memory_at_a_time(tmp_path, monkeypatch):
    """Also where it has the dtype that is computed in: what its rows give is the same."""
    monkeypatch.setattr(widened, "LARGE", PIECE)
    head, file = nn.Linear(1024, 4 * PIECE // 1024, bias=False), tmp_path / "m.safetensors"
    head.weight = nn.Parameter(mapped(file, head.weight.detach()), requires_grad=False)
    head.weight.sum()
    most, linear = [], widened.functional.linear
    give_back_files()

    def watched(*given: Tensor) -> Tensor:
        most.append(bytes_in_memory(file))
        return linear(*given)

    monkeypatch.setattr(widened.functional, "linear", watched)
    x = torch.randn(3, 1024)
    with in_turn(head, torch.float32):
        got = head(x)
    assert len(most) == 4
    assert max(most) < 2 * 4 * PIECE
    torch.testing.assert_close(got, x @ head.weight.T, rtol=1e-5, atol=1e-4)
