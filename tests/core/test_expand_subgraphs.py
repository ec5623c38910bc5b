"""Graphs as nodes: names, wires, params, routes, and what may not be."""

from __future__ import annotations

import pytest

from modelgraft import GraphError
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.language.expand import load_graph

REGISTRY = assemble({})
EYE = """modelgraft: 1
params: {size: 4, where: org/m}
inputs: {image: image, hint: {type: text, default: look}, extra: "optional[text]"}
nodes:
  pixels: {use: t/pixels, with: {size: "${size}"}, in: {image: inputs.image}}
  enc: {use: t/enc, from: "${where}", in: {pixels: pixels, hint: inputs.hint, extra: inputs.extra}}
  twin: {use: t/enc, in: {pixels: pixels}, share: enc}
outputs: {tokens: enc.tokens, pooled: twin.pooled, same: inputs.image}
runtime: {device: cpu, threads: 2}
"""


def load(folder, text, *, eye=EYE, **options):
    (folder / "eye.yaml").write_text(eye)
    (folder / "a.yaml").write_text("modelgraft: 1\ninputs: {image: image, h: text, m: 'mask[batch]'}\n" + text)
    return load_graph(folder / "a.yaml", registry=REGISTRY, **options)


def problems(folder, text, **options):
    with pytest.raises(GraphError) as caught:
        load(folder, text, **options)
    return caught.value.problems


def wires(graph):
    return {name: {port: [str(ref) for ref in wire.refs] for port, wire in node.wires.items()} for name, node in graph.nodes.items()}


ONE = "nodes:\n  eye: {use: 'graph:./eye.yaml', in: {image: inputs.image}%s}\n"
ONE += "  use: {use: t/use, in: {t: eye.tokens, p: eye.pooled}}\noutputs: {y: use}\n"


def test_the_inner_nodes_take_the_place_of_the_node(tmp_path):
    graph = load(tmp_path, ONE % "")
    assert wires(graph) == {
        "use": {"t": ["eye/enc.tokens"], "p": ["eye/twin.pooled"]},
        "eye/pixels": {"image": ["inputs.image"]},
        "eye/enc": {"pixels": ["eye/pixels"], "hint": ["inputs.eye/hint"]},
        "eye/twin": {"pixels": ["eye/pixels"]},
    }
    assert graph.nodes["eye/twin"].share.value == "eye/enc"
    assert graph.nodes["eye/enc"].place.short == "eye.yaml:6"


def test_an_unwired_input_with_a_default_becomes_an_input_of_the_outer_graph(tmp_path):
    lifted = load(tmp_path, ONE % "").inputs["eye/hint"]
    assert (lifted.default, lifted.has_default, str(lifted.port), lifted.name) == ("look", True, "text", "eye/hint")
    wired = load(tmp_path, (ONE % "").replace("image: inputs.image", "image: inputs.image, hint: inputs.h, extra: inputs.h"))
    assert "eye/hint" not in wired.inputs
    assert wires(wired)["eye/enc"] == {"pixels": ["eye/pixels"], "hint": ["inputs.h"], "extra": ["inputs.h"]}


def test_only_what_the_used_outputs_need_is_taken_over(tmp_path):
    text = "nodes:\n  eye: {use: 'graph:eye.yaml', in: {image: inputs.image}}\noutputs: {y: eye.pooled}\n"
    assert set(load(tmp_path, text).nodes) == {"eye/pixels", "eye/twin", "eye/enc"}  # twin shares the weights of enc
    text = text.replace("eye.pooled", "eye.same")
    graph = load(tmp_path, text)
    assert (dict(graph.nodes), str(graph.outputs["y"]), list(graph.inputs)) == ({}, "inputs.image", ["image", "h", "m"])


def test_a_subgraph_that_nobody_needs_is_told(tmp_path):
    text = "nodes:\n  eye: {use: 'graph:eye.yaml', in: {image: inputs.image}}\n  a: {use: t/a}\noutputs: {y: a}\n"
    (found,) = load(tmp_path, text).left_over
    assert (found.code, found.found) == ("unused-node", "no output needs eye")
    assert "eye/enc" in load(tmp_path, text, allow=("unused",)).nodes


def test_with_sets_the_params_and_keeps_the_folder_of_who_set_them(tmp_path):
    graph = load(tmp_path, ONE % ", with: {size: 9, where: ./w}")
    assert graph.nodes["eye/pixels"].config["size"].value == 9
    assert (graph.nodes["eye/enc"].source.value, graph.nodes["eye/enc"].folder) == ("./w", tmp_path.resolve())


def test_what_the_user_sets_stays_the_users_inside(tmp_path):
    text = "params: {ckpt: a}\n" + ONE % ", with: {where: '${ckpt}'}"
    source = load(tmp_path, text, params={"ckpt": "/w"}).nodes["eye/enc"].source
    assert (source.value, source.origin.is_users) == ("/w", True)
    assert not load(tmp_path, text).nodes["eye/enc"].source.origin.is_users
    assert load(tmp_path, ONE % "", params={"nodes.eye.with.size": "7"}).nodes["eye/pixels"].config["size"].value == 7


