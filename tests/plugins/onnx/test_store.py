"""The cache of exports when things go wrong: cut files, full disks, several processes, killed ones."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelgraft import SourceError
from modelgraft.sources import seals
from modelgraft_plugins.onnx import runtime, store, tuned
from modelgraft_plugins.onnx.leaving import leaving

KEY = "ab" * 16
# Another process that builds the same export slowly: it says when it has begun, and writes down how often it built.
CHILD = """
import sys, time
from pathlib import Path
from modelgraft_plugins.onnx import store
def build(folder):
    (folder / "model.onnx").write_bytes(bytes(100))
    with Path(sys.argv[2]).open("a") as log:
        log.write("built\\n")
    time.sleep(float(sys.argv[3]))
    return {"node": "eye"}
store.make(sys.argv[1], build)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))


def building(folder):
    (folder / "model.onnx").write_bytes(bytes(100))
    (folder / "model.onnx.data").write_bytes(bytes(1000))
    return {"node": "eye"}


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


def flip(path, at):
    """Turn one bit, and leave size and time of change as they are."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def linked(path):
    """The contents are right, and lie elsewhere, as a tool that moves large files away leaves them."""
    path.rename(path.parents[3] / "elsewhere")
    path.symlink_to(path.parents[3] / "elsewhere")


def child(log, *, seconds):
    return subprocess.Popen([sys.executable, "-c", CHILD, KEY, str(log), str(seconds)])


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: cut(folder / "manifest.json"), "manifest.json has 40 bytes, and had "),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is gone"),
        (lambda folder: flip(folder / "manifest.json", 30), "manifest.json differs from what was written"),
        (lambda folder: cut(folder / seals.SEAL), "its seal is broken: seal: its checksum is of something else"),
        (lambda folder: (folder / seals.SEAL).unlink(), "it has no seal"),
        (lambda folder: (folder / "model.onnx.data").unlink(), "model.onnx.data is gone"),
        (lambda folder: cut(folder / "model.onnx.data"), "model.onnx.data has 40 bytes, and had 1,000"),
        (lambda folder: flip(folder / "model.onnx.data", 999), "model.onnx.data differs from what was written"),
        (lambda folder: linked(folder / "model.onnx.data"), "model.onnx.data is no file of its own, but a link"),
    ],
    ids=["manifest cut", "manifest gone", "manifest bit", "seal cut", "seal gone", "weights gone", "weights cut", "weights bit", "a link"],
)
def test_whatever_is_harmed_is_found_said_and_made_again(harm, said):
    """A manifest that was cut and weights that are gone count as no export; the next one stands whole."""
    folder = store.make(KEY, building).folder
    harm(folder)
    found, complaint = store.find(KEY)
    assert found is None
    assert complaint.startswith(f"the cached export {KEY} is damaged ({said}")
    assert complaint.endswith(": it is made again")
    assert len(store.entries()) <= 1  # a listing reads harmed manifests without an error
    store.make(KEY, building)
    assert store.find(KEY)[0] is not None
    assert files_in(folder) == ["manifest.json", "model.onnx", "model.onnx.data", "seal"]


@pytest.mark.parametrize("when", ["weights", "manifest"])
def test_a_full_disk_is_one_error_and_leaves_nothing(when, monkeypatch):
    """Whichever file does not find room: no half of an export stays, and with room the next run works."""

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:

        def build(folder):
            facts = building(folder)
            if when == "weights":
                full()
            patch.setattr(Path, "write_text", full)
            return facts

        with pytest.raises(SourceError, match="cannot be used: No space left on device\n    make room there, or set MODELGRAFT_CACHE"):
            store.make(KEY, build)
    assert [name for name in files_in(store.exports_root()) if not name.startswith("locks")] == []
    assert store.find(KEY) == (None, "")
    assert store.make(KEY, building).manifest["node"] == "eye"


def test_two_processes_export_once(tmp_path):
    """The second waits for the first and takes what it made."""
    children = [child(tmp_path / "log", seconds=0.5) for _ in range(2)]
    assert [process.wait(timeout=60) for process in children] == [0, 0]
    assert (tmp_path / "log").read_text() == "built\n"
    assert store.find(KEY)[0] is not None


@pytest.mark.skipif(sys.platform == "win32", reason="there are no file locks to tell a killed process by")
def test_a_killed_export_leaves_no_entry_and_its_files_are_cleared(tmp_path):
    """While it runs another export leaves its files alone; once it is killed the next export clears them."""
    running = child(tmp_path / "log", seconds=600)
    wait_for(tmp_path / "log")
    (aside,) = (store.exports_root() / KEY[:2]).iterdir()
    an_hour_ago = time.time() - 3600
    os.utime(aside, (an_hour_ago, an_hour_ago))
    store.make("cd" * 16, building)
    assert aside.is_dir()
    running.send_signal(signal.SIGKILL)
    running.wait(timeout=60)
    assert [entry.folder.name for entry in store.entries()] == ["cd" * 16]
    store.make("ef" * 16, building)
    assert not aside.exists()
    assert store.make(KEY, building).folder.is_dir()


def test_an_export_that_was_killed_before_its_last_step_is_not_listed():
    """It has its manifest already, and no name."""
    folder = store.make(KEY, building).folder
    folder.rename(folder.with_name(f".{KEY}.abc123"))
    assert store.entries() == []
    assert store.find(KEY) == (None, "")


@pytest.fixture
def opened(monkeypatch):
    """What is opened instead of sessions: the path, and what tuning says."""
    verdict = []

    def tune(source, target, **_):
        target.write_bytes(source.read_bytes())
        return verdict[0] if verdict else ""

    monkeypatch.setattr(tuned, "started", lambda what: what.path)
    monkeypatch.setattr(tuned, "open_session", lambda path, **_: path)
    monkeypatch.setattr(tuned, "tune", tune)
    return verdict


@pytest.mark.parametrize("name", ["model.onnx", seals.SEAL])
def test_a_harmed_tuned_file_is_made_again_and_said(name, opened):
    """Cut on disk, its list of hashes as well."""
    entry = store.make(KEY, building)
    path, remarks = tuned.session(entry.folder, "cpu")
    assert (path.parent.name.startswith("tuned-"), remarks) == (True, ())
    (path.parent / name).write_bytes((path.parent / name).read_bytes()[:-1])
    again, remarks = tuned.session(entry.folder, "cpu")
    assert again == path
    assert remarks[0].startswith("model.onnx as it was tuned for this machine was changed on disk (")
    assert remarks[0].endswith("): it is tuned again")
    assert tuned.session(entry.folder, "cpu") == (path, ())


@pytest.mark.parametrize(("content", "most", "is_noted"), [(b"MatMul", 1, True), (b"MatMul", 10**6, False), (b"a MatMulNBits", 1, False)])
def test_tuning_is_left_to_others_where_a_start_would_gain_by_it(opened, monkeypatch, content, most, is_noted):
    """Small graphs, and those with weights in blocks, start as fast as they are."""
    monkeypatch.setattr(tuned, "WORTH_BYTES", most)
    entry = store.make(KEY, lambda folder: building(folder) | {"x": (folder / "model.onnx").write_bytes(content * 20)})
    with leaving(exports=False, tuning=True) as left:
        assert tuned.session(entry.folder, "cpu") == (entry.folder / "model.onnx", ())
    assert left.untuned == [KEY] * is_noted


def test_a_graph_that_cannot_be_tuned_is_not_tried_again(opened):
    """And nothing of the attempt is kept, not even while it is judged."""
    entry = store.make(KEY, building)
    opened.append("it gives other numbers")
    remark = "model.onnx is not kept as tuned for this machine (it gives other numbers): starting takes longer"
    assert tuned.session(entry.folder, "cpu") == (entry.folder / "model.onnx", (remark,))
    opened.clear()
    assert tuned.session(entry.folder, "cpu") == (entry.folder / "model.onnx", (remark,))
    assert not any(path.is_dir() for path in entry.folder.iterdir())


def test_a_full_disk_while_tuning_is_said_and_not_remembered(opened, monkeypatch):
    """The plain file serves; with room it is tuned."""
    entry = store.make(KEY, building)
    opened.append("it could not be written: what a library says of it")
    with monkeypatch.context() as patch:
        patch.setattr(tuned.shutil, "disk_usage", lambda _: tuned.shutil._ntuple_diskusage(10, 10, 0))
        path, remarks = tuned.session(entry.folder, "cpu")
    assert path == entry.folder / "model.onnx"
    assert remarks == ("model.onnx is not kept as tuned for this machine (No space left on device): starting takes longer",)
    opened.clear()
    path, remarks = tuned.session(entry.folder, "cpu")
    assert (path.parent.name.startswith("tuned-"), remarks) == (True, ())


def test_a_cache_that_can_only_be_read_serves_its_plain_files(opened, monkeypatch):
    """As where one folder is shared by many: what cannot be tuned there starts slower, and says why."""
    entry = store.make(KEY, building)

    def refused(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tuned, "locked", refused)
    path, remarks = tuned.session(entry.folder, "cpu")
    assert path == entry.folder / "model.onnx"
    assert remarks == ("model.onnx is not kept as tuned for this machine (Read-only file system): starting takes longer",)


def test_a_bit_behind_the_beginning_of_a_large_file_is_found_while_its_session_starts(opened, monkeypatch):
    """The session is not used, and what was tuned is tuned again."""
    monkeypatch.setattr(seals, "PIECE_BYTES", 64)
    entry = store.make(KEY, building)
    path, _ = tuned.session(entry.folder, "cpu")
    whole = path.read_bytes()
    flip(path, 90)
    again, remarks = tuned.session(entry.folder, "cpu")
    assert (again, path.read_bytes()) == (path, whole)
    assert "model.onnx differs from what was written, within the 36 bytes from 64 on" in remarks[0]
    flip(entry.folder / "model.onnx", 90)
    with pytest.raises(seals.BrokenSeal, match=r"model\.onnx differs from what was written"):
        tuned.session(entry.folder, "cuda:0")


def test_code_that_was_written_to_since_is_another_and_what_was_not_is_read_once(tmp_path, monkeypatch):
    """A start asks for the key of an export before and while a node is loaded."""
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("2")
    reads, read = list[Path](), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))

    def digest() -> str:
        return store._digest_of(tmp_path.glob("*.py"))

    first = digest()
    assert digest() == first
    assert len(reads) == 2
    (tmp_path / "b.py").write_text("two")
    assert digest() != first
    (tmp_path / "b.py").write_text("2")
    assert digest() == first


def test_the_version_of_a_distribution_is_looked_up_once_and_one_that_is_not_there_each_time(monkeypatch):
    """It may be installed meanwhile."""
    asked, known = list[str](), {"some-thing": "1.2"}

    def distribution(name: str) -> Any:
        asked.append(name)
        if name not in known:
            raise PackageNotFoundError(name)
        return SimpleNamespace(read_text=lambda _: f"Name: x\nVersion: {known[name]}\n\nVersion: 9\n")

    monkeypatch.setattr(runtime, "distribution", distribution)
    runtime._version.cache_clear()
    assert [runtime.version_of(name) for name in ("some-thing", "some-thing", "other", "other")] == ["1.2", "1.2", "", ""]
    known["other"] = "3"
    assert runtime.version_of("other") == "3"
    assert asked == ["some-thing", "other", "other", "other"]
    runtime._version.cache_clear()


def test_the_version_of_every_distribution_is_that_of_its_metadata():
    """Found by the line that says it, also where the metadata lie in a file of another name."""
    names = {one.name for one in metadata.distributions()}
    assert {name: runtime.version_of(name) for name in names} == {name: metadata.version(name) for name in names}
    runtime._version.cache_clear()
