"""Branches that a record asks several times: rows are asks, all of them in one call, and come back to their records in their order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modelgraft as mg
from modelgraft import ABSENT, GraphError, port
from modelgraft.records.batch import NOTHING, Batch
from support.running import Counter, document, function, graph_of, registry_of

WORDS = {"word": port("text", several="words"), "long": port("mask[batch]", several="words")}
TWO = {"word": port("text", several="words"), "other": port("text", several="others")}


def cut(x):
    return [text.split() for text in x]


def sizes(x):
    """A tensor of asks for each record, of no rows where there are none."""
    return {"word": cut(x), "size": [torch.tensor([[float(len(word))] for word in text.split()]).reshape(-1, 1) for text in x]}


def beside(words, x):
    return list(zip(words, x, strict=True))


def as_numbers(sizes):
    return [[one.tolist() for one in each] for each in sizes]


def parts(ran, **facts):
    """What cuts a text into words, what is done with each, and what takes them together."""

    def shout(word, whole):
        ran.note(tuple(word))
        return [f"{a.upper()} of {b}" for a, b in zip(word, whole, strict=True)]

    def half(size):
        return size / 2

    return [
        function("toy/cut", {"x": "text"}, {"word": port("text", several="words")}, cut, **facts),
        function("toy/sizes", {"x": "text"}, {"word": WORDS["word"], "size": port("float[batch 1]", several="words")}, sizes, **facts),
        function("toy/two", {"x": "text"}, TWO, lambda x: {"word": cut(x), "other": [["a", "b"] for _ in x]}, **facts),
        function("toy/shout", {"word": "text", "whole": "text"}, {"out": "text"}, shout, **facts),
        function("toy/same", {"word": "text"}, {"out": "text"}, lambda word: word, **facts),
        function("toy/is_long", {"word": "text"}, {"long": "mask[batch]"}, lambda word: [len(one) > 2 for one in word], **facts),
        function("toy/half", {"size": "float[batch n]"}, {"out": "float[batch n]"}, half, **facts),
        function("toy/all", {"words": port("text", several="*"), "x": "text"}, {"out": "object"}, beside, **facts),
        function("toy/tensors", {"sizes": port("float[batch n]", several="*")}, {"out": "object"}, as_numbers, **facts),
        function("toy/fails", {"word": "text"}, {"out": "text"}, fails, **facts),
    ]  # fmt: skip


def fails(word):
    if "bad" in word:
        raise RuntimeError("out of memory")
    return word


NODES = {
    "cut": {"use": "toy/sizes", "in": {"x": "inputs.x"}},
    "loud": {"use": "toy/shout", "in": {"word": "cut.word", "whole": "inputs.x"}, "lazy": True},
    "half": {"use": "toy/half", "in": {"size": "cut.size"}},
    "all": {"use": "toy/all", "in": {"words": "loud", "x": "inputs.x"}},
    "sizes": {"use": "toy/tensors", "in": {"sizes": "half"}},
}
OUTPUTS = {"all": "all", "sizes": "sizes"}


def opened(tmp_path, ran, nodes=None, outputs=None, **more):
    written = document(nodes or NODES, inputs={"x": "text"}, outputs=outputs or OUTPUTS, **more)
    return mg.open(graph_of(registry_of(*parts(ran)), tmp_path, written))


def test_each_ask_is_a_row_and_all_of_them_are_one_call(tmp_path):
    """Two words, none and one: the branch runs for three rows, each with the whole text of its record."""
    ran = Counter()
    with opened(tmp_path, ran) as pipeline:
        for _ in range(3):
            ran.calls.clear()
            result = pipeline.run(x=["an ox", "", "cow"])
            assert result["all"] == [(["AN of an ox", "OX of an ox"], "an ox"), ([], ""), (["COW of cow"], "cow")]
            assert result["sizes"] == [[[1.0], [1.0]], [], [[1.5]]]
            assert ran.calls == [("an", "ox", "cow")]


def test_a_branch_that_nobody_asks_is_not_run_and_not_loaded(tmp_path):
    ran = Counter()
    with opened(tmp_path, ran) as pipeline:
        result = pipeline.run(x="")
        assert (result["all"], result["sizes"], ran.calls) == (([], ""), [], [])
        assert "loud" not in pipeline._loader.loaded()
        assert pipeline.run(x="ox")["all"] == (["OX of ox"], "ox")
        assert "loud" in pipeline._loader.loaded()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("asks"), Counter()) as found:
        yield found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(st.sampled_from(["a", "bcd", "efgh"]), max_size=4).map(" ".join), min_size=1, max_size=4))
def test_a_batch_gives_what_its_records_give_alone(pipeline, texts):
    whole = pipeline.run(x=texts)
    alone = [pipeline.run(x=text) for text in texts]
    for name in OUTPUTS:
        assert whole[name] == [one[name] for one in alone]


def test_a_route_within_the_branch_leaves_asks_out_and_their_places_stay(tmp_path):
    nodes = {
        "cut": {"use": "toy/cut", "in": {"x": "inputs.x"}},
        "is_long": {"use": "toy/is_long", "in": {"word": "cut"}},
        "same": {"use": "toy/same", "in": {"word": "cut"}, "when": "is_long"},
        "all": {"use": "toy/all", "in": {"words": "same", "x": "inputs.x"}},
    }
    with opened(tmp_path, Counter(), nodes, {"all": "all"}) as pipeline:
        assert pipeline.run(x=["a bcd e fgh", "a"])["all"] == [([ABSENT, "bcd", ABSENT, "fgh"], "a bcd e fgh"), ([ABSENT], "a")]


def test_an_output_within_a_branch_is_a_list(tmp_path):
    with opened(tmp_path, Counter(), {"cut": {"use": "toy/cut", "in": {"x": "inputs.x"}}}, {"words": "cut"}) as pipeline:
        assert pipeline.run(x=["a b", "", "c"])["words"] == [["a", "b"], [], ["c"]]
        assert pipeline.run(x="a b")["words"] == ["a", "b"]
        assert [one["words"] for one in pipeline.map([{"x": "a b"}, {"x": ""}, {"x": "c"}], batch_size=2)] == [["a", "b"], [], ["c"]]


def test_what_is_kept_of_an_earlier_run_keeps_its_asks(tmp_path):
    ran = Counter()
    written = document(NODES, inputs={"x": "text"}, outputs=OUTPUTS)
    with mg.open(graph_of(registry_of(*parts(ran, cache=True)), tmp_path, written)) as pipeline:
        first, second = pipeline.run(x=["an ox", ""]), pipeline.run(x=["an ox", ""])
        assert first["all"] == second["all"]
        assert {"cut", "loud"} <= second.cached
        assert len(ran.calls) == 1


def test_what_is_kept_of_records_that_ask_nothing_is_kept_for_so_many(tmp_path):
    """An input that is left out is the same nothing for one record and for two; a list for each record is not."""
    parts = [
        function("toy/cut", {"x": "text"}, {"word": port("text", several="words")}, cut),
        function("toy/all", {"words": port("text", several="*")}, {"out": "object"}, lambda words: words, cache=True),
        function("toy/both", {"words": "object", "y": "text"}, {"out": "object"}, lambda words, y: list(zip(words, y, strict=True))),
    ]
    nodes = {
        "cut": {"use": "toy/cut", "in": {"x": "inputs.x"}},
        "all": {"use": "toy/all", "in": {"words": "cut"}},
        "both": {"use": "toy/both", "in": {"words": "all", "y": "inputs.y"}},
    }
    written = document(nodes, inputs={"x": "optional[text]", "y": "text"}, outputs={"both": "both"})
    with mg.open(graph_of(registry_of(*parts), tmp_path, written)) as pipeline:
        assert pipeline.run(y="a")["both"] == ([], "a")
        assert pipeline.run(y=["a", "b"])["both"] == [([], "a"), ([], "b")]


APART = {
    "two": {"use": "toy/two", "in": {"x": "inputs.x"}},
    "both": {"use": "toy/shout", "in": {"word": "two.word", "whole": "two.other"}},
    "after": {"use": "toy/same", "in": {"word": "both"}},
    "all": {"use": "toy/all", "in": {"words": "after", "x": "inputs.x"}},
}
WITHIN = {
    "cut": {"use": "toy/cut", "in": {"x": "inputs.x"}},
    "again": {"use": "toy/cut", "in": {"x": "cut"}},
    "all": {"use": "toy/all", "in": {"words": "again", "x": "inputs.x"}},
}


@pytest.mark.parametrize(("nodes", "code", "said"), [
    (APART, "asks-apart", "both is fed by two.others and two.words"),
    (WITHIN, "asks-within-asks", "again.word asks a branch several times, and again itself is asked several times by cut.words"),
])  # fmt: skip
def test_asks_that_cannot_meet_are_told_by_the_check(tmp_path, nodes, code, said):
    with pytest.raises(GraphError) as error:
        opened(tmp_path, Counter(), nodes, {"all": "all"})
    (problem,) = error.value.problems
    assert (problem.code, said in str(problem)) == (code, True)


MARKED = {
    "cut": {"use": "toy/cut", "in": {"x": "inputs.x"}},
    "risky": {"use": "toy/fails", "in": {"word": "cut"}, "runtime": {"failure": "mark"}},
    "all": {"use": "toy/all", "in": {"words": "risky", "x": "inputs.x"}},
}


def test_a_failure_that_is_marked_costs_only_the_asks_that_fail(tmp_path):
    with opened(tmp_path, Counter(), MARKED, {"all": "all"}) as pipeline:
        result = pipeline.run(x=["good bad fine", "ok"])
        assert result["all"] == [(["good", ABSENT, "fine"], "good bad fine"), (["ok"], "ok")]
        assert result.warnings == ("risky: failed, and the run goes on without what it would have given: RuntimeError: out of memory",)


def test_without_the_mark_a_failure_ends_the_run(tmp_path):
    nodes = {**MARKED, "risky": {"use": "toy/fails", "in": {"word": "cut"}}}
    with opened(tmp_path, Counter(), nodes, {"all": "all"}) as pipeline, pytest.raises(mg.NodeError, match="out of memory"):
        pipeline.run(x="bad")


def test_a_mark_for_the_whole_graph_holds_where_no_branch_is(tmp_path):
    nodes = {"risky": {"use": "toy/fails", "in": {"word": "inputs.x"}}, "same": {"use": "toy/same", "in": {"word": "inputs.x"}}}
    with opened(tmp_path, Counter(), nodes, {"risky": "risky", "same": "same"}, runtime={"failure": "mark"}) as pipeline:
        result = pipeline.run(x=["bad", "ok"])
        assert (result["risky"], result["same"]) == ([ABSENT, "ok"], ["bad", "ok"])


@pytest.mark.parametrize(("given", "said"), [
    (["a"], "found a list of 1"), ([["a"], 3], "found 3 for record 1"), ([["a"], [3]], "record 0 is 3, wanted text"),
])  # fmt: skip
def test_a_plugin_that_gives_no_lists_of_asks_is_told(tmp_path, given, said):
    subject = function("toy/odd", {"x": "text"}, {"word": port("text", several="words")}, lambda x: given)
    written = document({"odd": {"use": "toy/odd", "in": {"x": "inputs.x"}}}, inputs={"x": "text"}, outputs={"out": "odd"})
    with mg.open(graph_of(registry_of(subject), tmp_path, written)) as pipeline, pytest.raises(mg.NodeError) as error:
        pipeline.run(x=["a b", "c"])
    assert said in str(error.value), str(error.value)


def test_batches_of_asks():
    """Rows are taken by ask or by record, gathered with gaps, and joined in their order."""
    batch = Batch.of_asks([["a", "b"], [], ["c"]], [0, 1, 4])
    assert batch.present == ((0, 0), (0, 1), (4, 0))
    assert batch.take(((0, 1), (4, 0))) == ["b", "c"]
    assert batch.listed(5) == [["a", "b"], [], [], [], ["c"]]
    assert Batch(["x", "y"], (0, 4)).take(((0, 0), (0, 1), (4, 0))) == ["x", "x", "y"]
    assert Batch(["b"], ((0, 1),), ((0, 0), (0, 1), (0, 2))).gathered([0]) == [[ABSENT, "b", ABSENT]]
    assert Batch.of_asks([[], []], [0, 1]) is NOTHING
    asks = ((0, 0), (0, 1), (1, 0))
    joined = Batch.join([Batch(torch.tensor([[1.0]]), ((1, 0),), asks), Batch(torch.tensor([[2.0]]), ((0, 1),), asks)])
    assert (joined.present, joined.value.tolist()) == (((0, 1), (1, 0)), [[2.0], [1.0]])
    assert joined.on_wire(2) is joined
