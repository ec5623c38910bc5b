"""Graphs written in Python say what a document says, are checked as one, and become one again."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelgraft as mg
from modelgraft.kernel.language.document import parse
from modelgraft.kernel.language.expand import expand_document
from modelgraft.kernel.language.yaml_reader import read_yaml
from modelgraft.kernel.words.graph import SolvedGraph
from modelgraft.tools.yaml_writer import text_of
from support import toys

REGISTRY = toys.registry()


def start(name: str = "", **options: Any) -> mg.Graph:
    return mg.Graph(name, registry=REGISTRY, **options)


def here(above: int = 0) -> str:
    """The line that calls this, or one above it, as problems name it."""
    return f"{Path(__file__).name}:{inspect.currentframe().f_back.f_lineno - above}"


def problems(graph: mg.Graph) -> list[tuple[str, str]]:
    """Place and code of everything that is wrong."""
    with pytest.raises(mg.GraphError) as caught:
        mg.check(graph)
    return [(problem.place.short, problem.code) for problem in caught.value.problems]


def read_again(text: str) -> SolvedGraph:
    return mg.check(expand_document(parse(text, path=Path("again.yaml")), registry=REGISTRY))


def said(solved: SolvedGraph) -> dict[str, Any]:
    """What a solved graph says, without the places where it was written."""
    nodes = {
        name: (node.component.id, node.config, node.wired, node.lists, node.frozen, node.when, node.lazy, node.share, node.runtime)
        for name, node in solved.nodes.items()
    }
    adapters = {name: [(one.component.id, one.config) for one in node.adapters] for name, node in solved.nodes.items()}
    ports = {name: (entry.port, entry.default, entry.doc) for name, entry in solved.inputs.items()}
    return {"nodes": nodes, "adapters": adapters, "inputs": ports, "outputs": solved.outputs, "doc": solved.graph.doc}


def test_a_graph_in_python_is_the_graph_of_its_document():
    """Ports are wires, other values settings; the width that nobody wrote is solved."""
    graph = start("sight", doc="See.")
    eye = graph.node("toy/eye", image=graph.input("image", "image"), width=12, frozen=True)
    bridge = graph.node("toy/linear", name="bridge", x=eye.tokens)
    graph.output("media", bridge)
    graph.output("pooled", eye["pooled"])
    text = """# See.
modelgraft: 1
name: sight
inputs:
  image: image
nodes:
  eye:    {use: toy/eye, with: {width: 12}, in: {image: inputs.image}, frozen: true}
  bridge: {use: toy/linear, in: {x: eye.tokens}}
outputs:
  media:  bridge
  pooled: eye.pooled
