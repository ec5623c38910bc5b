"""Expanding a document: sections, params, what the user sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelgraft import DocumentError
from modelgraft.kernel.language.expand import load_graph
from support.expanding import ONE, REGISTRY, load, problem, problems
from support.work import grows

# -- what is read -------------------------------------------------------------------------------------------------------


def test_every_key_of_a_node_arrives(tmp_path):
    graph = load(
        tmp_path,
        "inputs: {x: text, m: 'mask[batch]'}\n"
        "nodes:\n"
        "  a: {use: t/a, from: 'org/m#part', with: {k: [1, {z: yes}]}, in: {x: [inputs.x, b.y], z: b}, frozen: true, when: inputs.m,\n"
        "      lazy: true, share: b,\n"
        "      adapters: [{use: ad/lora, from: ./w, with: {r: 4}, in: {q: b}}],\n"
        "      runtime: {device: cpu, timeout_s: 1.5}}\n"
        "  b: {use: t/b}\n"
        "outputs: {y: a.y}\n",
    )
    node = graph.nodes["a"]
    assert (node.use.value, node.source.value, node.config["k"].value) == ("t/a", "org/m#part", [1, {"z": "yes"}])
    assert [str(ref) for ref in node.wires["x"].refs] == ["inputs.x", "b.y"]
    assert (node.wires["x"].is_list, node.wires["z"].is_list) == (True, False)
    assert (node.frozen, node.lazy, str(node.when), node.share.value) == (True, True, "inputs.m", "b")
    (adapter,) = node.adapters
    assert (adapter.use.value, adapter.source.value, adapter.config["r"].value, str(adapter.wires["q"].refs[0])) == (
        "ad/lora",
        "./w",
        4,
        "b",
    )
    assert {key: value.value for key, value in node.runtime.items()} == {"device": "cpu", "timeout_s": 1.5}
    assert (node.place.line, node.folder, graph.nodes["b"].frozen) == (4, tmp_path.resolve(), False)
    assert (str(graph.outputs["y"]), graph.outputs["y"].place.line) == ("a.y", 9)


def test_name_and_heading_come_from_the_file(tmp_path):
    graph = load(tmp_path, ONE % "", head="# Say it.\nmodelgraft: 1\n", name="say_it.yaml")
    assert (graph.name, graph.doc, graph.path) == ("say_it", "Say it.", tmp_path / "say_it.yaml")
    assert load(tmp_path, "name: other\n" + ONE % "").name == "other"


def test_inputs_have_types_defaults_and_sentences(tmp_path):
    text = "inputs: {x: {type: text, default: '', doc: The question.}, z: 'list[text]'}\nnodes: {a: {use: t/a}}\noutputs: {y: a}\n"
    graph = load(tmp_path, text)
    assert (graph.inputs["x"].default, graph.inputs["x"].has_default, graph.inputs["x"].doc) == ("", True, "The question.")
    assert (str(graph.inputs["z"].port), graph.inputs["z"].has_default) == ("list[text]", False)


def test_runtime_of_the_graph_may_name_single_nodes_and_a_node_goes_over_it(tmp_path):
    text = (
        "nodes:\n  a: {use: t/a}\n  b: {use: t/b}\n  c: {use: t/c, runtime: {backend: mine}}\noutputs: {y: a, z: b, w: c}\n"
        "runtime: {backend: {default: torch, b: onnx, c: onnx}, device: cpu}\n"
    )
    graph = load(tmp_path, text)
    assert {key: value.value for key, value in graph.runtime.items()} == {"backend": "torch", "device": "cpu"}
    found = {name: {key: value.value for key, value in node.runtime.items()} for name, node in graph.nodes.items()}
    assert found == {"a": {}, "b": {"backend": "onnx"}, "c": {"backend": "mine"}}


# -- params -------------------------------------------------------------------------------------------------------------

PARAMS = (
    "params: {where: org/m, count: 3, rate: 0.5, loud: false, words: [a, b], any: ~}\n"
    "nodes:\n  a: {use: t/a, from: '${where}#eye', with: {n: '${count}', t: 'n=${count}, ${rate}, ${loud}', r: '${rate}', "
    "l: '${loud}', w: ['${words}', 'x'], v: '${any}', e: '$${count} costs $5'}}\noutputs: {y: a}\n"
)


def config(graph, node="a"):
    return {key: value.value for key, value in graph.nodes[node].config.items()}


def test_a_text_that_is_one_param_keeps_its_type_and_others_become_text(tmp_path):
    found = config(load(tmp_path, PARAMS))
    assert found == {"n": 3, "t": "n=3, 0.5, false", "r": 0.5, "l": False, "w": [["a", "b"], "x"], "v": None, "e": "${count} costs $5"}


def test_text_from_the_command_line_is_read_by_the_type_of_the_default(tmp_path):
    given = {"where": "2024", "count": "7", "rate": "2", "loud": "true", "words": "[q, 5]", "any": "1e-3"}
    graph = load(tmp_path, PARAMS, params=given)
    found = config(graph)
    assert (found["n"], found["r"], found["l"], found["w"][0], found["v"]) == (7, 2, True, ["q", 5], 1e-3)
    assert graph.nodes["a"].source.value == "2024#eye"
    assert (graph.params["count"].value, graph.params["count"].default, graph.params["count"].used) == (7, 3, True)


def test_values_from_python_are_taken_as_they_are(tmp_path):
    graph = load(tmp_path, PARAMS, params={"where": Path("/models/m"), "count": 7})
    assert (graph.nodes["a"].source.value, config(graph)["n"]) == ("/models/m#eye", 7)


def test_what_begins_with_a_param_that_the_user_set_is_the_users(tmp_path):
    """Only then may it name files anywhere: a document must not lead the user's path elsewhere."""
    text = "params: {p: m}\nnodes:\n  a: {use: t/a, from: '%s'}\noutputs: {y: a}\n"
    trusted = ["${p}", "${p}#eye", "${p}/deeper"]
    untrusted = ["/etc/${p}", "${p}/../../etc", "x${p}", "$${p}${p}"]
    assert [load(tmp_path, text % t, params={"p": "/w"}).nodes["a"].source.origin.is_users for t in trusted] == [True] * 3
    assert [load(tmp_path, text % t, params={"p": "/w"}).nodes["a"].source.origin.is_users for t in untrusted] == [False] * 4
    assert not load(tmp_path, text % "${p}").nodes["a"].source.origin.is_users


