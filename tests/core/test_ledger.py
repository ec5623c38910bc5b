"""The memory ledger: what is held on each device, who is let go of for whom, and what is told when there is no room."""

from __future__ import annotations

import threading

import pytest

import modelgraft as mg
from modelgraft.engine.ledger import Ledger
from modelgraft.kernel.words.sizes import EVERY_DEVICE


class Kept:
    """Things that say when they are let go of."""

    def __init__(self, ledger):
        self.ledger, self.gone, self.held = ledger, [], {}

    def hold(self, name, size, device="cpu", **more):
        self.held[name] = self.ledger.hold(name, size, device, let_go=lambda: self.gone.append(name), **more)
        return self.held[name]


def test_what_was_used_least_recently_goes_first():
    """Not what came first."""
    kept = Kept(Ledger({"cpu": 10}))
    kept.hold("a", 3)
    kept.hold("b", 3)
    kept.hold("c", 3)
    with kept.held["a"].in_use():
        pass
    kept.hold("d", 4)
    assert kept.gone == ["b"]
    assert kept.ledger.taken("cpu") == 10
    assert [held.what for held in kept.ledger.holdings()] == ["c", "a", "d"]


def test_what_is_spare_goes_before_nodes_and_takes_no_room_of_theirs():
    """However recently it was used; among its like what was used least recently goes first."""
    kept = Kept(Ledger({"cpu": 10}))
    kept.hold("node", 4)
    for name in "ab":
        kept.hold(name, 3, is_spare=True)
    kept.hold("c", 2, is_spare=True)
    assert kept.gone == ["a"]
    with pytest.raises(mg.InputError, match="d needs 7 B on cpu"):
        kept.hold("d", 7, is_spare=True)
    assert kept.gone == ["a"]
    kept.hold("other node", 3)
    assert kept.gone == ["a", "b"]
    kept.hold("largest node", 7)
    assert kept.gone == ["a", "b", "c", "node"]


def test_what_measures_more_than_was_planned_takes_from_what_is_spare_first():
    """As who asks beforehand."""
    kept = Kept(Ledger({"cpu": 10}))
    held = kept.hold("a", 2)
    kept.hold("b", 4)
    kept.hold("spare", 4, is_spare=True)
    held.measured({("cpu", "a"): 5})
    assert kept.ledger.settle(held) == ""
    assert kept.gone == ["spare"]


def test_all_that_is_spare_can_be_let_go_of_at_once():
    """Nodes stay, and so does what is in use."""
    kept = Kept(Ledger())
    kept.hold("node", 4)
    for name in "ab":
        kept.hold(name, 3, is_spare=True)
    with kept.held["a"].in_use():
        kept.ledger.let_go_of_spare()
    assert kept.gone == ["b"]
    assert kept.ledger.taken("cpu") == 7


def test_what_is_in_use_stays():
    """However long ago its use began."""
    kept = Kept(Ledger({"cpu": 10}))
    kept.hold("a", 5)
    with kept.held["a"].in_use():
        kept.hold("b", 5)
        kept.hold("c", 5)
    assert kept.gone == ["b"]


def test_nothing_goes_in_vain():
    """When there is no room even so, everything stays, and the message says what is held and what to do."""
    kept = Kept(Ledger({"cpu": 3 << 20}))
    kept.ledger.hold("eye", 2 << 20, "cpu")
    kept.hold("a", 1 << 20)
    with pytest.raises(mg.InputError) as caught:
        kept.hold("tongue", 2 << 20)
    assert kept.gone == []
    assert str(caught.value) == (
        "tongue needs 2 MiB on cpu, which may hold 3 MiB, and 3 MiB are held there by eye 2 MiB, a 1 MiB; give it more with "
        'max_memory="cpu=...", or let go of nodes: `lazy: true`, or `runtime: {keep: false}`'
    )


def test_each_device_has_its_own_limit():
    """By its name, by the limit of every device, or none; "cuda" is the first of them."""
    kept = Kept(Ledger({"cuda": 4, EVERY_DEVICE: 6}))
    kept.hold("a", 4, "cuda:0")
    kept.hold("b", 6, "cpu")
    assert kept.gone == []
    kept.hold("c", 1, "cuda")
    assert (kept.gone, kept.ledger.room("cuda:1"), kept.ledger.room("cuda:0")) == (["a"], 6, 4)
    free = Ledger()
    assert (free.hold("x", 1 << 60, "cpu").what, free.room("cpu")) == ("x", None)


def test_memory_that_several_hold_counts_once_and_goes_with_the_last():
    """As of nodes that share weights."""
    ledger = Ledger({"cpu": 10})
    first, second = (ledger.hold(name, 0, "cpu", let_go=list) for name in "ab")
    first.measured({("cpu", "weights"): 6, ("cpu", "own"): 1})
    second.measured({("cpu", "weights"): 6, ("cpu", "adapter"): 2})
    assert ledger.taken("cpu") == 9
    first.release()
    first.release()
    assert ledger.taken("cpu") == 8
    assert ledger.room("cpu") == 10
    second.release()
    assert ledger.taken("cpu") == 0


def test_what_was_let_go_of_is_not_used_any_more():
    """Whoever comes for it loads it anew."""
    kept = Kept(Ledger({"cpu": 4}))
    held = kept.hold("a", 4)
    kept.hold("b", 4)
    assert held.take() is False
    with pytest.raises(LookupError, match="a was let go of"), held.in_use():
        pass


def test_who_may_wait_gets_room_when_a_use_ends():
    """And looks meanwhile whether it was stopped."""
    kept, looked = Kept(Ledger({"cpu": 4})), []
    held = kept.hold("a", 4)
    held.take()

    def check():
        looked.append(True)
        if len(looked) == 2:
            threading.Timer(0.01, held.give_back).start()

    kept.ledger.hold("b", 4, "cpu", check=check)
    assert kept.gone == ["a"]
    assert len(looked) >= 2
    with pytest.raises(mg.InputError, match="c needs 1 B"):  # b stays for ever: there is nothing to wait for
        kept.ledger.hold("c", 1, "cpu", check=check)


def test_waiting_ends_when_the_run_is_stopped():
    """With what the check raises."""
    kept = Kept(Ledger({"cpu": 4}))
    with kept.hold("a", 4).in_use(), pytest.raises(KeyboardInterrupt):
        kept.ledger.hold("b", 4, "cpu", check=stopped)
    assert kept.gone == []


def stopped():
    raise KeyboardInterrupt


def test_threads_never_hold_more_than_there_is():
    """Room is given and noted at once."""
    kept, most = Kept(Ledger({"cpu": 10})), []

    def take(number):
        for turn in range(50):
            held = kept.hold(f"{number}.{turn}", 2)
            most.append(kept.ledger.taken("cpu"))
            held.release()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 10
    assert kept.ledger.taken("cpu") == 0