"""
    assert graph.to_yaml() == text
    assert said(mg.check(graph)) == said(read_again(text))
    assert mg.check(graph).nodes["bridge"].config.narrow == 12


def test_what_load_gives_is_a_graph_too():
    """One type, whether it was read or written, and it can be written on."""
    graph = mg.load("vit")
    assert isinstance(graph, mg.Graph)
    assert graph.path is not None
    graph.output("pooled", "vision.pooled")
    assert set(mg.check(graph).outputs) >= {"label", "pooled"}
    assert graph != mg.load("vit")
    assert mg.load("vit") == mg.load("vit")


def test_a_problem_names_the_line_of_python():
    """Each with the line that wrote it, all of a phase at once."""
    graph = start()
    eye = graph.node("toy/eye", picture=graph.input("image", "image"), wdth=3)
    first = here(1)
    graph.output("out", graph.node("toy/linear", x=eye.tokens))
    assert problems(graph)[0] == (first, "unknown-key")


def test_a_misspelt_port_is_told_as_in_a_document():
    """With what there is, the nearest, and the line."""
    graph = start()
    eye = graph.node("toy/eye", image=graph.input("image", "image"))
    graph.output("out", eye.tokns)
    with pytest.raises(mg.GraphError, match=rf"{here(1)}  unknown-port  .*tokns.*it has: tokens, pooled") as caught:
        mg.check(graph)
    assert "Did you mean 'tokens'?" in str(caught.value)


def test_names_of_nodes_come_from_their_ids():
    """A second one of a kind has a number; a name that is given is kept."""
    graph = start()
    text = graph.input("text", "text")
    names = [str(graph.node("toy/upper", text=text)) for _ in range(3)] + [str(graph.node("toy/upper", name="loud", text=text))]
    assert names == ["upper", "upper_2", "upper_3", "loud"]
    assert str(graph.node("toy/upper@1 | toy/split", text=text)) == "upper_4"


def test_what_stands_twice_is_told_with_both_lines():
    """Nodes, inputs and outputs."""
    graph = start()
    text = graph.input("text", "text")
    graph.node("toy/upper", name="a", text=text)
    first = here(1)
    graph.node("toy/upper", name="a", text=text)
    with pytest.raises(mg.GraphError, match=rf"{here(1)}  duplicate-key  the node 'a' is there already: {first}"):
        mg.check(graph)


def test_a_setting_and_a_port_of_one_name_are_told_apart():
    """By keyword a port is a wire; config and inputs say it themselves; the same one twice is a problem."""
    graph = start()
    text = graph.input("text", "text")
    both = graph.node("toy/join", left=text, inputs={"right": text}, config={"separator": "+"})
    graph.output("text", both)
    node = mg.check(graph).nodes["join"]
    assert (set(node.wired), node.config.separator) == ({"left", "right"}, "+")
    graph.node("toy/upper", text=text, inputs={"text": text})
    assert problems(graph) == [(here(1), "duplicate-key")]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.float32(2), "such as 2.0"),
        ({1: 2}, "a mapping whose keys are not all text"),
        (object(), "a object"),
        (b"x", "a bytes"),
    ],
)
def test_a_setting_that_no_document_can_hold_is_told(value, said):
    """It is never turned into text in silence."""
    graph = start()
    graph.output("out", graph.node("toy/upper", text=graph.input("text", "text"), marks=value))
    with pytest.raises(mg.GraphError, match="wrong-type") as caught:
        mg.check(graph)
    assert said in str(caught.value)
    assert here(4) in str(caught.value)


def test_ports_of_another_graph_are_told():
    """They would name a node that is not there, or another one."""
    other = start()
    strange = other.node("toy/upper", text=other.input("text", "text"))
    graph = start()
    graph.output("out", strange)
    assert (here(1), "bad-reference") in problems(graph)


def test_params_are_set_as_those_of_a_document():
    """`open` and `with_params` set them; a text may hold one."""
    graph = start()
    sign = graph.param("sign", "+", doc="what stands between")
    text = graph.input("text", "text")
    graph.output("text", graph.node("toy/join", left=text, right=text, separator=f"<{sign}>"))
    with mg.open(graph) as plain, mg.open(graph, params={"sign": "/"}) as other:
        assert (plain.run(text="a")["text"], other.run(text="a")["text"]) == ("a<+>a", "a</>a")
    assert "sign: {default: /, doc: what stands between}" in graph.with_params({"sign": "/"}).to_yaml()
    graph.param("idle", 1)
    assert problems(graph) == [(here(1), "unused-param")]


def test_a_graph_stands_in_a_graph(tmp_path):
    """One at hand, as it is when it is placed; saved, it lies beside the other and reads the same."""
    inner = start("shout", doc="Write loud.")
    inner.output("loud", inner.node("toy/upper", text=inner.input("text", "text")))
    outer = start("twice")
    text = outer.input("text", "text")
    one = outer.node(graph=inner, text=text)
    outer.output("text", outer.node("toy/join", left=one.loud, right=outer.node(graph=inner, name="two", text=one)))
    solved = mg.check(outer)
    assert set(solved.nodes) == {"shout/upper", "two/upper", "join"}
    inner.output("more", "upper")
    outer.save(tmp_path / "twice.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shout.yaml", "twice.yaml"]
    assert said(mg.check(mg.load(tmp_path / "twice.yaml", registry=REGISTRY))) == said(solved)


def test_saving_never_replaces_another_graph_beside(tmp_path):
    """The file of an inner graph may be somebody's own."""
    inner = start("part")
    inner.output("loud", inner.node("toy/upper", text=inner.input("text", "text")))
    outer = start("whole")
    outer.output("text", outer.node(graph=inner, text=outer.input("text", "text")))
    (tmp_path / "part.yaml").write_text("modelgraft: 1\n")
    with pytest.raises(mg.InputError, match=r"part\.yaml' is another graph already"):
        outer.save(tmp_path / "whole.yaml")
    assert not (tmp_path / "whole.yaml").exists()


