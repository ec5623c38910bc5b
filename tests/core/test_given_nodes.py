"""A graph with the results of some nodes given: the rest computes what it computes in the whole graph."""

from __future__ import annotations

import pytest
import torch

import modelgraft as mg
from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.ports import port
from modelgraft.records.digests import digest
from modelgraft.records.shipped import SHIPPED
from modelgraft.testing import example
from modelgraft.tools.given_nodes import with_given
from support.running import document, fresh, function, graph_of, registry_of

TYPES = [*SHIPPED, "list[text]", "list[image]", "float[batch tokens 3]", "int[batch tokens]", "mask[batch]", "bool[batch 2]"]


def same(x):
    return x


def as_digest(x):
    return [digest(one) for one in x]


def chain(folder, kind):
    """A graph that hands a value on, and gives a digest of each record of it."""
    first = function("toy/first", {"x": kind}, {"out": kind}, fresh(same))
    last = function("toy/last", {"x": kind}, {"out": "text"}, fresh(as_digest))
    nodes = {"first": {"use": "toy/first", "in": {"x": "inputs.x"}}, "last": {"use": "toy/last", "in": {"x": "first"}}}
    made = document(nodes, inputs={"x": kind}, outputs={"out": "last"})
    return graph_of(registry_of(first, last), folder, made)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("is_batch", [False, True])
def test_values_of_every_type_of_port_travel(tmp_path, kind, is_batch):
    """What comes out of one run goes into the next as it is, for one record and for a batch."""
    solved = chain(tmp_path, kind)
    found = example(port(kind), {"tokens": 5})
    given = found if is_batch else found[:1] if isinstance(found, torch.Tensor) else found[0]
    with mg.open(solved) as whole:
        wanted = whole.run(x=given)["out"]
        value = whole.run(x=given, outputs=["first.out"])["first.out"]
    with mg.open(with_given(solved, ["first"])) as rest:
        assert rest.run(**{"first.out": value})["out"] == wanted
        assert [step.node.name for step in rest.plan.steps] == ["last"]


def test_an_output_of_what_is_given_is_given_back(tmp_path):
    """Outputs are what they are in the whole graph, whoever computes them; any port may be wanted, also of what is given."""
    solved = chain(tmp_path, "text")
    rest = with_given(solved, ["first"], wanted=["out", "first.out", "inputs.x"])
    with mg.open(rest) as pipeline:
        found = pipeline.run(**{"x": "a", "first.out": "b"})
    assert (found["first.out"], found["inputs.x"], found["out"]) == ("b", "a", as_digest(["b"])[0])


def test_the_graph_itself_stays_as_it_is(tmp_path):
    """The rest is another graph, with the inputs of both, and without what nobody reads any more."""
    solved = chain(tmp_path, "text")
    rest = with_given(solved, ["first"])
    assert list(solved.inputs) == ["x"]
    assert {name: str(one.port) for name, one in rest.inputs.items()} == {"x": "text", "first.out": "text"}
    assert str(rest.nodes["last"].wired["x"][0]) == "inputs.first.out"
    with pytest.raises(InputError, match="there is no output 'nowhere'"):
        with_given(solved, ["first"], wanted=["nowhere"])