def test_origins_name_file_line_and_param(tmp_path):
    text = "params:\n  n: 3\nnodes:\n  a:\n    use: t/a\n    with:\n      k: '${n}'\n      j: 1\noutputs: {y: a}\n"
    values = load(tmp_path, text).nodes["a"].config
    assert (str(values["j"].origin), str(values["k"].origin)) == ("a.yaml:9", "a.yaml:8 (param n, a.yaml:3)")
    values = load(tmp_path, text, params={"n": "5"}).nodes["a"].config
    assert str(values["k"].origin) == 'params["n"] (a.yaml:8, param n)'


def test_a_default_may_name_a_param_above(tmp_path):
    text = "params: {a: org/m, b: '${a}#eye'}\nnodes:\n  a: {use: t/a, from: '${b}'}\noutputs: {y: a}\n"
    assert load(tmp_path, text).nodes["a"].source.value == "org/m#eye"
    assert load(tmp_path, text, params={"a": "/w"}).nodes["a"].source.value == "/w#eye"


@pytest.mark.slow
@pytest.mark.parametrize(("first", "between", "form"), [("aaaaaaaaaa", "", "'{}'"), ("[a, a]", ", ", "[{}]")], ids=["text", "lists"])
def test_params_of_params_that_grow_without_end_are_stopped(tmp_path, first, between, form):
    """Ten of each in the next: a short file would fill the memory. Told once, and nothing else is read."""
    single = "${p%d}" if form == "'{}'" else "'${p%d}'"
    lines = [f"  p{i + 1}: {form.format(between.join([single % i] * 10))}\n" for i in range(20)]
    text = f"params:\n  p0: {first}\n{''.join(lines)}nodes: {{a: {{use: t/a, with: {{x: '${{p20}}'}}}}}}\noutputs: {{y: a}}\n"
    found = problem(tmp_path, text)
    assert (found.code, found.found) == ("too-large", "params repeat more than 10,000,000 characters and values")