def test_a_file_or_a_shipped_graph_stands_in_a_graph(tmp_path):
    """Given by its path from the working folder, or by its name."""
    (tmp_path / "loud.yaml").write_text(
        "modelgraft: 1\ninputs: {text: text}\nnodes: {a: {use: toy/upper, in: {text: inputs.text}}}\noutputs: {loud: a}\n"
    )
    graph = start()
    graph.output("text", graph.node(graph=tmp_path / "loud.yaml", text=graph.input("text", "text")))
    assert set(mg.check(graph).nodes) == {"loud/a"}
    outer = mg.Graph()
    outer.output("label", outer.node(graph="vit", image=outer.input("image", "image")).label)
    assert "vit/vision" in mg.check(outer).nodes
    assert "use: graph:vit" in outer.to_yaml()


def test_every_key_of_a_node_can_be_written():
    """Routes, sharing, laziness, adapters and placement, as in the document beside."""
    graph = mg.Graph("all", runtime={"dtype": "float32"})
    pixels = graph.node("vision/preprocess", source="preset:clip-vit-l-14", image=graph.input("image", "image"))
    eye = graph.node("vision/encoder", source="preset:clip-vit-l-14#vision_model", pixels=pixels, frozen=True, runtime={"threads": 2})
    go = graph.input("go", "mask[batch]")
    lora = graph.adapter("adapter/lora", rank=4)
    llm = graph.node(
        "llm/causal",
        source="preset:smollm2-135m",
        config={"prompt": "{words}"},
        words=graph.input("words", "text"),
        when=go,
        lazy=True,
        adapters=[lora],
    )
    twin = graph.node("vision/encoder", name="twin", source="preset:clip-vit-l-14#vision_model", pixels=pixels, share=eye)
    for name, port in {"text": llm.text, "one": eye.tokens, "two": twin.tokens}.items():
        graph.output(name, port)
    text = graph.to_yaml()
    assert "adapters: [{use: adapter/lora, with: {rank: 4}}]" in text
    assert "when: inputs.go" in text
    assert "share: encoder" in text
    again = mg.check(expand_document(parse(text, path=Path("again.yaml")), registry=graph.registry))
    assert said(again) == said(mg.check(graph))


WORDS = [
    "yes",
    "No",
    "1",
    "1e3",
    "0x1f",
    "null",
    "~",
    "${",
    "a: b",
    "# x",
    "a #b",
    "- a",
    "{x}",
    "x\ny",
    " a",
    "a ",
    "true",
    "|",
    "a\tb",
    "[a",
    "@x",
    "\u2028",
]
LONG = "a line of some length that is the first\n\n  and another: one # with signs\n" * 2
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from([*WORDS, LONG, LONG.rstrip(), f" {LONG}"]))


