"""Pipelines: inputs, outputs, checks at the edge."""

from __future__ import annotations

import threading
import time

import pytest
import torch
import yaml

import modelgraft as mg
from support.running import TEXT, document, function, handing_on, opened, shout, shouting

# -- inputs and outputs -------------------------------------------------------------------------------------------------


def test_one_record_gives_values_and_a_batch_gives_lists(tmp_path):
    """A single value is repeated against a batch, a default as well."""
    with shouting(tmp_path) as pipeline:
        assert dict(pipeline.run(x="a")) == {"both": ("A", "-"), "loud": "A"}
        assert dict(pipeline.run(x=["a", "b"], y="!")) == {"both": [("A", "!"), ("B", "!")], "loud": ["A", "B"]}
        assert dict(pipeline.run(x=["a"])) == {"both": [("A", "-")], "loud": ["A"]}


def test_an_output_of_a_graph_within_is_asked_for_by_its_outer_name(tmp_path):
    """As it is wired, beside its inner name; what the graph around does not use is told from what is not there."""
    inner = document(
        {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "twice": {"use": "toy/shout", "in": {"x": "loud"}}},
        inputs=TEXT,
        outputs={"y": "loud", "z": "twice"},
    )
    (tmp_path / "inner.yaml").write_text(yaml.safe_dump(inner))
    parts = [function("toy/shout", TEXT, {"out": "text"}, shout), handing_on()]
    nodes = {"eye": {"use": "graph:inner.yaml", "in": {"x": "inputs.x"}}, "end": {"use": "toy/same", "in": {"x": "eye.y"}}}
    with opened(tmp_path, parts, nodes, outputs={"end": "end"}) as pipeline:
        assert dict(pipeline.run(x="a", outputs=["eye.y"])) == {"eye.y": "A"}
        assert dict(pipeline.run(x="a", outputs=["eye", "eye/loud.out"])) == {"eye": "A", "eye/loud.out": "A"}
        with pytest.raises(mg.InputError, match=r"^eye has no output 'z' that the graph uses; it has: y\."):
            pipeline.run(x="a", outputs=["eye.z"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"input 'x' is missing; wanted: text"),
        ({"x": "a", "why": "b"}, r"the graph has no input 'why'; it has: x \(text\), y \(text\)\."),
        ({"x": ["a", "b"], "y": ["c", "d", "e"]}, r"batches of different sizes: 'x' has 2, 'y' has 3; wanted: one size"),
        ({"x": 7}, r"input 'x': found 7, wanted text"),
    ],
)
def test_inputs_that_do_not_fit_are_named(tmp_path, inputs, message):
    """Missing, unknown, of different sizes, of another type."""
    with shouting(tmp_path) as pipeline, pytest.raises(mg.InputError, match=message):
        pipeline.run(**inputs)


def test_a_misspelt_input_names_the_nearest_one(tmp_path):
    """Did you mean."""
    nodes = {"a": {"use": "toy/same", "in": {"x": "inputs.picture"}}}
    pipeline = opened(tmp_path, [handing_on()], nodes, inputs={"picture": "object"}, outputs={"out": "a"})
    with pipeline, pytest.raises(mg.InputError, match=r"it has: picture \(object\)\. Did you mean 'picture'\?"):
        pipeline.run(pictrue=1)


def test_any_port_can_be_asked_for_and_nothing_else_runs(tmp_path):
    """`outputs=["loud.out"]` runs one node and needs only its inputs; an unknown output lists those there are."""
    with shouting(tmp_path) as pipeline:
        result = pipeline.run(outputs=["loud.out"], x="a")
        assert dict(result) == {"loud.out": "A"}
        assert list(result.timings) == ["loud"]
        with pytest.raises(mg.InputError, match=r"there is no output 'lout'; the outputs are: both, loud"):
            pipeline.run(outputs=["lout"], x="a")
        with pytest.raises(KeyError, match=r"there is no output 'laud'; there are: both, loud\. Did you mean 'loud'"):
            pipeline.run(x="a")["laud"]


def test_a_large_payload_is_handed_on_by_reference(tmp_path):
    """1 MB of a plugin's own kind goes through three nodes as the same object."""
    payload = bytearray(2**20)
    nodes = {"a": {"use": "toy/same", "in": {"x": "inputs.x"}}, "b": {"use": "toy/same", "in": {"x": "a"}}}
    with opened(tmp_path, [handing_on()], nodes, inputs={"x": "object"}, outputs={"out": "b"}) as pipeline:
        assert all(pipeline.run(x=payload)["out"] is payload for _ in range(3))


def test_a_list_port_gets_one_list_per_record(tmp_path):
    """Two wires into `list[text]` become, for each record, the list of both."""
    parts = [
        function("toy/shout", TEXT, {"out": "text"}, shout),
        function("toy/all", {"x": "list[text]"}, {"out": "text"}, lambda x: ["+".join(i) for i in x]),
    ]
    nodes = {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "all": {"use": "toy/all", "in": {"x": ["inputs.x", "loud"]}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "all"}) as pipeline:
        assert pipeline.run(x=["a", "b"])["out"] == ["a+A", "b+B"]


