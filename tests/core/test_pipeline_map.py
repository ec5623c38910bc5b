"""Records in batches: in order, bounded, each with its own failure."""

from __future__ import annotations

import threading

import pytest
import torch

import modelgraft as mg
from modelgraft.engine.run import current
from support.running import TEXT, Counter, function, opened, shout, shouting


def careful(ran):
    def body(x):
        ran.note(len(x))
        if "bad" in x:
            raise ValueError("a bad one")
        return shout(x)

    return function("toy/careful", TEXT, {"out": "text"}, body)


def test_records_come_back_in_order_and_a_failure_stays_with_its_record(tmp_path):
    """Five records in batches of two: the batch with the bad one is run again one by one."""
    ran = Counter()
    nodes = {"a": {"use": "toy/careful", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [careful(ran)], nodes, outputs={"out": "a"}) as pipeline:
        results = list(pipeline.map([{"x": text} for text in ("a", "b", "c", "bad", "e")], batch_size=2))
    assert [result.error is None and result["out"] for result in results] == ["A", "B", "C", False, "E"]
    assert "a bad one" in str(results[3].error)
    with pytest.raises(mg.NodeError, match="a bad one"):
        results[3]["out"]
    assert ran.calls == [2, 2, 1, 1, 1]


ODD = {
    "short": lambda x: x[:-1],
    "none": lambda _: None,
    "number": lambda _: 5,
    "mapping": lambda _: {"a": 1},
    "types": lambda x: [5] * len(x),
}


def odd(x):
    for text in x:
        if text == "plugin":
            raise mg.PluginError("no licence for this record")
        if text in ODD:
            return ODD[text](x)
    return shout(x)


@pytest.mark.parametrize("word", [*ODD, "plugin"])
@pytest.mark.parametrize("size", [1, 3])
def test_what_a_node_gives_is_what_it_declared_or_the_failure_of_its_record(tmp_path, word, size):
    """Also when it was right in all calls before, and so fast that its calls are no longer looked at one by one."""
    nodes = {"a": {"use": "toy/odd", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [function("toy/odd", TEXT, {"out": "text"}, odd)], nodes, outputs={"out": "a"}) as pipeline:
        pipeline.run(x="a")
        results = list(pipeline.map([{"x": text} for text in ("a", word, "c")], batch_size=size))
        assert [result.error is None and result["out"] for result in results] == ["A", False, "C"]
        assert isinstance(results[1].error, mg.NodeError)
        told = (
            "no licence for this record" if word == "plugin" else "plugin 'toy': toy/odd breaks its declaration in node 'a': output 'out': "
        )
        assert told in str(results[1].error)


def test_a_record_that_cannot_be_read_does_not_hold_up_the_others(tmp_path):
    """A wrong type, a missing and an unknown input: each is the error of its own record."""
    with shouting(tmp_path) as pipeline:
        results = list(pipeline.map([{"x": "a"}, {"x": 3}, {}, {"z": "a"}, {"x": "b", "y": "!"}], batch_size=8))
    assert [type(result.error).__name__ for result in results] == ["NoneType", "InputError", "InputError", "InputError", "NoneType"]
    assert results[0]["both"] == ("A", "-")
    assert results[4]["both"] == ("B", "!")


def test_a_record_that_is_no_mapping_does_not_hold_up_the_others(tmp_path):
    """What was found, and what a record is."""
    with shouting(tmp_path) as pipeline:
        found = list(pipeline.map([3, {"x": "a"}], batch_size=2))
    assert str(found[0].error) == "found 3, wanted a record: a mapping of inputs to values"
    assert found[1].error is None


def test_a_seed_that_is_no_number_is_the_users_mistake(tmp_path):
    """Not that of the first node that draws."""
    with shouting(tmp_path) as pipeline, pytest.raises(mg.InputError, match="seed is 'x'; wanted: a whole number"):
        pipeline.run(x="a", seed="x")


def test_records_are_read_no_further_ahead_than_one_batch(tmp_path):
    """A source without end can be mapped."""
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield {"x": "a"}

    with shouting(tmp_path) as pipeline:
        results = pipeline.map(endless(), batch_size=3)
        assert next(results)["loud"] == "A"
        assert len(taken) == 3


def test_a_mapped_tensor_output_is_that_of_a_run_of_its_own(tmp_path):
    """It keeps its batch axis, one long."""
    part = function("toy/vector", TEXT, {"out": "float[batch 2]"}, lambda x: torch.tensor([[len(t), 1.0] for t in x]))
    nodes = {"a": {"use": "toy/vector", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part], nodes, outputs={"out": "a"}) as pipeline:
        mapped = list(pipeline.map([{"x": "a"}, {"x": "bcd"}]))
        alone = pipeline.run(x="bcd")
    assert mapped[1]["out"].tolist() == alone["out"].tolist() == [[3.0, 1.0]]


def test_tensors_of_different_shapes_are_mapped_one_by_one(tmp_path):
    """They make no batch together."""
    part = function("toy/sum", {"x": "float[batch tokens]"}, {"out": "float[batch]"}, lambda x: x.sum(1))
    nodes = {"a": {"use": "toy/sum", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [part], nodes, inputs={"x": "float[batch tokens]"}, outputs={"out": "a"}) as pipeline:
        results = list(pipeline.map([{"x": torch.ones(1, 2)}, {"x": torch.ones(1, 3)}]))
    assert [result["out"].tolist() for result in results] == [[2.0], [3.0]]


def test_an_error_among_the_records_comes_back_in_its_place(tmp_path):
    """Whoever reads records need not stop at one that cannot be read."""
    broken = mg.InputError("line 2 is no JSON")
    with shouting(tmp_path) as pipeline:
        found = list(pipeline.map([{"x": "a"}, broken, {"x": "b"}], batch_size=8))
    assert [result.error for result in found] == [None, broken, None]
    assert [found[0]["loud"], found[2]["loud"]] == ["A", "B"]


def test_one_record_is_not_taken_for_many(tmp_path):
    """Nor is the name of a file."""
    with shouting(tmp_path) as pipeline:
        with pytest.raises(
            mg.InputError, match=r"found a dict, wanted records: a list of mappings, such as \[\{'x': \.\.\., 'y': \.\.\.\}\]"
        ):
            pipeline.map({"x": "a"})
        with pytest.raises(mg.InputError, match=r"found 'data\.jsonl', wanted records"):
            pipeline.map("data.jsonl")


def test_a_value_without_a_name_says_how_it_is_written(tmp_path):
    """In run and in stream, which run nothing then."""
    told = r"found 'a' without a name; the inputs are: x \(text\), y \(text\)\. Write {}\(x='a', y=\.\.\.\)"
    with shouting(tmp_path) as pipeline:
        with pytest.raises(mg.InputError, match=told.format("run")):
            pipeline.run("a")
        with pytest.raises(mg.InputError, match=told.format("stream")):
            pipeline.stream("a")


def test_offline_holds_for_what_a_run_is_given(tmp_path, monkeypatch):
    """A package that is not in the cache is not fetched, and no folder is made for it."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("subprocess.run", None)
    nodes = {"a": {"use": "toy/size", "in": {"x": "inputs.x"}}}
    part = function("toy/size", {"x": "image"}, {"out": "text"}, lambda x: [str(one.size) for one in x])
    with opened(tmp_path, [part], nodes, inputs={"x": "image"}, outputs={"out": "a"}, offline=True) as pipeline:
        with pytest.raises(mg.SourceError, match=r"is not in the cache .* and this run is offline"):
            pipeline.run(x="pypi:nothing==1.0/a.png")
        (result,) = pipeline.map([{"x": "pypi:nothing==1.0/a.png"}])
    assert "input 'x': not-cached" in str(result.error)
    assert not (tmp_path / "cache").exists()


# -- side by side -------------------------------------------------------------------------------------------------------


def meeting_runs(count):
    """A node whose calls wait until so many of them are there at once."""
    barrier = threading.Barrier(count, timeout=30)

    def body(x):
        barrier.wait()
        return shout(x)

    return function("toy/meet", TEXT, {"out": "text"}, body)


MEET = {"a": {"use": "toy/meet", "in": {"x": "inputs.x"}}}


def test_batches_of_a_map_are_under_way_side_by_side(tmp_path):
    """Two batches meet in one node, and their results come in the order of the records."""
    with opened(tmp_path, [meeting_runs(2)], MEET, outputs={"out": "a"}) as pipeline:
        results = list(pipeline.map(({"x": text} for text in "abcdefgh"), batch_size=2, ahead=2))
    assert [result["out"] for result in results] == list("ABCDEFGH")


def test_records_are_read_by_the_caller_whatever_is_under_way(tmp_path):
    """Their maker need not know of threads, and is no further ahead than what is under way and one batch."""
    threads, taken = set(), []

    def endless():
        while True:
            threads.add(threading.get_ident())
            taken.append(1)
            yield {"x": "a"}

    with shouting(tmp_path) as pipeline:
        results = pipeline.map(endless(), batch_size=3, ahead=2)
        assert next(results)["loud"] == "A"
        assert len(taken) <= 3 * 3
        results.close()
    assert threads == {threading.get_ident()}


def test_a_failure_side_by_side_stays_with_its_record(tmp_path):
    ran = Counter()
    nodes = {"a": {"use": "toy/careful", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [careful(ran)], nodes, outputs={"out": "a"}) as pipeline:
        results = list(pipeline.map([{"x": text} for text in ("a", "b", "c", "bad", "e")], batch_size=2, ahead=3))
    assert [result.error is None and result["out"] for result in results] == ["A", "B", "C", False, "E"]
    assert sorted(ran.calls) == [1, 1, 1, 2, 2]


def test_what_a_maker_of_records_raises_comes_through(tmp_path):
    """After those that were under way have ended."""

    def breaking():
        yield {"x": "a"}
        raise ZeroDivisionError

    with shouting(tmp_path) as pipeline, pytest.raises(ZeroDivisionError):
        list(pipeline.map(breaking(), batch_size=1, ahead=2))


def test_leaving_a_map_stops_what_is_under_way_and_no_other_run(tmp_path):
    """A node that waits to be stopped is stopped, and the pipeline goes on."""
    begun, stopped = threading.Event(), threading.Event()

    def body(x):
        if x == ["a"]:
            assert begun.wait(30)  # so that the second is under way when the first is given
        if x == ["wait"]:
            begun.set()
            assert current().cancelled.wait(30)
            stopped.set()
        return shout(x)

    nodes = {"a": {"use": "toy/wait", "in": {"x": "inputs.x"}}}
    with opened(tmp_path, [function("toy/wait", TEXT, {"out": "text"}, body)], nodes, outputs={"out": "a"}) as pipeline:

        def records():
            yield {"x": "a"}
            yield {"x": "wait"}
            assert begun.wait(30)
            yield {"x": "b"}

        results = pipeline.map(records(), batch_size=1, ahead=2)
        assert next(results)["out"] == "A"
        results.close()
        assert stopped.wait(30)
        assert pipeline.run(x="c")["out"] == "C"


def test_ahead_is_a_number_that_means_something(tmp_path):
    with shouting(tmp_path) as pipeline, pytest.raises(mg.InputError, match="ahead is 9; wanted: 0 to 4, or None"):
        pipeline.map([{"x": "a"}], ahead=9)
