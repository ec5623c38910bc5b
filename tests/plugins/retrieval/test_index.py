"""`modelgraft index`: equal to transformers, incremental, of one model, never half there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from modelgraft.plugin import locked
from modelgraft_plugins.retrieval import filed, indexing
from modelgraft_plugins.retrieval.filed import read_index
from support.album import NAMES, commands, embedded, fill, indexed, small_clip
from support.pictures import picture

OUT = Path("photos.safetensors")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    return commands(monkeypatch, tmp_path, capsys)


def no_encoder(monkeypatch):
    """Let nothing be opened from here on."""

    def refuse(*_, **__):
        raise AssertionError("the encoder was opened")

    monkeypatch.setattr("modelgraft_plugins.retrieval.making.opened", refuse)


def counted_rows(monkeypatch):
    """The files that were read to be encoded, as they come."""
    read, names = indexing._read, []

    def noting(task, seen, digest):
        names.append(seen.path)
        return read(task, seen, digest)

    monkeypatch.setattr(indexing, "_read", noting)
    return names


def test_the_vectors_are_those_of_transformers(run):
    """Of every file in the folder and those in it, in the order of their paths, with a small picture of each."""
    code, out, err = indexed(run, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["files"], told["new"], told["encoded"], told["left_out"], told["width"]) == (7, 7, 7, {}, 13)
    index = read_index(OUT)
    assert [entry.path for entry in index.entries] == sorted(NAMES, key=str.casefold)
    np.testing.assert_allclose(index.vectors, embedded([Path("photos") / entry.path for entry in index.entries]), atol=2e-6)
    assert all(small.startswith(b"\xff\xd8") for small in index.thumbnails)
    assert not [path for path in Path().iterdir() if path.name.startswith(".")], "nothing is left beside it"


def test_a_second_start_opens_no_encoder_and_writes_nothing(run, monkeypatch):
    indexed(run)
    before = OUT.stat().st_mtime_ns
    no_encoder(monkeypatch)
    code, _, err = indexed(run)
    assert code == 0
    assert "7 files, as before: nothing to do" in err
    assert OUT.stat().st_mtime_ns == before


def test_only_what_is_new_or_changed_is_encoded(run, monkeypatch):
    """By stamp, then by contents: what was moved, doubled or written again as it was is kept; what is gone is gone."""
    indexed(run)
    before = {entry.path: row for entry, row in zip(read_index(OUT).entries, read_index(OUT).vectors, strict=True)}
    photos = Path("photos")
    (photos / "a.png").rename(photos / "moved.png")
    os.utime(photos / "b.jpg", ns=(1, 1))
    shutil.copy(photos / "f.png", photos / "twin.png")
    (photos / "e.jpg").unlink()
    picture(50, 41, seed=70).save(photos / "g.png")
    picture(23, 51, seed=71).save(photos / "new.png")
    encoded = counted_rows(monkeypatch)
    code, out, _ = indexed(run, "--json")
    told = json.loads(out)
    assert code == 0
    assert sorted(encoded) == ["g.png", "new.png"]
    assert (told["files"], told["new"], told["changed"], told["gone"], told["encoded"]) == (8, 3, 2, 2, 2)
    now = {entry.path: row for entry, row in zip(read_index(OUT).entries, read_index(OUT).vectors, strict=True)}
    assert sorted(now) == ["b.jpg", "deep/c.png", "deep/deeper/d.webp", "f.png", "g.png", "moved.png", "new.png", "twin.png"]
    assert np.array_equal(now["moved.png"], before["a.png"])
    assert np.array_equal(now["twin.png"], before["f.png"])
    assert not np.allclose(now["g.png"], before["g.png"])
    no_encoder(monkeypatch)
    assert "nothing to do" in indexed(run)[2]


def test_files_that_cannot_be_read_are_told_and_left_out(run, monkeypatch):
    """Once: they are tried again when they change. Files of other endings are told too, and no link leads out of the folder."""
    photos = Path("photos")
    (photos / "cut.png").write_bytes((photos / "a.png").read_bytes()[:200])
    (photos / "junk.jpg").write_bytes(b"junk")
    (photos / "empty.gif").write_bytes(b"")
    (photos / "notes.txt").write_text("no picture")
    picture(9, 9).save("secret.png")
    (photos / "link.png").symlink_to(Path("secret.png").resolve())
    (photos / "inner.png").symlink_to((photos / "a.png").resolve())
    code, out, err = indexed(run, "--json")
    told = json.loads(out)
    assert code == 0
    assert sorted(told["left_out"]) == ["cut.png", "empty.gif", "junk.jpg"]
    assert "left out: cut.png: 'photos/cut.png'" in err
    assert "is no picture that can be read" in told["left_out"]["junk.jpg"]
    assert "left out by their endings: 1 file in 'photos'" in err
    assert "lead out of 'photos': 1 link, such as link.png" in err
    assert told["files"] == 8
    encoded = counted_rows(monkeypatch)
    assert "left out: 3 files, such as cut.png" in indexed(run)[2]
    picture(19, 21).save(photos / "cut.png")
    assert json.loads(indexed(run, "--json")[1])["files"] == 9
    assert encoded == ["cut.png"]


def test_another_model_is_refused_and_both_are_named(run):
    """Of other weights, and of the same weights with another preparation; the index stays as it was."""
    indexed(run)
    before = OUT.read_bytes()
    shutil.copytree(small_clip(5), "other")
    code, _, err = indexed(run, checkpoint="./other")
    assert code != 0
    assert "the index 'photos.safetensors' was made with ./clip" in err
    assert "this is ./other (clip/embed: image_embedding): weights are ./clip (sha256" in err
    assert "wired in another way" not in err
    code, _, err = indexed(run, "--set", "nodes.pixels.with.resample=0")
    assert code != 0
    assert "pixels.resample is 3, not 0" in err
    code, _, err = indexed(run, "--dtype", "float64")
    assert code != 0
    assert "dtype is float32, not float64" in err
    assert OUT.read_bytes() == before


def test_the_same_model_under_another_name_is_the_same(run, monkeypatch):
    """A model is its contents, wherever it lies."""
    indexed(run)
    shutil.copytree("clip", "elsewhere")
    no_encoder(monkeypatch)
    code, _, err = indexed(run, checkpoint="./elsewhere")
    assert (code, "nothing to do" in err) == (0, True)


def test_an_index_is_of_one_folder_that_may_move(run, monkeypatch):
    """Another folder is refused while the first is there; moved together with its files it is known again."""
    indexed(run)
    fill(Path("others"))
    words = ("index", "clip/embed", "others", "--out", str(OUT), "--set", "checkpoint=./clip")
    code, _, err = run(*words)
    assert code != 0
    assert "is of the folder" in err
    shutil.rmtree("others")
    Path("photos").rename("others")
    no_encoder(monkeypatch)
    assert run(*words)[0] == 0


def test_two_processes_do_not_write_one_index(run):
    with locked(OUT.with_name(f".{OUT.name}.lock")):
        code, _, err = indexed(run)
    assert code != 0
    assert "is being written by another process" in err
    assert not OUT.exists()


def test_a_stopped_index_is_whole_and_goes_on(run, monkeypatch):
    """What was encoded before is in it; nothing of it is encoded again."""
    read = indexing._read

    def stopping(task, seen, digest):
        if seen.path == "g.png":
            raise KeyboardInterrupt
        return read(task, seen, digest)

    monkeypatch.setattr(indexing, "_read", stopping)
    code, _, err = indexed(run, "--batch-size", "1")
    assert code == 130
    held = len(read_index(OUT).entries)
    assert 0 < held < 7
    assert f"kept in photos.safetensors: {held} file" in err
    monkeypatch.setattr(indexing, "_read", read)
    encoded = counted_rows(monkeypatch)
    assert json.loads(indexed(run, "--json")[1])["files"] == 7
    assert len(encoded) == 7 - held


def test_a_write_that_fails_leaves_the_index_before(run, monkeypatch):
    """It is written aside, and nothing stays there."""
    indexed(run)
    before = OUT.read_bytes()

    def failing(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", failing)
    picture(23, 51, seed=71).save("photos/new.png")
    code, _, err = indexed(run)
    assert code != 0
    assert "No space left on device" in err
    assert OUT.read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["clip", "photos", "photos.safetensors"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("index", "clip", "nowhere", "--out", "x.safetensors"), "there is no folder 'nowhere'"),
        (("index", "clip", "photos", "--out", "x.npy"), "an index is a file such as x.safetensors"),
        (("index", "clip", "photos", "--out", "x.safetensors"), "no output is a vector of one file"),
        (("index", "clip", "photos", "--out", "x.safetensors", "--output", "text_proj"), "'text_proj' cannot be kept; wanted: a vector"),
        (("index", "clip", "photos", "--out", "x.safetensors", "--output", "vison_proj"), "there is no output 'vison_proj'"),
        (("index", "clip", "photos", "--out", "x.safetensors", "--thumbnail", "-1"), "--thumbnail takes 0 to 1024 pixels"),
        (("index", "clip", "clip", "--out", "x.safetensors", "--output", "vision_proj"), "has no file of type image"),
    ],
)
def test_mistakes_are_told_in_a_sentence(run, words, said):
    code, _, err = run(*words, "--set", "checkpoint=./clip")
    assert code != 0
    assert said in err
    assert not Path("x.safetensors").exists()


@pytest.mark.parametrize("harm", [b"", b"\x10\0\0\0\0\0\0\0{}", b"no index at all"])
def test_a_file_that_is_no_index_is_neither_read_nor_replaced(run, harm):
    OUT.write_bytes(harm)
    code, _, err = indexed(run)
    assert code != 0
    assert "cannot be read as an index" in err
    assert OUT.read_bytes() == harm


def test_a_damaged_index_is_told(run):
    """Cut anywhere, it is no index."""
    indexed(run)
    whole = OUT.read_bytes()
    for part in (9, 300, len(whole) // 2, len(whole) - 1):
        OUT.write_bytes(whole[:part])
        assert "cannot be read as an index" in indexed(run)[2]


def test_small_pictures_may_be_left_out_and_an_approximate_graph_asked_for(run):
    pytest.importorskip("usearch", reason="approximate search is usearch's")
    code, out, _ = indexed(run, "--thumbnail", "0", "--approximate", "--json")
    index = filed.read_index(OUT)
    assert (code, set(index.thumbnails)) == (0, {b""})
    assert index.graph is not None
    assert json.loads(out)["recall"] == index.about.recall == 1.0