def test_a_closed_pipeline_says_so(tmp_path):
    """Running after close is an error, closing twice is none."""
    pipeline = shouting(tmp_path)
    pipeline.close()
    pipeline.close()
    with pytest.raises(mg.InputError, match="the pipeline is closed"):
        pipeline.run(x="a")


def test_runs_from_several_threads_take_turns(tmp_path):
    """Each gets the answer to its own question."""
    answers = {}
    with shouting(tmp_path) as pipeline:
        threads = [threading.Thread(target=lambda i=i: answers.update({i: pipeline.run(x=f"t{i}")["loud"]})) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {i: f"T{i}" for i in range(8)}


# -- what the code of a node gives --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "given", "message"),
    [
        ("text", ["a"], r"output 'out': found 1 record, wanted 2, the size of the batch"),
        ("text", "ab", r"output 'out': found 'ab', wanted text: a list with one record per entry of the batch"),
        ("text", ["a", 3], r"output 'out': record 1 is 3, wanted text"),
        ("list[text]", [["a"], "b"], r"output 'out': record 1 is 'b', wanted list\[text\]"),
        ("float[batch 3]", torch.zeros(2, 4), r"output 'out': found float32\[2 4\], wanted float\[batch 3\]: an axis is 4 long, not 3"),
        (
            "float[batch 3]",
            torch.zeros(5, 3),
            r"output 'out': found float32\[5 3\], wanted float\[batch 3\]: it holds 5 records, the batch 2",
        ),
        (
            "int64[batch 3]",
            torch.zeros(2, 3),
            r"output 'out': found float32\[2 3\], wanted int64\[batch 3\]: the dtype is float32, not int64",
        ),
        ("float[batch 3]", [[0.0] * 3] * 2, r"output 'out': found a list of 2, wanted float\[batch 3\]: a torch tensor"),
    ],
)
def test_what_a_node_gives_is_checked_against_its_declaration(tmp_path, declared, given, message):
    """One NodeError that names plugin, component, node and port, what was found and what was wanted."""
    part = function("toy/bad", TEXT, {"out": declared}, lambda x: given)
    with opened(tmp_path, [part], {"a": {"use": "toy/bad", "in": {"x": "inputs.x"}}}, outputs={"out": "a"}) as pipeline:
        with pytest.raises(mg.NodeError, match=r"plugin 'toy': toy/bad breaks its declaration in node 'a': " + message) as caught:
            pipeline.run(x=["p", "q"])
        assert (caught.value.node, caught.value.component) == ("a", "toy/bad")


def test_a_node_with_several_outputs_must_give_each_by_name(tmp_path):
    """A missing port and an unknown one are named with those that were declared."""
    part = function("toy/two", TEXT, {"left": "text", "right": "text"}, lambda x: {"left": x, "rihgt": x})
    pipeline = opened(tmp_path, [part], {"a": {"use": "toy/two", "in": {"x": "inputs.x"}}}, outputs={"out": "a.left"})
    with pipeline, pytest.raises(mg.NodeError, match="it gave the outputs left, rihgt, wanted left, right"):
        pipeline.run(x="p")


def test_slow_nodes_are_checked_in_every_run(tmp_path):
    """A node that takes long enough for the check to cost nothing is caught also in a later run."""
    good = [True]

    def slow(x):
        time.sleep(0.001)
        return x if good[0] else x[0]

    part = function("toy/slow", TEXT, {"out": "text"}, slow)
    with opened(tmp_path, [part], {"a": {"use": "toy/slow", "in": {"x": "inputs.x"}}}, outputs={"out": "a"}) as pipeline:
        for _ in range(3):
            pipeline.run(x="p")
        good[0] = False
        with pytest.raises(mg.NodeError, match="output 'out': found 'p', wanted text"):
            pipeline.run(x="p")


def test_straight_code_names_the_node_that_fails(tmp_path):
    """In the third run of trivial nodes nothing is caught in between, and still node, cause and partial outputs are there."""
    fail = [False]

    def brittle(x):
        if fail[0]:
            raise ValueError("too thin")
        return x

    parts = [function("toy/brittle", TEXT, {"out": "text"}, brittle), function("toy/shout", TEXT, {"out": "text"}, shout)]
    nodes = {"loud": {"use": "toy/shout", "in": {"x": "inputs.x"}}, "thin": {"use": "toy/brittle", "in": {"x": "loud"}}}
    with opened(tmp_path, parts, nodes, outputs={"out": "thin"}) as pipeline:
        for _ in range(2):
            pipeline.run(x="p")
        fail[0] = True
        with pytest.raises(mg.NodeError, match=r"^node 'thin' \(toy/brittle, plugin 'toy'\) failed: ValueError: too thin$") as caught:
            pipeline.run(x="p")
        assert caught.value.outputs == {"loud.out": ["P"]}
        assert isinstance(caught.value.__cause__, ValueError)