@pytest.mark.parametrize(
    ("params", "given", "code", "sentence"),
    [
        ("{n: 3}", {"n": "many"}, "wrong-type", "the param 'n' is the text 'many'; wanted int"),
        ("{n: 3}", {"n": "2.5"}, "wrong-type", "the param 'n' is the number 2.5; wanted int"),
        ("{n: 3}", {"n": True}, "wrong-type", "the param 'n' is true; wanted int"),
        ("{n: x}", {"n": 5}, "wrong-type", "the param 'n' is the number 5; wanted text"),
        ("{n: false}", {"n": "yes"}, "wrong-type", "the param 'n' is the text 'yes'; wanted bool"),
        ("{n: {type: int}}", {}, "missing-param", "the param 'n' has no default and is not set"),
        ("{n: {default: a, choices: [a, b]}}", {"n": "c"}, "wrong-value", "the param 'n' is the text 'c'; allowed: a, b"),
        ("{n: {type: number, default: 1}}", {}, "wrong-type", "the type of the param 'n' is the text 'number'; the types are: text, int, "),
        ("{n: {defualt: 1}}", {"n": 2}, "unknown-key", "the param 'n' has no key 'defualt'; the keys are: choices, default, doc, type"),
        ("{n: {type: int, default: x}}", {}, "wrong-type", "the param 'n' is the text 'x'; wanted int"),
    ],
)
def test_a_param_that_does_not_fit_is_told(tmp_path, params, given, code, sentence):
    found = problem(tmp_path, f"params: {params}\n" + ONE % ", with: {k: '${n}'}", params=given)
    assert found.code == code
    assert found.found.startswith(sentence)


def test_an_unknown_param_lists_those_there_are(tmp_path):
    found = problem(tmp_path, "params: {checkpoint: a}\n" + ONE % ", from: '${checkpoint}'", params={"chekpoint": "x"})
    assert (found.code, found.found) == ("unknown-param", "the graph a has no param 'chekpoint'; its params: checkpoint")
    assert (found.hint, str(found.place)) == ("Did you mean 'checkpoint'?", 'params["chekpoint"]')


def test_a_misspelt_interpolation_names_the_nearest_param(tmp_path):
    found = problems(tmp_path, "params: {size: 3}\n" + ONE % ", with: {k: '${sise}', j: '${size'}")
    assert [(p.code, p.found, p.place.line) for p in found if p.code == "unknown-param"] == [
        ("unknown-param", "${sise} names no param", 5),
        ("unknown-param", "'${' has no closing brace", 5),
    ]
    assert found[1].hint.endswith("Did you mean 'size'?") or found[0].hint.endswith("Did you mean 'size'?")


def test_an_unused_param_is_left_for_the_checker_to_tell_unless_allowed(tmp_path):
    text = "params: {n: 3}\n" + ONE % ""
    (found,) = load(tmp_path, text).left_over
    assert (found.code, found.found, found.place.line) == ("unused-param", "nothing uses the param 'n'", 2)
    allowed = load(tmp_path, text, allow=("unused",))
    assert (allowed.params["n"].used, allowed.left_over) == (False, ())


# -- finding the file ---------------------------------------------------------------------------------------------------


def test_a_name_that_is_no_graph_lists_the_shipped_ones():
    with pytest.raises(DocumentError) as caught:
        load_graph("clipp", registry=REGISTRY)
    (found,) = caught.value.problems
    assert (found.code, found.found) == ("no-such-graph", "'clipp' is neither a file nor a shipped graph")
    assert "Did you mean 'clip'?" in found.hint
    assert "Shipped graphs: " in found.hint


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "../pyproject", "/", "no/such.yaml"])
def test_strange_names_are_one_problem(name):
    with pytest.raises(DocumentError) as caught:
        load_graph(name, registry=REGISTRY)
    assert caught.value.problems[0].code == "no-such-graph"