def test_frozen_lazy_when_and_runtime_are_inherited(tmp_path):
    graph = load(tmp_path, "runtime: {threads: 1}\n" + ONE % ", frozen: true, lazy: true, when: inputs.m, runtime: {dtype: float16}")
    inner = [node for name, node in graph.nodes.items() if name.startswith("eye/")]
    assert {(node.frozen, node.lazy, str(node.when)) for node in inner} == {(True, True, "inputs.m")}
    assert {key: value.value for key, value in inner[0].runtime.items()} == {"device": "cpu", "dtype": "float16"}
    single = load(tmp_path, "runtime: {backend: {eye: onnx}}\n" + ONE % "")
    assert {name: "backend" in node.runtime for name, node in single.nodes.items()} == {
        "use": False, "eye/pixels": True, "eye/enc": True, "eye/twin": True,
    }  # fmt: skip


def test_a_list_of_wires_passes_through(tmp_path):
    inner = "modelgraft: 1\ninputs: {xs: 'list[text]'}\n"
    inner += "nodes: {a: {use: t/a, in: {x: inputs.xs, l: [inputs.xs, b]}}, b: {use: t/b}}\noutputs: {y: a}\n"
    text = "nodes: {s: {use: 'graph:eye.yaml', in: {xs: [inputs.h, inputs.image]}}}\noutputs: {y: s}\n"
    graph = load(tmp_path, text, eye=inner)
    wire = graph.nodes["s/a"].wires
    assert ([str(r) for r in wire["x"].refs], wire["x"].is_list) == (["inputs.h", "inputs.image"], True)
    assert [str(r) for r in wire["l"].refs] == ["inputs.h", "inputs.image", "s/b"]


def test_the_used_outputs_of_a_graph_keep_their_outer_names(tmp_path):
    """Through graphs within graphs, to what gives them; an output that only hands on an input leads to that."""
    (tmp_path / "both.yaml").write_text(
        "modelgraft: 1\ninputs: {image: image}\nnodes: {eye: {use: 'graph:eye.yaml', in: {image: inputs.image}}}\n"
        "outputs: {seen: eye.tokens, given: eye.same}\n"
    )
    text = "nodes: {two: {use: 'graph:both.yaml', in: {image: inputs.image}}}\noutputs: {a: two.seen, b: two.given}\n"
    assert {name: str(ref) for name, ref in load(tmp_path, text).ports.items()} == {
        "two.seen": "two/eye/enc.tokens",
        "two.given": "inputs.image",
        "two/eye.tokens": "two/eye/enc.tokens",
        "two/eye.same": "inputs.image",
    }
    less = load(tmp_path, text.replace(", b: two.given", ""))
    assert set(less.ports) == {"two.seen", "two/eye.tokens", "two/eye.same"}  # what only hands on costs nothing to keep


def test_graphs_feed_graphs_and_nest(tmp_path):
    (tmp_path / "two.yaml").write_text(
        "modelgraft: 1\ninputs: {image: image}\n"
        "nodes: {eye: {use: 'graph:eye.yaml', in: {image: inputs.image}}}\noutputs: {t: eye.tokens, s: eye.same}\n"
    )
    text = (
        "nodes:\n  a: {use: 'graph:two.yaml', in: {image: inputs.image}}\n  b: {use: 'graph:two.yaml', in: {image: a.s}}\n"
        "  c: {use: t/c, in: {x: [a.t, b.t]}}\noutputs: {y: c}\n"
    )
    graph = load(tmp_path, text)
    assert [str(ref) for ref in graph.nodes["c"].wires["x"].refs] == ["a/eye/enc.tokens", "b/eye/enc.tokens"]
    assert wires(graph)["b/eye/pixels"] == {"image": ["inputs.image"]}
    assert sorted(graph.inputs) == ["a/eye/hint", "b/eye/hint", "h", "image", "m"]


def test_a_shipped_graph_is_placed_by_name(tmp_path):
    text = "nodes:\n  c: {use: 'graph:clip', with: {checkpoint: ./w}, in: {image: inputs.image, labels: inputs.h}}\noutputs: {y: c.label}\n"
    graph = load(tmp_path, text)
    assert graph.nodes["c/vision"].source.value == "./w#vision_model"
    assert graph.nodes["c/vision"].folder == tmp_path.resolve()
    assert str(graph.outputs["y"]) == "c/answer.label"


@pytest.mark.parametrize(
    ("node", "code", "sentence", "hint"),
    [
        (", from: x", "unknown-key", "eye places a whole graph, and `from` belongs to a single component", "set it on the node inside"),
        (", frm: x", "unknown-key", "the node eye has no key 'frm'; the keys are: frozen, in, lazy, runtime, use, when, with", ""),
        (", with: {sise: 3}", "unknown-param", "the graph eye has no param 'sise'; its params: size, where", "Did you mean 'size'?"),
        (", with: {size: big}", "wrong-type", "the param 'size' is the text 'big'; wanted int", ""),
    ],
)
def test_a_mistake_at_a_subgraph_is_told_where_it_is_written(tmp_path, node, code, sentence, hint):
    (found,) = problems(tmp_path, ONE % node)
    assert (found.code, found.found) == (code, sentence)
    assert found.hint.startswith(hint)
    assert found.place.short == "a.yaml:4"


