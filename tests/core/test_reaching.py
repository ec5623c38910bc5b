"""What lies inside a graph that stands as a node has one name: in wires, outputs, routes and `share`, and for who asks for a port."""

from __future__ import annotations

import pytest

import modelgraft as mg
from support.running import TEXT, function, registry_of

INNER = """# Two steps.
modelgraft: 1
inputs: {x: text}
nodes:
  first:  {use: toy/loud, in: {x: inputs.x}}
  second: {use: toy/loud, in: {x: first}}
  spare:  {use: toy/loud, in: {x: inputs.x}}
outputs: {y: second, z: spare}
"""
MIDDLE = """# A graph in a graph.
modelgraft: 1
inputs: {x: text}
nodes:
  deep: {use: "graph:./inner.yaml", in: {x: inputs.x}}
  last: {use: toy/loud, in: {x: deep.y}}
outputs: {y: last, z: deep.z}
"""


@pytest.fixture
def graph(tmp_path):
    """What checks a graph whose node `eye` is a graph of another file."""
    loud = function("toy/loud", TEXT, {"out": "text"}, lambda x: [one + "!" for one in x])
    registry = registry_of(loud)
    (tmp_path / "inner.yaml").write_text(INNER)
    (tmp_path / "middle.yaml").write_text(MIDDLE)

    def check(nodes, outputs, inner="inner"):
        text = f"modelgraft: 1\ninputs: {{x: text}}\nnodes:\n  eye: {{use: 'graph:./{inner}.yaml', in: {{x: inputs.x}}}}\n{nodes}\n"
        (tmp_path / "outer.yaml").write_text(text + f"outputs: {outputs}\n")
        return mg.check(mg.load(tmp_path / "outer.yaml", registry=registry))

    return check


def ran(solved, *wanted):
    with mg.open(solved) as pipeline:
        return dict(pipeline.run(x="a", outputs=wanted or None).outputs)


@pytest.mark.parametrize("ref", ["eye/first.out", "eye/first"])
def test_a_port_inside_is_wired_and_asked_for_by_the_same_name(graph, ref):
    """With its port, or without where it has one; what nothing else needs of the inner graph is left out."""
    solved = graph(f"  end: {{use: toy/loud, in: {{x: {ref}}}}}", "{out: end}")
    assert set(solved.nodes) == {"eye/first", "end"}
    assert ran(solved) == {"out": "a!!"}
    assert ran(solved, ref, "end") == {ref: "a!", "end": "a!!"}


def test_the_output_of_a_graph_and_the_port_behind_it_are_both_there(graph):
    """`eye.y` is what `eye/second` gives, wired as well as asked for."""
    solved = graph("  end: {use: toy/loud, in: {x: eye.y}}", "{out: end, direct: eye/second.out}")
    assert ran(solved) == {"out": "a!!!", "direct": "a!!"}
    assert ran(solved, "eye.y", "eye/second.out", "eye/second") == {"eye.y": "a!!", "eye/second.out": "a!!", "eye/second": "a!!"}


@pytest.mark.parametrize(
    ("ref", "value"), [("eye/deep/first", "a!"), ("eye/deep.y", "a!!"), ("eye/last.out", "a!!!"), ("eye/deep.z", "a!")]
)
def test_graphs_inside_graphs_are_reached_alike(graph, ref, value):
    """A node of the innermost graph, or an output of it."""
    assert ran(graph("", f"{{out: {ref}, y: eye.y}}", inner="middle"))["out"] == value
    assert ran(graph("", f"{{out: {ref}}}", inner="middle"))["out"] == value


def test_what_is_not_there_is_told_with_what_is(graph):
    """As for any other node."""
    with pytest.raises(mg.GraphError, match=r"there is no node 'eye/frist'; there are: .*eye/first.* Did you mean 'eye/first'\?"):
        graph("", "{out: eye/frist, y: eye.y}")
    with pytest.raises(mg.GraphError, match=r"eye/first has no output 'y'; it has: out"):
        graph("", "{out: eye/first.y}")
    with pytest.raises(mg.GraphError, match=r"wanted a port: node\.port, node, or inputs\.name"):
        graph("", "{out: eye//first}")
