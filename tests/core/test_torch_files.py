"""Files that torch, TorchScript and numpy wrote: sizes without torch, tensors as torch reads them, and nothing in them is run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import views, weights

REGISTRY = assemble({})


def module() -> nn.Module:
    """With parameters of unlike types, a buffer that holds a number, and one that is a scalar."""
    made = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Sequential(nn.Conv1d(2, 4, 3).half()))
    made.register_buffer("context_length", torch.tensor(77))
    return made


def source(path: Path):
    return views.find(str(path), registry=REGISTRY, folder=None, trusted=True, offline=True)


def scripted(path: Path) -> dict[str, torch.Tensor]:
    """Write an archive of TorchScript; gives what torch reads from it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is on its way out, and files of it are not
        torch.jit.script(module()).save(str(path))
        return dict(torch.jit.load(str(path)).state_dict())


def archive(path: Path) -> dict[str, torch.Tensor]:
    state = module().state_dict()
    torch.save(state, path)
    return state


def former(path: Path) -> dict[str, torch.Tensor]:
    state = module().state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return state


def views_of_one(path: Path) -> dict[str, torch.Tensor]:
    """Tensors that lie in one block of numbers, across each other, as a tied or sliced state has them."""
    whole = torch.arange(24.0).reshape(4, 6)
    state = {"whole": whole, "across": whole.T, "inner": whole[1:3, 2:5], "none": whole[:0]}
    torch.save(state, path)
    return state


def former_views(path: Path) -> dict[str, torch.Tensor]:
    """The same in a file of former times, with other dtypes beside them, whose numbers begin at any byte."""
    whole = torch.arange(24.0).reshape(4, 6)
    state = {"whole": whole, "across": whole.T, "inner": whole[1:3, 2:5], "none": whole[:0], "lone": torch.tensor(7)}
    state |= {"brief": torch.arange(5, dtype=torch.bfloat16), "is": torch.tensor([True, False, True]), "bare": torch.empty(0, 3)}
    torch.save({"model": state, "step": 3}, path, _use_new_zipfile_serialization=False)
    return state


def trained(path: Path) -> dict[str, torch.Tensor]:
    """As fairseq saves a training: settings beside the tensors, in a class of the standard library."""
    state = dict(module().state_dict())
    torch.save({"args": argparse.Namespace(layers=3, sizes=[1, 2]), "cfg": {"model": {"width": 5}}, "model": state, "epoch": 4}, path)
    return state


