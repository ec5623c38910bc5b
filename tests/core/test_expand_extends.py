"""`extends`: what goes over what, what is removed, and which files may be named."""

from __future__ import annotations

import pytest

from modelgraft import GraphError
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.language.expand import load_graph

REGISTRY = assemble({})
BASE = """# The base.
modelgraft: 1
name: base
params:
  checkpoint: org/m
  n: {type: int, default: 3, choices: [3, 4], doc: How many.}
inputs: {x: text, z: text}
nodes:
  eye:
    use: t/eye
    from: "${checkpoint}#eye"
    with: {size: 2, n: "${n}"}
    in: {x: inputs.x, z: inputs.z}
  bridge: {use: t/bridge, in: {x: eye}}
outputs: {y: bridge, e: eye}
runtime: {device: cpu, threads: 2}
"""


def load(folder, text, *, base=BASE, **options):
    (folder / "base.yaml").write_text(base)
    (folder / "a.yaml").write_text("# Mine.\nmodelgraft: 1\nextends: base.yaml\n" + text)
    return load_graph(folder / "a.yaml", registry=REGISTRY, **options)


def problems(folder, text, **options):
    with pytest.raises(GraphError) as caught:
        load(folder, text, **options)
    return caught.value.problems


def values(entries):
    return {key: value.value for key, value in entries.items()}


def test_without_changes_the_base_is_taken_under_the_files_own_name(tmp_path):
    graph = load(tmp_path, "")
    assert (graph.name, graph.doc, list(graph.nodes), list(graph.outputs)) == ("a", "Mine.", ["eye", "bridge"], ["y", "e"])
    assert (graph.nodes["eye"].place.short, graph.nodes["eye"].config["size"].origin.layer) == ("base.yaml:9", "base")


def test_a_param_that_nothing_uses_any_more_needs_no_value(tmp_path):
    """One that is used is asked for once, wherever it stands."""
    base = BASE.replace("checkpoint: org/m", "checkpoint: {doc: which}").replace("outputs: {y: bridge, e: eye}", "outputs: {y: bridge}")
    text = 'nodes: {eye: {from: "./a"}, bridge: {from: "./b"}}\n'
    graph = load(tmp_path, text, base=base)
    assert (graph.params["checkpoint"].used, graph.left_over) == (False, ())
    (found,) = problems(tmp_path, text.replace("./a", "${checkpoint}#eye").replace("./b", "${checkpoint}#bridge"), base=base)
    assert (found.code, found.found) == ("missing-param", "the param 'checkpoint' has no default and is not set")


def test_nested_changes_go_over_the_base_key_by_key(tmp_path):
    text = "nodes:\n  eye: {with: {size: 5, more: 1}, in: {w: inputs.x}, frozen: true}\n"
    text += "  new: {use: t/new, in: {x: bridge}}\noutputs: {n: new}\n"
    graph = load(tmp_path, text + "runtime: {threads: 4}\n")
    eye = graph.nodes["eye"]
    assert values(eye.config) == {"size": 5, "n": 3, "more": 1}
    assert (sorted(eye.wires), eye.frozen, eye.use.value, list(graph.outputs)) == (["w", "x", "z"], True, "t/eye", ["y", "e", "n"])
    assert values(graph.runtime) == {"device": "cpu", "threads": 4}
    assert str(eye.config["size"].origin) == "a.yaml:5 (instead of 2, base.yaml:12)"


def test_dotted_keys_say_the_same_as_nested_ones(tmp_path):
    dotted = load(tmp_path, "nodes.eye.from: ./w\nnodes.eye.with.size: 5\nruntime.threads: 7\nparams.n: 4\n")
    nested = load(tmp_path, "nodes: {eye: {from: ./w, with: {size: 5}}}\nruntime: {threads: 7}\nparams: {n: 4}\n", params={})
    for graph in (dotted, nested):
        eye = graph.nodes["eye"]
        assert (eye.source.value, values(eye.config), values(graph.runtime)["threads"]) == ("./w", {"size": 5, "n": 4}, 7)
        assert graph.params["n"].doc == "How many."


