"""What the cells of a bench share: found without loading anything, and equal to what each cell computes as a whole."""

from __future__ import annotations

import pytest
import torch

import modelgraft as mg
from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.hosts import opening_of
from modelgraft_plugins.benching.opened import Giver, Opened, open_graph
from modelgraft_plugins.benching.results import Cell
from modelgraft_plugins.benching.upstream import upstream_of

CHAIN = """
modelgraft: 1
params: {wide: 6}
inputs: {x: "float[batch tokens 8]"}
nodes:
  first:  {use: projector/linear, with: {out_features: 8}, in: {x: inputs.x}}
  second: {use: projector/linear, with: {out_features: 8}, in: {x: first}}
  third:  {use: projector/linear, with: {out_features: "${wide}"}, in: {x: second}}
outputs: {y: third.y, z: second.y}
"""
ROUTED = """
modelgraft: 1
params: {suffix: a}
inputs: {text: text}
nodes:
  kind:  {use: router/match, with: {text: hello}, in: {text: inputs.text}}
  loud:  {use: text/template, with: {template: "{text}!"}, in: {text: inputs.text}, when: kind.matches}
  plain: {use: text/template, with: {template: "{text}"}, in: {text: inputs.text}, when: kind.else}
  both:  {use: router/merge, in: {options: [loud, plain]}}
  last:  {use: text/template, with: {template: "{text}${suffix}"}, in: {text: both}}
outputs: {text: last}
"""
WIDE, NARROW = {"wide": 7}, {"wide": 5}
ALL_ON_ONNX = {"backend": "onnx", "outputs": ["y"]}


@pytest.fixture
def graph(tmp_path):
    """A function that writes a graph and gives a cell of it."""

    def cell(text=CHAIN, *, id="a", **facts):
        path = tmp_path / "graph.yaml"
        path.write_text(text, encoding="utf-8")
        planned = Cell(id=id, key=id, values={}, command="", state="unfinished", graph="graph")
        return WantedCell(id=id, key=id, values={}, graph=str(path), command="", planned=planned, init="random", **facts)

    return cell


PLACED = {"third": {"backend": "compile"}}
FOUND = [
    ("what a param changes is left", [{"settings": WIDE}, {"settings": NARROW}], ["first", "second"], ["second.y"], ""),
    ("another placement of the last", [{}, {"placement": PLACED}], ["first", "second"], ["second.y"], ""),
    ("an output that was asked for cuts a call", [{"settings": WIDE, "backend": "onnx"}, {"settings": NARROW, "backend": "onnx"}],
     ["first", "second"], ["second.y"], ""),
    ("a call is not torn", [{"settings": WIDE, **ALL_ON_ONNX}, {"settings": NARROW, **ALL_ON_ONNX}],
     [], [], "no node that is the same in every cell can be given to it"),
    ("another backend of all", [{"backend": "onnx"}, {"backend": "torch"}], [], [], "what is swept changes every node"),
    ("another seed of new weights", [{"seed": 1}, {"seed": 2}], [], [], "what is swept changes every node"),
    ("batches alone", [{"batch": 1}, {"batch": 8}], [], [], "what is swept changes no node, so that nothing would be left to measure"),
    ("one cell", [{}], [], [], "one cell shares with nobody"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "nodes", "ports", "why"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_what_no_swept_value_changes_is_shared(graph, facts, nodes, ports, why):
    """The whole first part that is alike in every cell, as long as each runs the rest as it would by itself."""
    found = upstream_of([graph(**one) for one in facts])
    assert (list(found.nodes), list(found.ports), found.why) == (nodes, ports, why)


def test_what_may_be_absent_is_computed_in_each_cell(graph):
    """A value that a record lacks cannot be given; why a node is not shared is told by its name."""
    found = upstream_of([graph(ROUTED, settings={"suffix": suffix}) for suffix in "ab"])
    assert (list(found.nodes), list(found.ports)) == (["kind"], ["kind.matches", "kind.else"])
    assert found.apart == dict.fromkeys(["loud", "plain", "both"], "it lies on a route: what it gives may be absent for a record")


def opened(cell, upstream):
    """What a host makes of a cell that shares: the pipeline of what is left, with what gives it the rest."""
    facts = {name: value for name, value in opening_of(cell).items() if name in ("graph", "params", "allow", "opening")}
    giver = Giver(open_graph(facts, wanted=upstream.ports), upstream.ports)
    rest = open_graph(facts, given=upstream.nodes, wanted=cell.outputs)
    return Opened(rest, list(rest.plan.wanted), giver=giver)


def ran(pipeline):
    return [part.name for step in pipeline.plan.steps for part in step.node.parts or (step.node,)]


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.filterwarnings("ignore")
def test_a_cell_gives_with_shared_values_what_it_gives_as_a_whole(graph, backend, count, untuned_cache):
    """To the last bit, and its own nodes alone run."""
    cells = [graph(settings=settings, backend=backend) for settings in (WIDE, NARROW)]
    upstream = upstream_of(cells)
    record = {"x": torch.linspace(-1, 1, count * 3 * 8).reshape(count, 3, 8)}
    for cell in cells:
        rest = opened(cell, upstream)
        assert (ran(rest.giver.pipeline), ran(rest.pipeline)) == (["first", "second"], ["third"])
        with mg.open(cell.graph, params=cell.params, **cell.opening) as whole, rest.pipeline, rest.giver.pipeline:
            wanted, found = whole.run(**record), rest.pipeline.run(**rest.inputs([0], [record]))
        assert found.outputs.keys() == wanted.outputs.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted.outputs)


def test_a_routed_rest_is_given_its_masks(graph):
    """Masks travel as well: each record takes its own way in the rest."""
    cells = [graph(ROUTED, settings={"suffix": suffix}) for suffix in "ab"]
    rest = opened(cells[1], upstream_of(cells))
    records = [{"text": text} for text in ("hello", "dog", "hello you")]
    with rest.pipeline, rest.giver.pipeline:
        assert rest.pipeline.run(**rest.inputs([0, 1, 2], records))["text"] == ["hello!b", "dogb", "hello you!b"]