# -- set ----------------------------------------------------------------------------------------------------------------


def test_a_dotted_key_from_the_user_goes_over_the_file(tmp_path):
    text = "nodes:\n  a: {use: t/a, from: org/m, with: {k: 1, deep: {x: 1, z: 2}}}\noutputs: {y: a}\n"
    given = {"nodes.a.with.k": "5", "nodes.a.from": "/w", "nodes.a.frozen": "true", "runtime.device": "cuda:1", "nodes.a.with.deep.x": 7}
    graph = load(tmp_path, text, params=given)
    node = graph.nodes["a"]
    assert (config(graph), node.source.value, node.frozen, graph.runtime["device"].value) == (
        {"k": 5, "deep": {"x": 7, "z": 2}},
        "/w",
        True,
        "cuda:1",
    )
    assert (node.source.origin.is_users, node.place.line) == (True, 3)
    assert str(node.config["k"].origin) == 'params["nodes.a.with.k"] (instead of 1, a.yaml:3)'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("'5'", "5"),
        ('"a: b"', "a: b"),
        ("[a, 2]", ["a", 2]),
        ("[INST] {x}", "[INST] {x}"),
        ("{image}", "{image}"),
        ("yes", "yes"),
        ("", None),
        ("[", "["),
    ],
)
def test_text_for_a_dotted_key_is_read_as_yaml_reads_a_word(tmp_path, text, value):
    assert config(load(tmp_path, ONE % "", params={"nodes.a.with.k": text}))["k"] == value


def test_flags_go_over_what_is_set(tmp_path):
    graph = load(tmp_path, ONE % "", params={"runtime.device": "cpu"}, overrides={"runtime.device": "cuda"})
    assert (graph.runtime["device"].value, graph.runtime["device"].origin.layer) == ("cuda", "flag")


@pytest.mark.parametrize(
    ("key", "code", "sentence"),
    [
        ("nodes.b.from", "unknown-node", "'nodes.b.from' changes the node 'b', but there is none"),
        ("nodes.a.form", "unknown-key", "the node a has no key 'form'"),
        ("nodes.", "unknown-override", "'nodes.' does not name a value"),
        ("nodes.a.use.x", "wrong-type", "'nodes.a.use.x' changes a part of nodes.a.use, but that is the text 't/a'"),
        ("runtime.speed", "unknown-key", "runtime has no key 'speed'"),
    ],
)
def test_a_dotted_key_that_names_nothing_is_told(tmp_path, key, code, sentence):
    found = problem(tmp_path, ONE % "", params={key: "x"})
    assert found.code == code
    assert found.found.startswith(sentence)
    assert str(found.place) == f'params["{key}"]'


# -- cost ---------------------------------------------------------------------------------------------------------------


def test_the_work_of_expanding_grows_with_the_number_of_nodes(tmp_path):
    """How long it takes is measured in benchmarks/startup.py."""

    def expand(count):
        nodes = "".join(f"  n{i}: {{use: t/a, with: {{k: {i}}}, in: {{x: n{i - 1}.y}}, frozen: true}}\n" for i in range(1, count))
        path = tmp_path / f"{count}.yaml"
        path.write_text("modelgraft: 1\nnodes:\n  n0: {use: t/a}\n" + nodes + f"outputs: {{y: n{count - 1}}}\n")
        return lambda: load_graph(path, registry=REGISTRY)

    assert grows(expand, 100) < 12


def test_reading_and_expanding_imports_nothing_heavy():
    light = "modelgraft.kernel.language.expand, modelgraft.tools.schema, modelgraft.tools.explain"
    code = f"import sys, {light}; print([m for m in %r if m in sys.modules])"
    heavy = ["torch", "numpy", "transformers", "networkx", "rich", "typer", "onnxruntime", "PIL"]
    done = subprocess.run([sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
