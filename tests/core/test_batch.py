"""Batches: cut, put together and counted, compared with plain lists of records."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelgraft import ABSENT, port
from modelgraft.engine.disk import DiskCache
from modelgraft.records.batch import NOTHING, Batch, Unlike, is_whole
from modelgraft.records.digests import digest, size_bytes
from modelgraft.records.owning import own

KINDS = st.sampled_from(["list", "tensor"])


def made(kind, records):
    """A batch of records that are told apart by their number."""
    return [f"record {record}" for record in records] if kind == "list" else torch.tensor([[float(record), -1.0] for record in records])


def numbers(value):
    """The numbers of the records in a value, in their order."""
    if isinstance(value, list):
        return [int(record.split()[1]) for record in value]
    return [int(row[0]) for row in value.tolist()]


@given(KINDS, st.lists(st.integers(0, 9), unique=True, min_size=1), st.data())
def test_taking_gives_the_records_of_those_numbers(kind, there, data):
    """In the order that is asked for, of a batch that is whole and of one that is not."""
    there = sorted(there)
    asked = data.draw(st.lists(st.sampled_from(there), min_size=1))
    assert numbers(Batch(made(kind, there), tuple(there)).take(asked)) == asked
    assert numbers(Batch(made(kind, range(10))).take(asked)) == asked


@given(KINDS, st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_groups_are_joined_in_the_order_of_their_records(kind, groups):
    """Whatever records ran together."""
    parts = [tuple(index for index, group in enumerate(groups) if group == one) for one in sorted(set(groups))]
    joined = Batch.join([Batch(made(kind, part), part) for part in parts])
    assert numbers(joined.value) == list(range(len(groups)))
    assert joined.present == tuple(range(len(groups)))
    assert not isinstance(joined.on_wire(len(groups)), Batch)
    assert joined.on_wire(len(groups) + 1) is joined


@given(KINDS, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_whole_batches_are_joined_behind_each_other_and_split_again(kind, sizes):
    """One record at a time comes out as it went in."""
    parts, first = [], 0
    for size in sizes:
        parts.append(list(range(first, first + size)))
        first += size
    joined = Batch.join([Batch(made(kind, part)) for part in parts])
    assert numbers(joined.value) == list(range(first))
    assert joined.present is None
    assert [numbers(one) for one in joined.split(first)] == [[record] for record in range(first)]


@given(KINDS, st.lists(st.booleans(), min_size=1, max_size=8))
def test_each_record_is_listed_or_absent(kind, flags):
    """One entry for each, in order."""
    there = tuple(index for index, flag in enumerate(flags) if flag)
    listed = (Batch(made(kind, there), there) if there else NOTHING).listed(len(flags))
    assert [record is not ABSENT for record in listed] == flags
    assert [numbers([record] if kind == "list" else record[None])[0] for record in listed if record is not ABSENT] == list(there)


@pytest.mark.parametrize("kind", ["list", "tensor"])
def test_a_single_record_is_spread_and_nothing_else(kind):
    """What holds two, or no records at all, stays for a check to tell."""
    assert numbers(Batch(made(kind, [7])).spread(3)) == [7, 7, 7]
    for odd in (made(kind, [1, 2]), torch.tensor(5.0), 3, "text"):
        assert Batch(odd).spread(3) is odd
    one = made(kind, [7])
    assert Batch(one).spread(1) is one


def test_what_is_no_single_batch_is_told():
    """Rows of unlike lengths, and records beside rows."""
    with pytest.raises(Unlike, match=r"^\[1, 2\] and \[1, 3\]$"):
        Batch.join([Batch(torch.zeros(1, 2)), Batch(torch.zeros(1, 3))])
    with pytest.raises(Unlike, match="records beside tensors"):
        Batch.join([Batch(["a"]), Batch(torch.zeros(1, 3))])


def test_wires_are_gathered():
    """Records by record, tensors as they are, without those that are not there."""
    assert Batch.gather([["a", "b"], None, ["c", "d"]]) == [["a", "c"], ["b", "d"]]
    one, other = torch.zeros(2), torch.ones(2)
    assert [id(value) for value in Batch.gather([one, other]) or []] == [id(one), id(other)]
    assert Batch.gather([None, None]) is None


def test_what_travels_is_a_batch_of_all_of_some_or_of_none():
    """As it stands on a wire."""
    assert Batch.of(None) is NOTHING
    assert Batch.of(NOTHING) is NOTHING
    assert Batch.of(["a"]).present is None
    assert NOTHING.listed(2) == [ABSENT, ABSENT]


def test_a_batch_is_copied_digested_measured_and_kept(tmp_path):
    """As any record is: which of the records are there counts."""
    one = Batch(torch.ones(2, 3), (0, 4))
    copied = own(one)
    assert torch.equal(copied.value, one.value)
    assert copied.value is not one.value
    assert copied.present == (0, 4)
    assert digest(copied) == digest(one) != digest(Batch(torch.ones(2, 3), (0, 3)))
    assert size_bytes(one) >= one.value.nbytes
    cache = DiskCache(tmp_path, limit_bytes=10_000)
    cache.write("abc", {"x": one, "y": NOTHING})
    found = cache.read("abc")
    assert found["x"].present == (0, 4)
    assert torch.equal(found["x"].value, one.value)
    assert found["y"] == NOTHING


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("text", False),
        ("list[text]", False),
        ("float[batch n]", False),
        ("float[n]", True),
        ("float[3 batch]", True),
        ("float[...]", False),
    ],
)
def test_types_without_a_batch_are_whole(kind, wanted):
    """A tensor whose first axis is something else."""
    assert is_whole(port(kind).type) is wanted