@settings(max_examples=150)
@given(
    st.recursive(
        st.one_of(TEXTS, st.integers(), st.floats(), st.booleans(), st.none()),
        lambda part: st.one_of(st.lists(part, max_size=4), st.dictionaries(TEXTS, part, max_size=4)),
        max_leaves=12,
    )
)
def test_what_is_written_reads_as_the_same_values(value):
    """Texts that look like something else are quoted; `text_of` itself compares, and here the reader does."""
    text = text_of({"modelgraft": 1, "nodes": {"a": {"with": {"x": value}}}})
    read = read_yaml(text, file="a.yaml").plain()["nodes"]["a"]["with"]["x"]
    assert repr(read) == repr(value)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["upper", "split", "join"]), st.integers(0, 99), st.integers(0, 99), TEXTS), min_size=1, max_size=12)
)
def test_built_written_and_read_a_graph_is_the_same(parts):
    """For random graphs of toys: the document solves to what the graph in Python solves to."""
    graph = start("random", allow=("unused",), doc="Any graph.")
    ports = [graph.input("text", "text", default="yes", doc="a text: with a sign")]
    for kind, one, two, text in parts:
        left, right = ports[one % len(ports)], ports[two % len(ports)]
        if kind == "join":
            ports.append(graph.node("toy/join", left=left, right=right, separator=text.replace("$", "")))
        else:
            node = graph.node(f"toy/{kind}", text=left)
            ports += [node.left, node.right] if kind == "split" else [node]
    graph.output("last", ports[-1])
    again = expand_document(parse(graph.to_yaml(), path=Path("again.yaml")), registry=REGISTRY, allow=("unused",))
    assert said(mg.check(again)) == said(mg.check(graph))
    assert graph == mg.Graph.of(again)


def test_the_shipped_graphs_are_written_as_they_read():
    """Every shipped document, written again, says the same."""
    for name in ("blip2", "talk", "describe", "flamingo"):
        graph = mg.load(name)
        again = mg.Graph.of(expand_document(parse(graph.to_yaml(), path=Path(f"{name}.yaml")), registry=graph.registry))
        assert again == graph


def test_a_handle_is_no_list():
    """A loop over a node would never end."""
    eye = start().node("toy/eye")
    with pytest.raises(TypeError):
        list(eye)
    with pytest.raises(AttributeError, match=r"'eye\.tokens' is a port already"):
        eye.tokens.x  # noqa: B018 reading it is the test
    assert repr(eye) == "<node eye>"
    assert repr(eye.tokens) == "<port eye.tokens>"
    assert not hasattr(eye, "_repr_html_")


def test_a_cell_of_a_notebook_is_a_place():
    """By its number, as the notebook shows it; its file has a name that nobody knows."""
    code = 'graph = mg.Graph(registry=registry)\n\ngraph.output("text", graph.node("toy/uper"))\n'
    names = {"mg": mg, "registry": REGISTRY, "In": ["", "import", code], "__name__": "__main__"}
    exec(compile(code, "/tmp/ipykernel_7/1234.py", "exec", dont_inherit=True), names)
    assert problems(names["graph"]) == [("In[2]:3", "unknown-component")]


def test_params_of_a_loaded_graph_go_into_a_graph_around_it():
    """What was set of it is set where it stands."""
    outer = mg.Graph("outer")
    inner = mg.load("vit", params={"checkpoint": "preset:vit-b-16"})
    outer.output("label", outer.node(graph=inner, name="see", image=outer.input("image", "image")).label)
    assert "use: graph:vit, with: {checkpoint: preset:vit-b-16}" in outer.to_yaml()
    assert mg.check(outer).nodes["see/vision"].source.text.startswith("preset:vit-b-16")


def test_an_input_may_be_named_in_a_text():
    """As a document does; any other text is a setting."""
    graph = start()
    graph.input("text", "text")
    graph.output("text", graph.node("toy/join", left="inputs.text", right="inputs.text", separator="inputs.other"))
    node = mg.check(graph).nodes["join"]
    assert (set(node.wired), node.config.separator) == ({"left", "right"}, "inputs.other")
