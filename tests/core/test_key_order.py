"""Nothing depends on the order in which the keys of a document stand: not what is solved, and not what is told."""

from __future__ import annotations

import random
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelgraft import GraphError
from modelgraft.kernel.language.document import Document, parse
from modelgraft.kernel.language.expand import expand_document
from modelgraft.kernel.language.yaml_reader import Item
from modelgraft.kernel.planning.planner import plan
from modelgraft.tools.checked import checked
from support.checkable import REGISTRY, graph_of
from support.expanding import load

EVERYTHING = """
modelgraft: 1
name: everything
params:
  depth: {type: int, default: 3, choices: [3, 4, 5]}
  prompt: {default: "${style}: {image}{question}", doc: "of ${style}"}
  style: "${word}!"
  word: Look
  width: 40
params.depth.default: 4
params.depth.doc: How deep.
inputs:
  image: image
  question: {type: text, default: "${style}"}
  sound: {type: "float[batch n 7]"}
inputs.question.doc: What is asked.
inputs.sound.doc: A sound.
nodes:
  pixels: {use: toy/pixels, with: {size: 28}, in: {image: inputs.image}}
  eye: {use: toy/eye, with: {image_size: 28, hidden_size: "${width}"}, in: {pixels: pixels}}
  ask: {use: toy/asks, in: {text: inputs.question}}
  bridge: {use: toy/bridge, with: {queries: "${depth}"}, in: {media: eye.tokens}, when: ask.yes}
  one: {use: toy/linear, in: {x: bridge.tokens}}
  two: {use: toy/linear, with: {out_features: 12}, in: {x: inputs.sound}, frozen: true}
  three: {use: toy/linear, share: two, in: {x: inputs.sound}}
  llm:
    use: toy/tongue
    with: {prompt: "{image}"}
    in: {image: one, question: inputs.question}
    adapters: [{use: toy/gate, in: {media: two}}]
  end: {use: toy/join, in: {left: llm, right: inputs.question}}
nodes.llm.with.max_new_tokens: 7
nodes.llm.with: {prompt: "${prompt}", hidden_size: 24, context: 100}
nodes.llm.runtime.device: cpu
nodes.extra: {use: toy/join, in: {left: llm}}
nodes.extra.with.separator: "-"
nodes.extra.in.right: inputs.question
outputs: {text: end, three: three, extra: extra}
runtime: {dtype: float16}
runtime.device.llm: cpu
runtime.device.eye: auto
runtime.device: {default: cpu}
"""
WRONG = (None, -1, "nobody", "inputs.image", "eye", "llm.text", "${style}", "${nothing}", "{", True, [], {}, 10**6)


def document() -> Item:
    return parse(textwrap.dedent(EVERYTHING).lstrip("\n"), path=Path("graph.yaml")).root


def shuffled(item: Item, order: random.Random) -> Item:
    """The same item with the keys of every mapping in another order; each keeps its place."""
    if isinstance(item.value, list):
        return item._replace(value=[shuffled(part, order) for part in item.value])
    if not isinstance(item.value, dict):
        return item
    keys = list(item.value)
    order.shuffle(keys)
    return item._replace(value={key: shuffled(item.value[key], order) for key in keys})


def spots(item: Item):
    """Every mapping inside an item, with each of its keys."""
    parts = item.value if isinstance(item.value, list) else item.value.values() if isinstance(item.value, dict) else ()
    if isinstance(item.value, dict):
        yield from ((item.value, key) for key in item.value)
    for part in parts:
        yield from spots(part)


def harmed(item: Item, draw: random.Random, times: int) -> Item:
    """The same with some keys taken out, misspelt, or given a value that is wrong there; the item itself is changed."""
    for _ in range(times):
        mapping, key = draw.choice([spot for spot in spots(item) if spot[1] != "modelgraft"])
        old = mapping.pop(key)
        how = draw.choice(["out", "misspelt", "wrong", "wrong"])
        if how == "misspelt":
            mapping[f"{key}x"] = old
        elif how == "wrong":
            mapping[key] = old._replace(value=draw.choice(WRONG))
    return item


