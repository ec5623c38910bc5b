"""Absence: which records a node runs for, and what the others get."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import modelgraft as mg
from modelgraft.engine.calls import check_of
from modelgraft.engine.pipeline import ABSENT
from modelgraft.engine.routing import routed
from modelgraft.records.batch import NOTHING, Batch
from modelgraft.records.shipped import SHIPPED
from support.running import Counter, document, function, graph_of, registry_of

TEXT = {"x": "text"}


def long_ones(x):
    return [len(text) > 3 for text in x]


def shout(x):
    return [text.upper() for text in x]


def parts(ran):
    """A route by length, a branch that notes for which records it runs, and a join of a required and an optional input."""

    def noted(x):
        ran.note(tuple(x))
        return shout(x)

    def either(x, y):
        return [(a, y[index] if y is not None else None) for index, a in enumerate(x)]

    return [
        function("toy/long", TEXT, {"flag": "mask[batch]"}, long_ones),
        function("toy/shout", TEXT, {"out": "text"}, noted),
        function("toy/either", {"x": "text", "y": "optional[text]"}, {"out": "object"}, either),
        function("toy/all", {"x": "list[text]"}, {"out": "object"}, lambda x: [list(items) for items in x]),
        function("toy/vector", TEXT, {"out": "float[batch 2]"}, lambda x: torch.tensor([[float(len(t)), 1.0] for t in x])),
    ]


NODES = {
    "long": {"use": "toy/long", "in": {"x": "inputs.x"}},
    "loud": {"use": "toy/shout", "in": {"x": "inputs.x"}, "when": "long.flag", "lazy": True},
    "louder": {"use": "toy/shout", "in": {"x": "loud"}},
    "both": {"use": "toy/either", "in": {"x": "inputs.x", "y": "loud"}},
    "list": {"use": "toy/all", "in": {"x": ["inputs.x", "louder"]}},
    "vector": {"use": "toy/vector", "in": {"x": "louder"}},
}
OUTPUTS = {"louder": "louder", "both": "both", "list": "list", "vector": "vector"}


def opened(tmp_path, ran):
    return mg.open(graph_of(registry_of(*parts(ran)), tmp_path, document(NODES, inputs={"x": "text"}, outputs=OUTPUTS)))


def test_only_the_records_of_the_route_go_through_the_branch(tmp_path):
    """Others are absent there and in what follows; optional ports and lists of wires go on with what there is."""
    ran = Counter()
    with opened(tmp_path, ran) as pipeline:
        for _ in range(3):
            ran.calls.clear()
            result = pipeline.run(x=["abcd", "ab", "efghi"])
            assert result["louder"] == ["ABCD", ABSENT, "EFGHI"]
            assert result["both"] == [("abcd", "ABCD"), ("ab", None), ("efghi", "EFGHI")]
            assert result["list"] == [["abcd", "ABCD"], ["ab"], ["efghi", "EFGHI"]]
            assert [None if row is ABSENT else row.tolist() for row in result["vector"]] == [[4.0, 1.0], None, [5.0, 1.0]]
            assert ran.calls == [("abcd", "efghi"), ("ABCD", "EFGHI")]


def test_a_branch_that_no_record_needs_is_not_run_and_not_loaded(tmp_path):
    """One short record: the lazy branch stays unloaded; the output of a single record is ABSENT itself."""
    ran = Counter()
    with opened(tmp_path, ran) as pipeline:
        result = pipeline.run(x="ab")
        assert result["louder"] is ABSENT
        assert result["vector"] is ABSENT
        assert result["both"] == ("ab", None)
        assert ran.calls == []
        assert "loud" not in pipeline._loader.loaded()
        assert "louder" in pipeline._loader.loaded(), "it is not lazy"


def test_when_all_records_take_the_branch_values_are_whole(tmp_path):
    """Nothing is cut or joined: a tensor output comes back as one tensor with its batch axis."""
    with opened(tmp_path, Counter()) as pipeline:
        result = pipeline.run(x=["abcd", "abcde"])
        assert result["vector"].tolist() == [[4.0, 1.0], [5.0, 1.0]]
        assert result["louder"] == ["ABCD", "ABCDE"]


def test_absent_is_false_and_says_so():
    """It prints as a word, is false, and is no JSON value by itself: a writer has to say null."""
    assert not ABSENT
    assert repr(ABSENT) == "absent"
    with pytest.raises(TypeError):
        json.dumps(ABSENT)


# -- against a loop over the records ------------------------------------------------------------------------------------


def node_of(tmp_path, name="both"):
    return graph_of(registry_of(*parts(Counter())), tmp_path, document(NODES, inputs={"x": "text"}, outputs=OUTPUTS)).nodes[name]


records = st.lists(st.booleans(), min_size=5, max_size=5)


@settings(max_examples=60)
@given(needed=records, optional=records)
def test_groups_by_presence_equal_a_run_record_by_record(tmp_path_factory, needed, optional):
    """A node with a required and an optional input, each present for any subset of five records."""
    node = node_of(tmp_path_factory.mktemp("route"))
    texts = ["a", "b", "c", "d", "e"]

    def partial(flags):
        chosen = tuple(index for index, flag in enumerate(flags) if flag)
        return Batch([texts[index] for index in chosen], chosen) if chosen else NOTHING

    def code(x, y):
        assert x is not None
        return [(a, None if y is None else y[index]) for index, a in enumerate(x)]

    call = routed(code, node, count=lambda: 5, check=check_of(node, SHIPPED))
    found = Batch.of(call(partial(needed), partial(optional))).listed(5)
    wanted = [(texts[i], texts[i] if optional[i] else None) if needed[i] else ABSENT for i in range(5)]
    assert found == wanted


def test_tensors_of_groups_are_joined_in_the_order_of_the_records(tmp_path):
    """Two groups, interleaved: each row stands where its record does."""
    node = node_of(tmp_path, "vector")
    call = routed(lambda x: torch.tensor([[float(t), 0.0] for t in x]), node, count=lambda: 3, check=check_of(node, SHIPPED))
    merged = call(Batch(["5", "7"], (0, 2)))
    assert merged.present == (0, 2)
    assert merged.value.tolist() == [[5.0, 0.0], [7.0, 0.0]]


def test_a_mask_may_be_a_list_of_truth_values_and_nothing_else(tmp_path):
    """What is neither a tensor nor a list of bool is refused with node, port and type."""
    bad = function("toy/long", TEXT, {"flag": "mask[batch]"}, lambda x: [1 for _ in x])
    registry = registry_of(bad, *parts(Counter())[1:])
    with (
        mg.open(graph_of(registry, tmp_path, document(NODES, inputs={"x": "text"}, outputs=OUTPUTS))) as pipeline,
        pytest.raises(mg.NodeError, match=r"toy/long breaks its declaration in node 'long': output 'flag': found a list of 1, wanted mask"),
    ):
        pipeline.run(x="abcd")


@pytest.mark.parametrize("count", [1, 3])
def test_a_node_that_nothing_feeds_counts_for_every_record(tmp_path, count):
    """A constant text or tensor; also behind a route, and from the cache for a batch of another size."""
    ran = Counter()
    constants = [
        function("toy/word", {}, {"out": "text"}, lambda: ["hm"]),
        function("toy/row", {}, {"out": "float[batch 2]"}, lambda: torch.tensor([[1.0, 2.0]])),
    ]
    nodes = {
        "long": NODES["long"],
        "word": {"use": "toy/word"},
        "row": {"use": "toy/row"},
        "said": {"use": "toy/word", "when": "long.flag"},
        "loudly": {"use": "toy/shout", "in": {"x": "word"}},
        "list": {"use": "toy/all", "in": {"x": ["word", "said", "inputs.x"]}},
    }
    outputs = {"word": "word", "row": "row", "said": "said", "list": "list", "loudly": "loudly"}
    graph = graph_of(registry_of(*parts(ran), *constants), tmp_path, document(nodes, inputs={"x": "text"}, outputs=outputs))
    with mg.open(graph) as pipeline:
        for size in (count, 2, count):
            texts = ["abcd", "ab", "efghi"][:size]
            result = pipeline.run(x=texts)
            assert result["word"] == ["hm"] * size
            assert result["loudly"] == ["HM"] * size
            assert result["row"].tolist() == [[1.0, 2.0]] * size
            assert result["said"] == ["hm", ABSENT, "hm"][:size]
            assert result["list"] == [["hm", "hm", "abcd"], ["hm", "ab"], ["hm", "hm", "efghi"]][:size]


EITHER = {
    "loud": {"use": "toy/shout", "in": {"x": "inputs.x"}, "lazy": True},
    "other": {"use": "toy/shout", "in": {"x": "inputs.y"}, "lazy": True},
    "list": {"use": "toy/all", "in": {"x": ["loud", "other"]}},
    "both": {"use": "toy/either", "in": {"x": "loud", "y": "inputs.y"}},
}


def test_an_optional_input_that_is_left_out_is_absent_to_what_needs_it(tmp_path):
    """Its branch neither runs nor is loaded, a list goes on with what there is, and an optional port gets None."""
    ran = Counter()
    given = document(EITHER, inputs={"x": "optional[text]", "y": "optional[text]"}, outputs={"list": "list", "both": "both"})
    with mg.open(graph_of(registry_of(*parts(ran)), tmp_path, given)) as pipeline:
        one = pipeline.run(x="a")
        assert (one["list"], one["both"]) == (["A"], ("A", None))
        assert "other" not in pipeline._loader.loaded()
        assert pipeline.run(y="b")["list"] == ["B"]
        assert pipeline.run(y="b")["both"] is ABSENT
        both = pipeline.run(x=["a", "c"], y="b")
        assert both["list"] == [["A", "B"], ["C", "B"]]
        assert pipeline.run()["list"] is ABSENT
        mapped = list(pipeline.map([{"x": "a"}, {"y": "b"}, {"x": "c", "y": "d"}], outputs=["list"]))
    assert [result["list"] for result in mapped] == [["A"], ["B"], ["C", "D"]]


def test_an_input_that_is_left_out_is_absent_in_all_that_needs_it(tmp_path):
    """What needs it is not run, optional ports and lists of wires go on without it; given, it is there for every record."""
    nodes = {**{name: NODES[name] for name in ("louder", "both", "list", "vector")}, "loud": {"use": "toy/shout", "in": {"x": "inputs.y"}}}
    inputs = {"x": "text", "y": "optional[text]"}
    ran = Counter()
    with mg.open(graph_of(registry_of(*parts(ran)), tmp_path, document(nodes, inputs=inputs, outputs=OUTPUTS))) as pipeline:
        without = pipeline.run(x=["ab", "c"])
        assert ran.calls == []
        assert without["louder"] == [ABSENT, ABSENT]
        assert without["both"] == [("ab", None), ("c", None)]
        assert without["list"] == [["ab"], ["c"]]
        given = pipeline.run(x=["ab", "c"], y=["d", "ef"])
        assert given["louder"] == ["D", "EF"]
        assert given["list"] == [["ab", "D"], ["c", "EF"]]


def test_what_follows_a_kept_result_of_a_branch_knows_who_is_absent(tmp_path):
    """The branch is taken from the cache in the second run, and the node behind it runs for the same records as in the first."""
    ran = Counter()
    kept = function("toy/kept", TEXT, {"out": "text"}, shout, cache=True)
    nodes = {
        **{name: NODES[name] for name in ("long", "vector")},
        "louder": {"use": "toy/kept", "in": {"x": "inputs.x"}, "when": "long.flag"},
    }
    graph = graph_of(registry_of(*parts(ran), kept), tmp_path, document(nodes, inputs={"x": "text"}, outputs={"vector": "vector"}))
    with mg.open(graph) as pipeline:
        first, second = (pipeline.run(x=["abcd", "ab"]) for _ in range(2))
        assert "louder" in second.cached
        for result in (first, second):
            assert result["vector"][0].tolist() == [4.0, 1.0]
            assert result["vector"][1] is ABSENT
