"""What is imported before a load is as old as what Python looks through last, so that no collection meets all of it at once."""

from __future__ import annotations

import gc
import sys
from types import ModuleType

import pytest

from modelgraft.engine.beginning import _kept_whole


@pytest.fixture
def made():
    """Things that stand for what an import makes, in a process that keeps nothing apart."""
    kept_apart = gc.get_freeze_count()
    gc.unfreeze()
    yield [[index] for index in range(1000)]
    gc.unfreeze()
    if kept_apart:
        gc.freeze()


def ages(things):
    """In which generations they are; none for those that are kept apart."""
    known = {id(thing) for thing in things}
    return {age for age in range(3) if known & {id(thing) for thing in gc.get_objects(generation=age)}}


@pytest.fixture
def imported(monkeypatch):
    """What a call of has a module imported."""
    return lambda: monkeypatch.setitem(sys.modules, "imported_by_a_test", ModuleType("imported_by_a_test"))


def test_what_was_imported_is_looked_through_last_and_may_still_be_garbage(made, imported):
    """It goes into the oldest generation; nothing is kept apart for good, and a collection frees what nobody holds."""
    with _kept_whole():
        assert not gc.isenabled()
        imported()
        made += [[index] for index in range(1000)]
    assert gc.isenabled()
    assert ages(made) == {2}
    assert gc.get_freeze_count() == 0


def test_where_a_process_keeps_its_imports_apart_these_are_too(made, imported):
    """As the command line does, which ends soon."""
    gc.freeze()
    with _kept_whole():
        imported()
        more = [[index] for index in range(1000)]
    assert ages(more) == ages(made) == set()


def test_where_nothing_was_imported_nothing_is_kept_apart(made):
    """A server loads nodes again and again, and what lives meanwhile may be garbage soon."""
    gc.freeze()
    with _kept_whole():
        more = [[index] for index in range(1000)]
    assert ages(more) != set()
    assert made


def test_a_collector_that_was_off_stays_off(made):
    """It is the user's."""
    gc.disable()
    try:
        with _kept_whole():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert made