def test_null_removes_nodes_outputs_inputs_wires_and_keys(tmp_path):
    text = "nodes: {bridge: ~, eye: {in: {z: ~}, from: ~}}\noutputs: {y: ~}\ninputs: {z: ~}\nruntime: {device: ~}\n"
    graph = load(tmp_path, text, allow=("unused",))
    assert (list(graph.nodes), list(graph.outputs), list(graph.inputs), values(graph.runtime)) == (["eye"], ["e"], ["x"], {"threads": 2})
    assert (sorted(graph.nodes["eye"].wires), graph.nodes["eye"].source) == (["x"], None)
    assert "bridge" not in load(tmp_path, "nodes.bridge: ~\noutputs.y: ~\n").nodes


def test_null_within_with_is_a_value(tmp_path):
    assert values(load(tmp_path, "nodes.eye.with.size: ~\n").nodes["eye"].config) == {"size": None, "n": 3}


def test_removing_what_is_not_there_names_the_nearest(tmp_path):
    found = problems(tmp_path, "nodes: {brige: ~, eye: {in: {q: ~}, share: ~}}\noutputs: {yy: ~}\n")
    assert [(p.code, p.found) for p in found] == [
        ("unknown-override", "null removes the node 'brige', but the graph below has none"),
        ("unknown-override", "null removes the entry 'q' of eye.in, but the graph below has none"),
        ("unknown-override", "null removes the key 'share' of eye, but the graph below has none"),
        ("unknown-override", "null removes the output 'yy', but the graph below has none"),
    ]
    assert found[0].hint == "Did you mean 'bridge'?"


def test_a_dotted_key_for_an_unknown_node_lists_the_nodes(tmp_path):
    (found,) = problems(tmp_path, "nodes.brigde.from: x\n")
    assert (found.code, found.hint) == ("unknown-node", "there are: bridge, eye. Did you mean 'bridge'?")


def test_params_of_the_base_keep_their_type_and_choices(tmp_path):
    (found,) = problems(tmp_path, "params: {n: 5}\n")
    assert (found.code, found.found) == ("wrong-value", "the param 'n' is the number 5; allowed: 3, 4")


def test_a_param_of_the_base_may_lose_its_use_but_a_new_one_may_not(tmp_path):
    """What named the base's param may have been replaced; a param that the file itself declares must be used."""
    assert not load(tmp_path, "nodes.eye.from: ./w\n").params["checkpoint"].used
    assert not load(tmp_path, "", params={"nodes.eye.from": "/w"}).params["checkpoint"].used
    (found,) = load(tmp_path, "params: {chekpoint: ./w}\n").left_over
    assert (found.code, found.found) == ("unused-param", "nothing uses the param 'chekpoint'")


def test_precedence_is_base_then_file_then_set(tmp_path):
    text = "nodes.eye.with.size: 5\n"
    eye = load(tmp_path, text, params={"nodes.eye.with.size": "9"}).nodes["eye"]
    assert (eye.config["size"].value, eye.config["size"].origin.layer) == (9, "set")
    went_over = [(one.value, one.origin.place.short) for one in eye.config["size"].origin.replaced]
    assert went_over == [(5, "a.yaml:4"), (2, "base.yaml:12")]


def test_bases_of_bases_are_followed(tmp_path):
    (tmp_path / "root.yaml").write_text(BASE)
    graph = load(
        tmp_path, "nodes.eye.with.size: 7\n", base="modelgraft: 1\nextends: root.yaml\nnodes.eye.with.size: 5\nnodes.eye.with.k: 1\n"
    )
    assert values(graph.nodes["eye"].config) == {"size": 7, "n": 3, "k": 1}


def test_a_cycle_of_extends_is_printed(tmp_path):
    (found,) = problems(tmp_path, "", base="modelgraft: 1\nextends: a.yaml\n")
    assert (found.code, found.found) == ("extends-cycle", "a graph extends itself: a.yaml -> base.yaml -> a.yaml")
    assert found.place.short == "base.yaml:2"


