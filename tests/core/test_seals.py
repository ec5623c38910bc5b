"""What is kept is proven before it is used: any bit that turned, any cut, is noticed; what is broken is made again, and that is said."""

from __future__ import annotations

import functools
import json
import logging
import multiprocessing
import operator
import os
import random
import sys
import zlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import checksums, kept, seals, views, weights
from modelgraft.sources.row_tables import place_in
from modelgraft.sources.storage import cache_root, digest_of

LINES = SimpleNamespace(recorded_configs={}, weight_readers={".lines": "number_reader:read"})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test, and pieces so small that a file has many."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(seals, "PIECE_BYTES", 64)


@pytest.fixture
def reader(monkeypatch):
    """A weight reader for files of text: a tensor of its numbers; it counts its calls."""
    module = ModuleType("number_reader")
    module.calls = []

    def read(path, folder):
        module.calls.append(path)
        (folder / "config.json").write_text('{"model_type": "numbers"}')
        save_file({"values": torch.tensor([float(word) for word in path.read_text().split()])}, folder / "model.safetensors")

    module.read = read
    monkeypatch.setitem(sys.modules, "number_reader", module)
    return module


def flip(path: Path, place: int, bit: int) -> None:
    """Turn one bit, and leave size and time of change as they are."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def opened(path: Path) -> list[float]:
    """The tensor of a file, as a run of the graph would get it."""
    view = views.view(views.parse(str(path)), registry=LINES, folder=None, trusted=True, offline=True)
    return weights.open(view, offline=True).tensor("values").tolist()


def folder_of(path: Path) -> Path:
    path.mkdir()
    (path / "inner").mkdir()
    for name, size in {"a": 0, "b": 1, "c": 64, "inner/d": 65, "e": 300}.items():
        (path / name).write_bytes(random.Random(size).randbytes(size))
    seals.seal(path)
    return path


def test_any_bit_and_any_cut_is_noticed(tmp_path):
    """In any file of a sealed folder, its seal included; and nothing else is complained of."""
    folder = folder_of(tmp_path / "it")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for place in range(len(whole)):
            flip(path, place, place % 8)
            assert path.name in seals.complaint(folder)
            path.write_bytes(whole[:place])
            assert path.name in seals.complaint(folder)
            path.write_bytes(whole)
        assert seals.complaint(folder) == ""


@pytest.fixture
def large(monkeypatch):
    """Small files are taken for large ones, of many pieces."""
    monkeypatch.setattr(checksums, "LARGE_BYTES", 70)
    monkeypatch.setattr(checksums, "FIRST_BYTES", 40)
    monkeypatch.setattr(checksums, "ROW_BYTES", 32)


def test_any_bit_and_any_cut_of_a_large_file_is_noticed(tmp_path, large):
    """In its first piece, in rows that are full and in the last one, and what is cut and filled up with zeros."""
    folder = folder_of(tmp_path / "it")
    path = folder / "e"
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (place % 8, (place + 3) % 8):
            flip(path, place, bit)
            assert seals.complaint(folder).startswith("e differs")
            path.write_bytes(whole)
        for other in (whole[:place], whole[:place] + bytes(len(whole) - place)):
            path.write_bytes(other)
            assert "e " in seals.complaint(folder)
        path.write_bytes(whole)
    assert seals.complaint(folder) == ""


@pytest.mark.parametrize("length", [2, 4, 9, 32, 33, 70])
def test_what_is_written_over_a_large_file_is_noticed(tmp_path, large, length):
    """Other bytes, zeros, and the bytes that stood beside them, wherever it is."""
    folder, draw = folder_of(tmp_path / "it"), random.Random(length)
    path = folder / "e"
    whole = path.read_bytes()
    for place in range(0, len(whole) - length, 3):
        beside = whole[place + length :][:length] + whole[place:][:length]
        for over in (draw.randbytes(length), bytes(length), beside):
            other = (whole[:place] + over + whole[place + len(over) :])[: len(whole)]
            if other != whole:
                path.write_bytes(other)
                assert seals.complaint(folder).startswith("e differs")
    path.write_bytes(whole)
    assert seals.complaint(folder) == ""


@pytest.mark.parametrize("size", [71, 72, 104, 136, 200, 1000])
@pytest.mark.parametrize("room", [32, 33, 64, 500])
def test_a_large_file_comes_to_what_its_bits_say(tmp_path, large, monkeypatch, size, room):
    """Rows and columns one word after the other, as little numbers, however much is read at a time."""
    content = random.Random(size).randbytes(size)
    (tmp_path / "a").write_bytes(content)
    monkeypatch.setattr(seals, "READ_BYTES", room)
    seals.seal(tmp_path)

    def summed(piece: bytes) -> int:
        words = [int.from_bytes(piece[start : start + 8], "little") for start in range(0, len(piece), 8)]
        rows = [words[start : start + 4] for start in range(0, len(words), 4)]
        across = [functools.reduce(operator.xor, row) for row in rows]
        down = [functools.reduce(operator.xor, (row[column] for row in rows if column < len(row)), 0) for column in range(4)]
        told = [zlib.crc32(b"".join(word.to_bytes(8, "little") for word in side)) for side in (across, down)]
        return told[0] << 32 | told[1]

    wanted = [zlib.crc32(content[:40]), *(summed(content[start : start + 64]) for start in range(40, size, 64))]
    assert seals.read_sealed(tmp_path / seals.SEAL)["a"] == [size, wanted, seals.LARGE]


def test_a_seal_of_before_still_holds(tmp_path, large):
    """One that has the CRC-32 of each piece of a large file."""
    content = random.Random(1).randbytes(1000)
    (tmp_path / "a").write_bytes(content)
    pieces = [zlib.crc32(content[start : start + 64]) for start in range(0, 1000, 64)]
    seals.write_sealed(tmp_path / seals.SEAL, {"a": [1000, pieces]})
    assert seals.complaint(tmp_path) == ""
    flip(tmp_path / "a", 500, 2)
    assert seals.complaint(tmp_path).startswith("a differs")


def test_a_look_at_the_beginning_of_a_large_file_needs_no_numpy(tmp_path, large, monkeypatch):
    folder = folder_of(tmp_path / "it")
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert seals.complaint(folder, quick=True) == ""


def test_a_complaint_says_what_is_wrong(tmp_path):
    """A file that is gone, longer, a link or a folder; one that was never there; a folder without a seal."""
    folder = folder_of(tmp_path / "it")
    (folder / "e").rename(tmp_path / "e")
    assert seals.complaint(folder) == "e is gone"
    (folder / "e").symlink_to(tmp_path / "e")
    assert seals.complaint(folder) == "e is no file of its own, but a link"
    (folder / "e").unlink()
    (folder / "e").mkdir()
    assert seals.complaint(folder) == "e is no file of its own, but a folder"
    assert seals.complaint(folder, ("c",)) == ""
    assert seals.complaint(folder, ("z",)) == "z was not there when it was sealed"
    (folder / "c").write_bytes(bytes(1000))
    assert seals.complaint(folder, ("c",)) == "c has 1,000 bytes, and had 64"
    (folder / "seal").unlink()
    assert seals.complaint(folder).startswith("it has no seal")
    (folder / "seal").write_bytes(seals.sealed(b"[1]"))
    assert seals.complaint(folder).startswith("its seal is broken")


def test_a_quick_look_reads_sizes_and_beginnings(tmp_path):
    """A bit in the first piece of a file, and a cut anywhere; the rest is for the moment that it is used."""
    folder = folder_of(tmp_path / "it")
    flip(folder / "e", 299, 0)
    assert seals.complaint(folder, quick=True) == ""
    assert seals.complaint(folder) == "e differs from what was written, within the 44 bytes from 256 on"
    flip(folder / "e", 63, 0)
    assert seals.complaint(folder, quick=True) == "e differs from what was written, within the 64 bytes from 0 on"


@pytest.mark.parametrize("seed", range(8))
def test_a_bit_that_turned_in_converted_weights_changes_no_answer(tmp_path, reader, seed):
    """Wherever it is, the file is converted again, once, and a load says so."""
    draw, source = random.Random(seed), tmp_path / "a.lines"
    source.write_text(" ".join(map(str, range(100))))
    wanted = opened(source)
    (folder,) = (path for path in (cache_root() / "converted").iterdir() if path.is_dir())
    path = draw.choice([folder / "model.safetensors"] * 3 + [folder / "config.json", folder / "seal"])
    flip(path, draw.randrange(path.stat().st_size), draw.randrange(8))
    with kept.loading() as said:
        assert opened(source) == wanted
    assert (len(reader.calls), len(said)) == (2, 1)
    assert said[0].startswith("a.lines as it was converted was kept and is broken (")
    assert said[0].endswith("): it is made again")
    with kept.loading() as said:
        assert opened(source) == wanted
    assert (len(reader.calls), said) == (2, [])


@pytest.fixture
def tables(monkeypatch):
    """A weight reader whose files hold two tables, and a file beside them; it counts its calls."""
    module = ModuleType("number_reader")
    module.calls = []

    def read(path, folder):
        module.calls.append(path)
        (folder / "config.json").write_text('{"model_type": "numbers"}')
        (folder / "words.txt").write_text("a word " * 40)
        save_file({"one": torch.arange(300.0).view(30, 10), "two": torch.arange(600.0).view(60, 10)}, folder / "model.safetensors")

    module.read = read
    monkeypatch.setitem(sys.modules, "number_reader", module)
    return module


def asked(what: str, path: Path) -> object:
    """What somebody reads of a source: a table, what lies beside the weights, or a tensor."""
    view = views.view(views.parse(str(path)), registry=LINES, folder=None, trusted=True, offline=True)
    found = weights.open(view, offline=True)
    if what == "home":
        return (found.home / "words.txt").read_text()
    return found.table(what).numbers.tolist() if what in {"one", "two"} else found.tensor("two").tolist()


def harmed(where: str, folder: Path) -> None:
    """Turn a bit in a table, in the header, or in what lies beside the weights."""
    weight_file = folder / "model.safetensors"
    if where == "beside":
        flip(folder / "words.txt", 130, 2)
    elif where == "header":
        flip(weight_file, 8 + 70, 0)
    else:
        place = place_in(weight_file, where)
        flip(weight_file, (place.start + place.stop) // 2, 5)


@pytest.mark.parametrize("where", ["one", "two", "header", "beside"])
@pytest.mark.parametrize("what", ["one", "two", "home", "tensor"])
def test_what_is_read_of_a_source_is_whole_and_the_rest_is_not_looked_at(tmp_path, tables, what, where):
    """A table needs its own bytes and the header, a tokenizer what lies beside the weights, a tensor all; what is broken is made again."""
    source = tmp_path / "a.lines"
    source.write_text("tables")
    wanted = asked(what, source)
    asked("tensor", source)
    (folder,) = (path for path in (cache_root() / "converted").iterdir() if path.is_dir())
    harmed(where, folder)
    matters = what == "tensor" or where == what or (where == "header" and what in {"one", "two"}) or (where, what) == ("beside", "home")
    with kept.loading() as said:
        assert asked(what, source) == wanted
    assert (len(tables.calls), len(said)) == ((2, 1) if matters else (1, 0))


def test_a_source_that_will_be_read_whole_is_looked_at_beside_what_comes_before(tmp_path, tables, monkeypatch):
    """Once: who asks for a tensor then waits for the end of that look."""
    source = tmp_path / "a.lines"
    source.write_text("tables")
    asked("tensor", source)
    view = views.view(views.parse(str(source)), registry=LINES, folder=None, trusted=True, offline=True)
    found, looks = weights.open(view, offline=True), list[object]()
    look = seals.complaint
    monkeypatch.setattr(seals, "complaint", lambda *given, **how: looks.append(given) or look(*given, **how))
    found.begin()
    found.begin()
    assert found.tensor("one").shape == (30, 10)
    assert len(looks) == 1


@pytest.mark.parametrize("harm", ["cut", "empty", "gone", "no seal", "junk"])
def test_converted_weights_that_were_cut_are_made_again_and_not_refused_for_ever(tmp_path, reader, harm):
    """Whatever is left of them."""
    source = tmp_path / "a.lines"
    source.write_text("1 2 3")
    opened(source)
    (folder,) = (path for path in (cache_root() / "converted").iterdir() if path.is_dir())
    if harm == "gone":
        (folder / "config.json").unlink()
    elif harm == "no seal":
        (folder / "seal").unlink()
    else:
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes({"cut": content[:-3], "empty": b"", "junk": bytes(len(content))}[harm])
    assert opened(source) == [1, 2, 3]
    assert len(reader.calls) == 2


def test_without_a_load_around_it_the_log_hears_what_is_made_again(tmp_path, reader, caplog):
    """As where a program opens weights by itself."""
    (tmp_path / "a.lines").write_text("1")
    opened(tmp_path / "a.lines")
    next((cache_root() / "converted").glob("*/config.json")).unlink()
    with caplog.at_level(logging.WARNING, "modelgraft"):
        assert opened(tmp_path / "a.lines") == [1]
    assert "a.lines as it was converted was kept and is broken (config.json is gone): it is made again" in caplog.text


def test_a_file_whose_hash_is_given_is_read_whole_before_it_is_used(tmp_path):
    """A bit that turned between the samples that a look takes is found when the weights are opened, if not before."""
    save_file({"values": torch.zeros(200_000)}, tmp_path / "w.safetensors")
    text = f"{tmp_path}/w.safetensors#sha256={digest_of(tmp_path / 'w.safetensors')}"
    view = views.view(views.parse(text), registry=LINES, folder=None, trusted=True, offline=True)
    assert weights.open(view, offline=True).tensor("values").shape == (200_000,)
    flip(tmp_path / "w.safetensors", 300_001, 3)

    def opened_again() -> torch.Tensor:
        view = views.view(views.parse(text), registry=LINES, folder=None, trusted=True, offline=True)
        return weights.open(view, offline=True).tensor("values")

    with pytest.raises(SourceError, match="hash-mismatch"):
        opened_again()


def _work(seed: int) -> list[str]:
    """What one of several processes does to one entry: make, use, break or delete it; gives what went wrong."""
    draw, wrong = random.Random(seed), list[str]()
    folder = cache_root() / "entries" / "one"
    for _ in range(15):
        choice = draw.choice(["use", "use", "use", "break", "delete"])
        try:
            if choice == "use":
                with kept.loading():
                    found = kept.keep(
                        folder, lambda aside: (aside / "a").write_text("x" * 500) and None, lock=folder.with_suffix(".lock"), what="it"
                    )
                    text = (found / "a").read_text()
                    if text != "x" * 500:
                        wrong.append(text)
            elif choice == "delete":
                kept.delete(folder)
            elif folder.is_dir():
                (folder / "seal").unlink(missing_ok=True)
        except Exception as error:  # noqa: BLE001 what the test looks for
            wrong.append(repr(error))
    return wrong


@pytest.mark.skipif(sys.platform == "win32", reason="there are no file locks")
def test_processes_that_make_use_break_and_delete_one_entry_do_not_disturb_each_other(tmp_path):
    """Whoever uses it sees the whole of it, and nobody fails."""
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert [text for wrong in pool.map(_work, range(4)) for text in wrong] == []
    left = [path.name for path in (cache_root() / "entries").iterdir()]
    assert set(left) <= {"one", "one.lock"}


@pytest.mark.parametrize("content", [b"", b"modelgraft-seal", b"modelgraft-seal 2 00000000\n", b'{"a": 1}', seals.sealed(b"{")])
def test_a_small_file_that_is_not_what_was_written_is_no_answer(tmp_path, content):
    """Of another version, without a checksum, sealed and yet no JSON."""
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(seals.BrokenSeal):
        seals.read_sealed(tmp_path / "a")
    seals.write_sealed(tmp_path / "a", {"b": [1, None]})
    assert seals.read_sealed(tmp_path / "a") == {"b": [1, None]}
    assert json.loads((tmp_path / "a").read_bytes().partition(b"\n")[2]) == {"b": [1, None]}


def test_checksums_do_not_depend_on_how_much_is_read_at_a_time(tmp_path, monkeypatch):
    """Those of a folder are CRC-32 of its pieces, also where a read gives less than a piece."""
    content = random.Random(3).randbytes(1000)
    (tmp_path / "a").write_bytes(content)
    monkeypatch.setattr(seals, "PIECE_BYTES", 64)
    monkeypatch.setattr(seals, "READ_BYTES", 7)
    seals.seal(tmp_path)
    size, pieces = seals.read_sealed(tmp_path / seals.SEAL)["a"]
    assert (size, pieces) == (1000, [zlib.crc32(content[start : start + 64]) for start in range(0, 1000, 64)])
    assert seals.complaint(tmp_path) == ""


def test_a_sum_that_was_begun_is_that_of_what_lies_there(tmp_path):
    """A file that was written to since is summed up again; one that is gone by then, or was never there, is nobody's affair."""
    for name in "abc":
        (tmp_path / name).write_bytes(random.Random(name).randbytes(300))
    for name in "abcd":
        seals.begin_to_seal(tmp_path / name)
    (tmp_path / "b").write_bytes(random.Random(7).randbytes(300))
    (tmp_path / "c").unlink()
    seals.seal(tmp_path)
    assert seals.names_in(tmp_path) == ("a", "b")
    assert seals.complaint(tmp_path) == ""
    flip(tmp_path / "a", 299, 3)
    assert seals.complaint(tmp_path).startswith("a differs")