def test_unknown_ports_of_a_subgraph_name_the_nearest(tmp_path):
    text = "nodes:\n  eye: {use: 'graph:eye.yaml', in: {imag: inputs.image}}\n"
    text += "  a: {use: t/a, in: {x: eye.tokns, z: eye}}\noutputs: {y: a, w: eye.tokens}\n"
    found = problems(tmp_path, text)
    assert [(p.code, p.found, p.hint) for p in found] == [
        ("missing-input", "nothing feeds the input 'image' of eye, of type image", "add image: to eye.in"),
        ("unknown-port", "eye has no input 'imag'; it has: extra, hint, image", "Did you mean 'image'?"),
        ("unknown-port", "eye has no output 'tokns'; it has: pooled, same, tokens", "Did you mean 'tokens'?"),
        ("unknown-port", "eye has several outputs; it has: pooled, same, tokens", "write e.g. eye.pooled"),
    ]


def test_a_graph_that_contains_itself_is_printed(tmp_path):
    (found,) = problems(tmp_path, ONE % "", eye="modelgraft: 1\nnodes: {a: {use: 'graph:a.yaml'}}\noutputs: {y: a}\n")
    assert (found.code, found.found) == ("recursive-graph", "a graph contains itself: a.yaml -> eye.yaml -> a.yaml")
    assert found.place.short == "eye.yaml:2"


def test_subgraphs_that_only_hand_on_each_other_are_a_cycle(tmp_path):
    eye = "modelgraft: 1\ninputs: {x: text}\nnodes: {n: {use: t/n, in: {x: inputs.x}}}\noutputs: {y: inputs.x, z: n}\n"
    text = "nodes:\n  a: {use: 'graph:eye.yaml', in: {x: b.y}}\n  b: {use: 'graph:eye.yaml', in: {x: a.y}}\noutputs: {y: a.z, w: a.y}\n"
    found = problems(tmp_path, text, eye=eye)
    assert {(p.code, p.found) for p in found} >= {("cycle", "these only hand on each other's values: a.y -> b.y -> a.y")}


def test_two_routes_for_one_node_are_refused(tmp_path):
    eye = "modelgraft: 1\ninputs: {m: 'mask[batch]'}\nnodes: {n: {use: t/n, when: inputs.m}}\noutputs: {y: n}\n"
    text = "nodes: {s: {use: 'graph:eye.yaml', in: {m: inputs.m}%s}}\noutputs: {y: s}\n"
    assert str(load(tmp_path, text % "", eye=eye).nodes["s/n"].when) == "inputs.m"
    (found,) = problems(tmp_path, text % ", when: inputs.m", eye=eye)
    assert (found.code, found.found) == ("two-routes", "s goes by `when`, and so does its node n (eye.yaml:3); a node follows one route")


def test_a_subgraph_outside_the_folder_is_refused(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "eye.yaml").write_text(EYE)
    (inside / "a.yaml").write_text("modelgraft: 1\nnodes: {s: {use: 'graph:../eye.yaml'}}\noutputs: {y: s.tokens}\n")
    with pytest.raises(
        GraphError, match=r"a\.yaml:2  outside-folder  s\.use names \.\./eye\.yaml, which lies outside the folder of a\.yaml"
    ):
        load_graph(inside / "a.yaml", registry=REGISTRY)


@pytest.mark.slow
def test_graphs_that_place_each_other_twice_are_bounded(tmp_path):
    """Thirty levels of two: a billion nodes, refused long before they are made."""
    (tmp_path / "g0.yaml").write_text("modelgraft: 1\nnodes: {n: {use: t/n}}\noutputs: {y: n}\n")
    for level in range(1, 30):
        two = f"{{a: {{use: 'graph:g{level - 1}.yaml'}}, b: {{use: 'graph:g{level - 1}.yaml'}}, c: {{use: t/c, in: {{x: [a, b]}}}}}}"
        (tmp_path / f"g{level}.yaml").write_text(f"modelgraft: 1\nnodes: {two}\noutputs: {{y: c}}\n")
    with pytest.raises(GraphError, match="too-large  the graph grows beyond 100,000 nodes"):
        load_graph(tmp_path / "g29.yaml", registry=REGISTRY)


def test_a_long_row_of_files_is_refused(tmp_path):
    for level in range(50):
        (tmp_path / f"g{level}.yaml").write_text(f"modelgraft: 1\nnodes: {{a: {{use: 'graph:g{level + 1}.yaml'}}}}\noutputs: {{y: a}}\n")
    with pytest.raises(GraphError, match=r"too-deep  more than 32 files in a row: g0\.yaml \.\.\. g32\.yaml"):
        load_graph(tmp_path / "g0.yaml", registry=REGISTRY)
