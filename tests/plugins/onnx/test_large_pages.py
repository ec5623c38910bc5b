"""Memory that is laid on large pages: what is asked for, and that its bytes stay what they are."""

from __future__ import annotations

import ctypes
import mmap
import threading
from pathlib import Path

import pytest

from modelgraft_plugins.onnx import large_pages
from modelgraft_plugins.onnx.large_pages import FROM_BYTES, SIZE, lay, packed, places

TELLS = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell where memory lies")


class Taken:
    """Memory of no file that holds whole large pages, each byte its place; `wrote` is which part of it was written to."""

    def __init__(self, *, wrote: float = 1.0) -> None:
        self.memory = mmap.mmap(-1, 4 * SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.first = -(-ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) // SIZE) * SIZE
        self.start = self.first - ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for place in range(self.start, self.start + int(SIZE * wrote), mmap.PAGESIZE):
            self.memory[place] = 1 + place // mmap.PAGESIZE % 251

    def is_whole(self) -> bool:
        """Whether it still holds what was written."""
        return all(self.memory[place] == 1 + place // mmap.PAGESIZE % 251 for place in range(self.start, self.start + SIZE, mmap.PAGESIZE))


@TELLS
def test_what_is_mostly_there_could_lie_on_a_large_page():
    """What was never written to is not taken for it, but for a little."""
    whole, mostly, half = Taken(), Taken(wrote=0.95), Taken(wrote=0.5)
    found = set(places())
    assert whole.first in found
    assert mostly.first in found
    assert half.first not in found


@TELLS
def test_bytes_stay_what_they_are():
    taken = Taken()
    assert lay([taken.first]) in {0, 1}  # none on a system that has no large pages to give
    assert taken.is_whole()


def test_a_place_that_is_gone_is_passed_over():
    """Memory may be given back before the thread comes to it; nothing lies at the second large page of any process."""
    assert lay([SIZE]) == 0


def graph(folder: Path, size: int) -> Path:
    """The file of a graph beside which lie so many bytes."""
    with (folder / "model.onnx.data").open("wb") as data:
        data.truncate(size)
    return folder / "model.onnx"


@TELLS
def test_what_is_taken_while_a_large_session_opens_is_laid(tmp_path, monkeypatch):
    """And nothing that was there before."""
    monkeypatch.setattr(large_pages, "_has_them", lambda: True)
    asked, done = list[int](), threading.Event()

    def noted(there) -> None:
        asked.extend(there)
        done.set()

    monkeypatch.setattr(large_pages, "lay", noted)
    before = Taken()
    with packed(graph(tmp_path, FROM_BYTES)):
        within = Taken()
    assert done.wait(60)
    assert within.first in asked
    assert before.first not in asked


def test_memory_is_laid_once_steps_win_back_what_it_costs(monkeypatch):
    """Twice as many pages wait twice as long: a process that answers once does not pay for them."""
    done = list[object]()
    monkeypatch.setattr(large_pages.time, "sleep", done.append)
    monkeypatch.setattr(large_pages, "lay", done.append)
    one, two = [1], [1, 2]
    large_pages._lay_later(one)
    large_pages._lay_later(two)
    assert done[1] is one
    assert done[3] is two
    assert done[2] == 2 * done[0] == pytest.approx(2 * large_pages.ASKING_S / large_pages.GAIN)


@pytest.mark.parametrize(
    ("size", "has_them", "is_file"), [(FROM_BYTES - 1, True, True), (FROM_BYTES, False, True), (FROM_BYTES, True, False)]
)
def test_of_small_weights_and_where_the_system_is_set_to_have_none_nothing_is_asked(tmp_path, monkeypatch, size, has_them, is_file):
    monkeypatch.setattr(large_pages, "_has_them", lambda: has_them)
    monkeypatch.setattr(large_pages, "places", lambda: pytest.fail("it was asked where memory lies"))
    with packed(graph(tmp_path, size) if is_file else b"a graph"):
        pass


@pytest.mark.parametrize(("setting", "wanted"), [("always [madvise] never", True), ("always madvise [never]", False), (None, False)])
def test_the_setting_of_the_system_is_obeyed(tmp_path, monkeypatch, setting, wanted):
    file = tmp_path / "enabled"
    if setting is not None:
        file.write_text(setting, encoding="ascii")
    monkeypatch.setattr(large_pages, "SETTING", file)
    assert large_pages._has_them() is wanted


def test_large_pages_wait_for_the_end_of_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(large_pages.time, "sleep", lambda _: None)
    monkeypatch.setattr(large_pages, "lay", done.append)
    later = threading.Thread(target=large_pages._lay_later, args=([1],))
    with large_pages.making(), large_pages.making():
        later.start()
        later.join(0.05)
        assert not done
    later.join(5)
    assert done == [[1]]