def numpy_archive(path: Path) -> dict[str, torch.Tensor]:
    """Beside usual ones a scalar, another order of bytes, columns first, and jax's bfloat16."""
    brief = torch.tensor([1.5, -2.0, 3.0], dtype=torch.bfloat16)
    np.savez(
        path, **{"a/kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3), "step": np.array(7), "swapped": np.arange(3, dtype=">f4"),
                 "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "brief": brief.view(torch.int16).numpy().view("V2")},
    )  # fmt: skip
    return {
        "a/kernel": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(7), "swapped": torch.arange(3.0),
        "columns": torch.arange(6.0, dtype=torch.float64).reshape(2, 3), "brief": brief,
    }  # fmt: skip


WRITERS = {
    "a.pt": archive,
    "b.pth": former,
    "c.torch": views_of_one,
    "g.bin": former_views,
    "d.pt": trained,
    "e.pt": scripted,
    "f.npz": numpy_archive,
}


@pytest.mark.parametrize("name", WRITERS)
def test_shapes_are_read_lightly_and_tensors_as_torch_reads_them(name: str, tmp_path: Path):
    """Every key, shape, dtype and element."""
    expected = WRITERS[name](tmp_path / name)
    found = source(tmp_path / name)
    assert dict(found.tensor_shapes()) == {key: tuple(tensor.shape) for key, tensor in expected.items()}
    state = weights.open(found, offline=True).state()
    assert set(state) == set(expected)
    for key, tensor in expected.items():
        assert state[key].dtype == tensor.dtype, key
        assert torch.equal(state[key], tensor), key


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell which files are mapped")
def test_a_file_of_former_times_is_mapped(tmp_path: Path):
    """Nothing of it is in memory before it is used, as of an archive."""
    path = tmp_path / "b.pth"
    former(path)
    state = weights.open(source(path), offline=True).state()
    assert any(line.endswith(str(path)) for line in Path("/proc/self/maps").read_text().splitlines()), sorted(state)


def test_a_file_of_former_times_that_is_cut_is_refused(tmp_path: Path):
    path = tmp_path / "b.pth"
    former(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(SourceError, match="source-damaged"):
        weights.open(source(path), offline=True).state()


def test_a_part_of_such_a_file_is_named_as_of_any_other(tmp_path: Path):
    torch.save({"eye.weight": torch.ones(2, 3), "tongue.weight": torch.ones(4)}, tmp_path / "both.pt")
    found = source(Path(f"{tmp_path}/both.pt#eye"))
    assert dict(found.tensor_shapes()) == {"weight": (2, 3)}
    assert torch.equal(weights.open(found, offline=True).tensor("weight"), torch.ones(2, 3))


def test_what_stands_beside_the_tensors_is_plain_data(tmp_path: Path):
    trained(tmp_path / "trained.pt")
    found = source(tmp_path / "trained.pt")
    assert found.json("args") == {"layers": 3, "sizes": [1, 2]}
    assert found.json("cfg") == {"model": {"width": 5}}
    assert found.json("epoch") is None  # no mapping
    assert found.json("preprocessor_config.json") is None


def test_nothing_heavy_is_imported_for_shapes(tmp_path: Path):
    for name, write in WRITERS.items():
        write(tmp_path / name)
    code = f"""
import sys
from pathlib import Path
from modelgraft.sources import views
from types import SimpleNamespace
registry = SimpleNamespace(weight_readers={{}}, recorded_configs={{}})
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    found = views.find(str(path), registry=registry, folder=None, trusted=True, offline=True)
    assert found.tensor_shapes(), path
assert not {{"torch", "numpy", "argparse.Namespace"}} & sys.modules.keys(), "heavy"
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (told.returncode, told.stderr) == (0, "")


class Runs:
    """What would run a command if a reader of pickles made it."""

    def __reduce__(self):
        return os.system, ("touch run-by-a-pickle",)


def test_code_in_a_file_is_not_run_and_the_file_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Looking is harmless; opening says that it holds more than tensors."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"weight": torch.ones(2)}, "extra": Runs()}, "bad.pt")
    found = source(Path("bad.pt"))
    assert dict(found.tensor_shapes()) == {"weight": (2,)}
    with pytest.raises(SourceError, match="holds more than tensors"):
        weights.open(found, offline=True).state()
    assert not Path("run-by-a-pickle").exists()


def test_an_archive_of_torchscript_that_is_cut_is_told(tmp_path: Path):
    """Where its numbers are fewer than its tensors need."""
    import zipfile

    scripted(tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "cut.pt", "w") as cut:
        for name in whole.namelist():
            held = whole.read(name)
            cut.writestr(name, held[:4] if "/data/" in name else held)
    with pytest.raises(SourceError, match=r"the numbers of its tensor .* are cut"):
        weights.open(source(tmp_path / "cut.pt"), offline=True).state()


@pytest.mark.parametrize("held", [b"", b"PK\x03\x04 no archive", b"\x80\x02}q\x00.", b"\x93NUMPY"])
@pytest.mark.parametrize("ending", [".pt", ".npz"])
def test_files_of_something_else_are_told(held: bytes, ending: str, tmp_path: Path):
    path = tmp_path / f"no{ending}"
    path.write_bytes(held)
    with pytest.raises(SourceError, match=str(path)):
        weights.open(source(path), offline=True).state()


def test_arrays_of_objects_are_refused(tmp_path: Path):
    np.savez(tmp_path / "objects.npz", a=np.array([Runs()], dtype=object))
    with pytest.raises(SourceError, match="which are no numbers of a model"):
        source(tmp_path / "objects.npz")


def test_a_folder_of_open_clip_is_read_as_it_is_published(tmp_path: Path):
    """Its own names for config and weights."""
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 4}}')
    torch.save({"logit_scale": torch.tensor(1.0)}, tmp_path / "open_clip_pytorch_model.bin")
    found = source(tmp_path)
    assert (found.root["model_cfg"], dict(found.tensor_shapes())) == ({"embed_dim": 4}, {"logit_scale": ()})
