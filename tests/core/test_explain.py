"""`explain`: each value of a node with where it comes from and what it went over."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from modelgraft import Config, Dim, InputError, component, hookimpl
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.language.expand import load_graph
from modelgraft.tools.checked import checked
from modelgraft.tools.explain import Row, explain, nodes_of, split_target


@component("t/eye", kind="encoder", module="nowhere:Eye", inputs={"x": "text"}, outputs={"y": "float[batch width]"})
class Eye(Config):
    """See."""

    width: Dim = 5
    depth: int = 2


@component("t/head", kind="head", module="nowhere:Head", inputs={"x": "float[batch width]"}, outputs={"y": "float[batch width]"})
class Head(Config):
    """Answer."""

    width: Dim = None


def registry():
    @hookimpl
    def register_components(register):
        register(Eye)
        register(Head)

    module = ModuleType("toy")
    module.register_components = register_components
    return assemble({"toy": module})


BASE = """modelgraft: 1
inputs: {x: text}
nodes:
  eye: {use: t/eye, with: {width: 3}, in: {x: inputs.x}}
  head: {use: t/head, in: {x: eye}, frozen: true}
outputs: {y: head}
runtime: {device: cpu}
"""


def solved(folder, **params):
    (folder / "base.yaml").write_text(BASE)
    (folder / "a.yaml").write_text("modelgraft: 1\nextends: base.yaml\nnodes.eye.with.width: 7\n")
    return checked(load_graph(folder / "a.yaml", registry=registry(), params=params))


def rows(folder, node, **params):
    return {row.key: (row.value, row.origin, row.replaced) for row in explain(solved(folder, **params), node)}


def test_a_value_tells_its_line_and_everything_it_went_over(tmp_path):
    found = rows(tmp_path, "eye")
    assert found["with.width"] == (7, "a.yaml:3", ("base.yaml:4 3", "default 5"))
    assert found["with.depth"] == (2, "default", ())
    assert found["use"] == ("t/eye@1", "base.yaml:4", ())
    assert found["runtime.device"] == ("cpu", "base.yaml:7", ())


def test_what_the_user_sets_is_named(tmp_path):
    found = rows(tmp_path, "eye", **{"nodes.eye.with.width": "9"})
    assert found["with.width"] == (9, 'params["nodes.eye.with.width"]', ("a.yaml:3 7", "base.yaml:4 3", "default 5"))


def test_a_solved_dimension_and_ports_are_told(tmp_path):
    found = rows(tmp_path, "head")
    assert found["with.width"][0] == 7
    assert found["with.width"][1].startswith("solved (")
    assert found["in.x"] == ("float[batch 7]", "base.yaml:5, fed by eye.y", ())
    assert found["out.y"][:2] == ("float[batch 7]", "solved")
    assert found["frozen"] == (True, "base.yaml:5", ())


def test_a_key_can_be_given_whole_short_or_as_a_group(tmp_path):
    graph = solved(tmp_path)
    assert [row.key for row in explain(graph, "eye", "with.width")] == ["with.width"]
    assert [row.key for row in explain(graph, "eye.width")] == ["with.width"]
    assert [row.key for row in explain(graph, "eye.with")] == ["with.width", "with.depth"]
    assert split_target(graph, "eye.with.width") == ("eye", "with.width")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("eey", "the graph a has no node 'eey'; it has: eye, head. Did you mean 'eye'?"),
        (
            "eye.widht",
            "eye has no key 'widht'; it has: frozen, in.x, out.y, runtime.device, use, with.depth, with.width. Did you mean 'width'?",
        ),
    ],
)
def test_what_is_not_there_lists_what_there_is(tmp_path, target, sentence):
    with pytest.raises(InputError) as caught:
        explain(solved(tmp_path), target)
    assert str(caught.value) == sentence


def test_rows_are_json(tmp_path):
    text = json.dumps([row.as_json() for row in explain(solved(tmp_path), "eye.width")])
    assert json.loads(text) == [{"key": "with.width", "value": 7, "origin": "a.yaml:3", "replaced": ["base.yaml:4 3", "default 5"]}]


def test_lists_and_mappings_stay_what_they_are_in_json():
    row = Row("with.model", {"sizes": (2, 3), "dtype": int}, "a.yaml:3")
    assert row.as_json()["value"] == {"sizes": [2, 3], "dtype": "<class 'int'>"}


def test_the_nodes_are_listed_in_the_order_in_which_values_flow(tmp_path):
    """Whatever the order of their names; each with what it is, where its weights come from, and where it is written."""
    (tmp_path / "g.yaml").write_text(
        "modelgraft: 1\ninputs: {x: text}\nnodes:\n"
        "  z: {use: t/eye, in: {x: inputs.x}}\n"
        "  a: {use: t/head, in: {x: z}}\n"
        "  b: {use: t/head, share: a, in: {x: a}}\n"
        "outputs: {y: b}\n"
    )
    found = nodes_of(checked(load_graph(tmp_path / "g.yaml", registry=registry())))
    assert [(row.node, row.kind, row.use, row.source, row.line) for row in found] == [
        ("z", "encoder", "t/eye", "", 4), ("a", "head", "t/head", "", 5), ("b", "head", "t/head", "shares a", 6),
    ]  # fmt: skip
    assert found[0].as_json() == {
        "node": "z", "kind": "encoder", "use": "t/eye", "source": None, "file": str(tmp_path / "g.yaml"), "line": 4
    }  # fmt: skip