def test_a_problem_in_the_base_is_told_with_the_bases_line(tmp_path):
    (found,) = problems(tmp_path, "", base="modelgraft: 1\nnodes: {a: 1, a: 2}\n")
    assert (found.code, found.place.short) == ("duplicate-key", "base.yaml:2")


def test_a_shipped_graph_can_be_extended_by_name(tmp_path):
    (tmp_path / "a.yaml").write_text("modelgraft: 1\nextends: clip\nnodes.similarity.with: {scale: false}\n")
    graph = load_graph(tmp_path / "a.yaml", registry=REGISTRY)
    assert graph.nodes["similarity"].config["scale"].value is False
    assert graph.nodes["vision"].folder is None


@pytest.mark.parametrize("target", ["../secret.yaml", "/etc/x.yaml", "link.yaml", "deep/../../secret.yaml"])
def test_a_file_outside_the_folder_is_refused(tmp_path, target):
    (tmp_path / "secret.yaml").write_text(BASE)
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (inside / "a.yaml").write_text(f"modelgraft: 1\nextends: {target}\n")
    with pytest.raises(GraphError) as caught:
        load_graph(inside / "a.yaml", registry=REGISTRY)
    (found,) = caught.value.problems
    assert (found.code, found.found) == ("outside-folder", f"extends names {target}, which lies outside the folder of a.yaml")
    assert found.place.short == "a.yaml:2"


@pytest.mark.parametrize(
    ("target", "code", "sentence"),
    [
        ("clipp", "no-such-graph", "extends: there is no shipped graph 'clipp'"),
        ("none.yaml", "no-such-graph", "none.yaml cannot be read: No such file or directory"),
        ("[a]", "wrong-type", "extends is a list; wanted a file or the name of a shipped graph"),
        ('"x\\0.yaml"', "outside-folder", "extends names x\0.yaml"),
    ],
)
def test_an_extends_that_leads_nowhere_is_told(tmp_path, target, code, sentence):
    (tmp_path / "a.yaml").write_text(f"modelgraft: 1\nextends: {target}\n")
    with pytest.raises(GraphError) as caught:
        load_graph(tmp_path / "a.yaml", registry=REGISTRY)
    (found,) = caught.value.problems
    assert found.code == code
    assert sentence in found.found
    assert found.place.short == "a.yaml:2"


def test_a_source_is_looked_for_beside_the_file_that_names_it(tmp_path):
    """A base in a folder below keeps its own folder; a param set over it brings the folder of its file."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "base.yaml").write_text(BASE)
    (tmp_path / "a.yaml").write_text("modelgraft: 1\nextends: below/base.yaml\nnodes.bridge.from: ./w\n")
    graph = load_graph(tmp_path / "a.yaml", registry=REGISTRY)
    assert graph.nodes["eye"].folder == (tmp_path / "below").resolve()
    assert graph.nodes["bridge"].folder == tmp_path.resolve()
    (tmp_path / "a.yaml").write_text("modelgraft: 1\nextends: below/base.yaml\nparams: {checkpoint: ./w}\n")
    assert load_graph(tmp_path / "a.yaml", registry=REGISTRY).nodes["eye"].folder == tmp_path.resolve()


def test_a_param_of_a_param_leads_from_the_folder_of_who_set_it(tmp_path):
    """As the param itself does: below the file that says it, whichever file names it."""
    (tmp_path / "bases").mkdir()
    nodes = "nodes:\n  a: {use: t/a, from: '${weights}'}\n  b: {use: t/b, from: '${words}'}\noutputs: {y: a, z: b}\n"
    base = "modelgraft: 1\nparams:\n  weights: ./w\n  words: {default: '${weights}'}\n" + nodes
    (tmp_path / "bases" / "base.yaml").write_text(base)
    mine = tmp_path / "mine.yaml"
    mine.write_text("modelgraft: 1\nextends: ./bases/base.yaml\nparams.weights.default: ./v\n")
    for path, home in ((mine, tmp_path), (tmp_path / "bases" / "base.yaml", tmp_path / "bases")):
        found = load_graph(path, registry=REGISTRY).nodes
        assert {found[name].folder for name in ("a", "b")} == {home.resolve()}