def outcome(root: Item, params=None):
    """All that the checker and the planner say of a document."""
    try:
        solved = checked(expand_document(Document(Path("graph.yaml"), root, ""), registry=REGISTRY, params=params))
    except GraphError as error:
        return [*map(str, error.problems)]
    found = plan(solved)
    wiring = {name: (node.references, list(node.in_ports), list(node.wired)) for name, node in solved.nodes.items()}
    steps = [(step.node.name, step.key, step.device, step.dtype) for step in found.steps]
    return solved.nodes, solved.inputs, solved.outputs, solved.graph.params, wiring, steps


def test_the_whole_document_holds_together():
    """Otherwise the tests below would compare error messages alone."""
    nodes, inputs, *_, steps = outcome(document())
    assert (nodes["llm"].config.max_new_tokens, nodes["llm"].config.hidden_size, nodes["one"].config.out_features) == (7, 24, 24)
    assert (nodes["bridge"].config.queries, inputs["question"].default, inputs["question"].doc) == (4, "Look!", "What is asked.")
    assert {name: device for name, _, device, _ in steps}["eye"] == "cpu"


@settings(max_examples=60)
@given(st.integers(0, 2**40))
def test_the_order_of_keys_changes_nothing(seed):
    assert outcome(shuffled(document(), random.Random(seed))) == outcome(document())


@pytest.mark.slow
@settings(max_examples=400)
@given(st.integers(0, 2**40), st.integers(1, 4))
def test_the_order_of_keys_does_not_change_what_is_told_of_mistakes(seed, times):
    def again():
        return harmed(document(), random.Random(seed), times)

    assert outcome(shuffled(again(), random.Random(seed + 1))) == outcome(again())


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.permutations(
        ["word", "depth", "nodes.llm.with", "nodes.llm.with.context", "params.depth.doc", "nodes.extra", "nodes.extra.in.right"]
    )
)
def test_the_order_of_what_the_user_sets_changes_nothing(order):
    values = {
        "word": "Tell", "depth": 5, "params.depth.doc": "Deep.",
        "nodes.llm.with": {"prompt": "{image}{question}"}, "nodes.llm.with.context": 99,
        "nodes.extra": {"use": "toy/join", "in": {"left": "llm"}}, "nodes.extra.in.right": "inputs.question",
    }  # fmt: skip
    assert outcome(document(), {name: values[name] for name in order}) == outcome(document(), values)


@pytest.mark.parametrize(
    "text", ["nodes.a.with.n: 2\nnodes.a: {use: t/a, with: {m: 1}}\n", "nodes.a: {use: t/a, with: {m: 1}}\nnodes.a.with.n: 2\n"]
)
def test_a_dotted_key_goes_over_a_shorter_one_wherever_it_stands(tmp_path, text):
    found = load(tmp_path, text + "outputs: {y: a}\n").nodes["a"].config
    assert {key: value.value for key, value in found.items()} == {"m": 1, "n": 2}


def test_params_may_stand_in_the_defaults_of_params_before_them(tmp_path):
    """And those that stand in each other are told, once and by name."""
    nodes = 'nodes: {a: {use: t/a, with: {n: "${one}"}}}\noutputs: {y: a}\n'
    graph = load(tmp_path, 'params: {one: "${two}+", two: "${three}+", three: c}\n' + nodes)
    assert graph.nodes["a"].config["n"].value == "c++"
    with pytest.raises(GraphError) as caught:
        load(tmp_path, 'params: {one: "${two}", two: "${one}", three: c}\n' + nodes)
    assert [p.found for p in caught.value.problems] == ["these params stand in each other's defaults: one -> two -> one"]


def test_left_over_parts_are_told_when_everything_else_was_looked_at():
    """Not beside a wrong name, which may be why; together with what does not fit."""
    text = """
    modelgraft: 1
    inputs: {x: "float[batch n 5]", other: text}
    nodes:
      a: {use: toy/linear, with: {in_features: 7, out_features: 3}, in: {x: %s}}
    outputs: {y: a}
    """

    def codes(wire):
        with pytest.raises(GraphError) as caught:
            checked(graph_of(text % wire))
        return [problem.code for problem in caught.value.problems]

    assert codes("inputs.y") == ["unknown-input"]
    assert codes("inputs.x") == ["unused-input", "dim-mismatch"]
