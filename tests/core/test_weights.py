"""Weights: which tensors a part has, read from safetensors, shards and pickles, and converted by a reader once."""

from __future__ import annotations

import json
import pickle
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import PluginError, SourceError
from modelgraft.sources import views, weights

NOTHING = assemble({})


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """No test sees the caches of the machine."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def view(text: str, registry=NOTHING) -> views.SourceView:
    return views.view(views.parse(text), registry=registry, folder=None, trusted=True, offline=True)


def opened(text: str, registry=NOTHING) -> weights.Weights:
    return weights.open(view(text, registry), offline=True)


def refused(text: str, registry=NOTHING, key: str = "") -> str:
    with pytest.raises(SourceError) as caught:
        opened(text, registry).tensor(key)
    return str(caught.value)


def folder_of(path: Path, config: dict | None = None) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config or {}))
    return path


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_tensors_of_a_part_are_those_of_the_file(tmp_path):
    """Keys are relative to the part; values are equal bit for bit; other parts can be reached."""
    folder = folder_of(tmp_path / "m", {"vision_config": {}})
    tensors = {"vision_model.a": numbers(2, 3), "vision_model.b.weight": numbers(5), "query_tokens": numbers(1, 7)}
    save_file(tensors, folder / "model.safetensors")
    part = opened(f"{folder}#vision_model")
    assert set(part.keys()) == {"a", "b.weight"}
    assert torch.equal(part.state()["b.weight"], tensors["vision_model.b.weight"])
    assert torch.equal(part.sub("query_tokens").tensor(""), tensors["query_tokens"])
    assert set(part.all_keys()) == set(tensors)
    assert (part.shape("a"), part.shape("c"), part.folder) == ((2, 3), None, folder)


def test_a_matrix_is_a_table_whatever_holds_it(tmp_path):
    """Of a part, of a shard, and in a pickle, which torch reads: the same numbers."""
    tensors = {"tongue.a": numbers(2, 3), "tongue.b": numbers(4, 3).bfloat16()}
    whole = folder_of(tmp_path / "m", {"tongue_config": {}})
    save_file(tensors, whole / "model.safetensors")
    shards = folder_of(tmp_path / "s", {"tongue_config": {}})
    names = {key: f"model-0000{number}-of-00002.safetensors" for number, key in enumerate(tensors, 1)}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for key, name in names.items():
        save_file({key: tensors[key]}, shards / name)
    pickled = folder_of(tmp_path / "p", {"tongue_config": {}})
    torch.save(tensors, pickled / "pytorch_model.bin")
    for folder in (whole, shards, pickled):
        part = opened(f"{folder}#tongue")
        for key in ("a", "b"):
            assert torch.equal(torch.from_numpy(part.table(key).rows([1, 0])), tensors[f"tongue.{key}"][[1, 0]].float())
        with pytest.raises(SourceError, match="has no tensor 'c'"):
            part.table("c")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell which pages of a file are in memory")
def test_only_the_tensors_that_are_asked_for_are_read(tmp_path):
    """After a small tensor was used, the 16 MB of the other are not in memory."""
    path = folder_of(tmp_path / "m") / "model.safetensors"
    save_file({"a": numbers(2, 3), "b": numbers(4000, 1000)}, path)
    part = opened(str(path.parent))
    part.tensor("a").sum()
    assert 0 < _bytes_in_memory(path) < 4_000_000  # the system reads some pages ahead
    part.tensor("b").sum()
    assert _bytes_in_memory(path) >= 16_000_000


def _bytes_in_memory(path: Path) -> int:
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.endswith("B") and inside and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
        elif not line.endswith("B") and "-" in line.split()[0]:
            inside = line.endswith(str(path))
    return found


def test_an_unknown_key_names_those_there_are(tmp_path):
    folder = folder_of(tmp_path / "m")
    save_file({"a": numbers(2)}, folder / "model.safetensors")
    assert refused(str(folder), key="b") == f"missing-keys  {folder} has no tensor 'b'; it has: a"


def test_shards_are_one_set_of_tensors(tmp_path):
    folder = folder_of(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    save_file({"a": numbers(2)}, folder / "1.safetensors")
    save_file({"b": numbers(3)}, folder / "2.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in opened(str(folder)).state().items()} == {"a": (2,), "b": (3,)}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_pickles_of_tensors_are_read_by_part(tmp_path, zipped, wrapper):
    """Both forms of torch.save, bare or inside a training checkpoint."""
    folder = folder_of(tmp_path / "m", {"vision_config": {}})
    state = {"vision_model.a": numbers(2, 3), "text_model.b": numbers(5)}
    torch.save({wrapper: state, "step": 3} if wrapper else state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    part = opened(f"{folder}#vision_model")
    assert torch.equal(part.state()["a"], state["vision_model.a"])
    assert (part.keys(), part.shape("a")) == (("a",), (2, 3))
    assert "has no part 'vison_model'; it has: text_model, vision_model" in refused(f"{folder}#vison_model")


def test_a_part_of_a_lone_pickle_is_known_once_it_is_read(tmp_path):
    torch.save({"projector.weight": numbers(2, 3), "other": numbers(1)}, tmp_path / "w.pt")
    assert opened(f"{tmp_path}/w.pt#projector").keys() == ("weight",)
    assert "has no part 'projecter'; it has: other, projector\n    Did you mean 'projector'?" in refused(f"{tmp_path}/w.pt#projecter")


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bomb()}, protocol=protocol))
    said = refused(str(folder))
    assert said.startswith(f"unsafe-pickle  {folder}/pytorch_model.bin holds more than tensors, and reading it could run code: refused")
    for zipped in (True, False):
        torch.save({"a": Bomb(), "b": numbers(2)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        assert refused(str(folder), key="b").startswith("unsafe-pickle")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("length", [0, 3, 200])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_file_that_was_cut_is_one_error_that_names_it(tmp_path, name, length):
    folder = folder_of(tmp_path / "m")
    state = {"a": numbers(20, 30)}
    (torch.save if name.endswith("bin") else save_file)(state, folder / name)
    (folder / name).write_bytes((folder / name).read_bytes()[:length])
    with pytest.raises(SourceError, match=rf"(source-damaged|unsafe-pickle)  {folder}/{name}"):
        opened(str(folder)).state()


@pytest.mark.parametrize("content", [b"junk\n", b"0", b"(s", b"\x80\x02]r", b"<html>not found</html>", bytes(range(256))])
def test_bytes_that_are_no_pickle_are_one_error_that_names_the_file(tmp_path, content):
    """Such as the page of a server that had no such file: the bytes are orders to an unpickler, and each may fail otherwise."""
    folder = folder_of(tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(SourceError, match=rf"(source-damaged|unsafe-pickle)  {folder}/pytorch_model.bin"):
        opened(str(folder)).state()


def test_a_source_without_weights_says_so(tmp_path):
    folder = folder_of(tmp_path / "m")
    registry = SimpleNamespace(recorded_configs={"org/m": folder}, weight_readers={})
    assert f"no-weights  {folder} has no file of weights" in refused(str(folder))
    assert refused("org/m", registry).startswith(
        "no-weights  the weights of 'org/m' are not on this machine: only its published config is known"
    )


@pytest.fixture
def reader(monkeypatch):
    """A weight reader for files of text: one number for each line; it counts its calls."""
    module = ModuleType("line_reader")
    module.calls = []

    def read(path, folder):
        module.calls.append(path)
        values = [float(line) for line in path.read_text().split()]
        (folder / "config.json").write_text(json.dumps({"count": len(values)}))
        if values:
            save_file({"model.values": torch.tensor(values)}, folder / "model.safetensors")

    module.read, module.peek = read, lambda path: {"count": len(path.read_text().split())}
    monkeypatch.setitem(sys.modules, "line_reader", module)
    return module


LINES = SimpleNamespace(recorded_configs={}, weight_readers={".lines": "line_reader:read", ".bin": "line_reader:read"})


def test_a_reader_converts_a_file_once(tmp_path, reader):
    """Before that its config is known by a peek; afterwards the file is an ordinary folder, also for the next process."""
    path = tmp_path / "a.lines"
    path.write_text("1 2 3")
    seen = view(str(path), LINES)
    assert (seen.config, seen.has_weights, reader.calls) == ({"count": 3}, True, [])
    assert weights.open(seen, offline=True).tensor("model.values").tolist() == [1, 2, 3]
    assert opened(f"{path}#values", LINES).tensor("").tolist() == [1, 2, 3]
    assert view(str(path), LINES).shape("model.values") == (3,)
    assert reader.calls == [path]
    path.write_text("4 5 6 7")
    assert opened(str(path), LINES).tensor("model.values").tolist() == [4, 5, 6, 7]


def test_two_at_once_convert_once(tmp_path, reader):
    path = tmp_path / "a.lines"
    path.write_text("1 2 3")
    found: list[list[float]] = []
    threads = [threading.Thread(target=lambda: found.append(opened(str(path), LINES).tensor("model.values").tolist())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1.0, 2.0, 3.0]] * 4
    assert len(reader.calls) == 1


def test_a_conversion_that_fails_leaves_nothing(tmp_path, reader):
    path = tmp_path / "a.lines"
    path.write_text("1 x")
    assert refused(str(path), LINES).startswith(f"source-damaged  {path}: cannot be read: could not convert string to float: 'x'")
    path.write_text("")
    with pytest.raises(PluginError, match=r"the weight reader line_reader:read did not write config\.json and model\.safetensors"):
        opened(str(path), LINES)
    assert [p.name for p in (tmp_path / "cache" / "converted").iterdir() if p.is_dir()] == []


def test_what_torch_saved_is_not_given_to_a_reader_of_the_same_ending(tmp_path, reader):
    torch.save({"a": numbers(3)}, tmp_path / "a.bin")
    assert opened(str(tmp_path / "a.bin"), LINES).shape("a") == (3,)
    assert reader.calls == []


def test_a_reader_that_lacks_a_package_names_it(tmp_path, reader):
    def read(path, folder):
        raise ModuleNotFoundError("No module named 'gguf'", name="gguf")

    reader.read = read
    (tmp_path / "a.lines").write_text("1")
    assert refused(str(tmp_path / "a.lines"), LINES) == (
        "missing-package  reading a.lines needs the package gguf, which is not installed\n    pip install gguf"
    )
