"""The JSON Schema: it accepts what the reader accepts, and refuses what is misspelt."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from pydantic import BaseModel, ConfigDict

from modelgraft import Config, component, hookimpl
from modelgraft.installed.discovery import assemble, discover
from modelgraft.kernel.language import document
from modelgraft.kernel.language.document import NODE_KEYS, TOP_KEYS
from modelgraft.kernel.language.shipped_graphs import find_shipped, shipped_names
from modelgraft.kernel.language.yaml_reader import read_yaml
from modelgraft.tools.schema import graph_schema

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is a development tool; the schema itself needs none")


class Depth(BaseModel):
    """How deep."""

    model_config = ConfigDict(extra="forbid")
    layers: int = 2


@component("toy/eye", kind="encoder", module="nowhere:Eye", inputs={"x": "image"}, outputs={"y": "float[batch width]"})
class Eye(Config):
    """See with a toy."""

    width: int = 3
    depth: Depth = Depth()
    act: object = None


@component("toy/lora", kind="adapter", module="nowhere:Lora")
class Lora(Config):
    """Adapt."""

    rank: int = 4


def toy_registry():
    @hookimpl
    def register_components(register):
        register(Eye)
        register(Lora)

    module = ModuleType("toy")
    module.register_components = register_components
    return assemble({"toy": module})


TOY = jsonschema.Draft202012Validator(graph_schema(toy_registry()))
GOOD = """modelgraft: 1
params: {a: 1, b: {type: int, default: 2, doc: x, choices: [1, 2]}, c: ~, d: [1]}
inputs: {x: image, y: {type: "optional[list[text] | float[batch 3]]", default: [a]}}
nodes:
  eye: {use: toy/eye@1, from: "${a}#eye", with: {width: "${b}", depth: {layers: 3}}, in: {x: inputs.x}, frozen: true, runtime: {threads: 2}}
  two: {use: toy/eye, in: {x: [eye.y, inputs.x], q: eye}, adapters: [{use: toy/lora, with: {rank: 2}, in: {z: eye}}], when: eye.y}
  any: {use: toy/eye | toy/lora, with: {width: 3}}
  sub: {use: "graph:./other.yaml", in: {image: eye}, with: {k: 1}}
  clip: {use: "graph:clip"}
outputs: {y: two, e: eye.y}
runtime: {backend: {default: torch, eye: onnx}, dtype: float16}
"""


def errors(text, validator=TOY):
    return list(validator.iter_errors(read_yaml(text, file="a.yaml").plain()))


@pytest.fixture(scope="module")
def schema():
    """Of everything that is installed."""
    return graph_schema(discover())


@pytest.mark.slow
def test_the_schema_is_a_schema_and_plain_json(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


@pytest.fixture(scope="module")
def validator(schema):
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_graph_fits(validator, name):
    root = document.read(find_shipped(name)).root
    assert [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(root.plain())] == []


def test_every_form_of_the_language_fits():
    assert [error.message for error in errors(GOOD)] == []


def test_an_extension_may_leave_out_what_its_base_says_and_remove_things():
    text = "modelgraft: 1\nextends: clip\nnodes.vision.with.k: 3\nnodes: {pixels: {from: x}, answer: ~}\noutputs: {label: ~}\n"
    assert [error.message for error in errors(text)] == []
    assert errors("modelgraft: 1\nextends: clipp\n")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("modelgraft: 1", "modelgraft: 2"),
        ("params:", "parms:"),
        ("frozen: true", "frosen: true"),
        ("frozen: true", "frozen: yes"),
        ("width:", "widht:"),
        ('width: "${b}"', "width: wide"),
        ("layers: 3", "layer: 3"),
        ("use: toy/eye@1", "use: toy/eyes"),
        ("use: toy/eye | toy/lora", "use: toy/eye | toy/lara"),
        ("with: {width: 3}", "with: {whatever: 3}"),
        ("in: {x: inputs.x}", "in: {z: inputs.x}"),
        ("in: {x: inputs.x}", "in: {x: a.b.c}"),
        ("rank: 2", "rnak: 2"),
        ("{x: image,", "{x: imag,"),
        ("float[batch 3]", "flaot[batch 3]"),
        ("threads: 2", "threads: 0"),
        ("dtype: float16", "dtype: float61"),
        ("doc: x", "docs: x"),
        ("with: {k: 1}", "share: eye"),
        ("graph:clip", "graph:clipp"),
        ("outputs:", "output:"),
        ("  two:", "  two-and-a-half:"),
        ("e: eye.y", "e: 3"),
    ],
)
def test_what_is_misspelt_does_not_fit(good, bad):
    assert good in GOOD
    assert errors(GOOD.replace(good, bad, 1))


def test_a_node_must_say_what_it_uses():
    assert errors("modelgraft: 1\nnodes: {a: {from: x}}\noutputs: {y: a}\n")
    assert errors("modelgraft: 1\nnodes: {a: {use: toy/eye}}\n")


def test_components_are_described_with_their_sentence_fields_and_ports():
    schema = graph_schema(toy_registry())
    described = schema["$defs"]["component:toy:eye"]
    assert described["description"] == "See with a toy. (encoder, plugin toy)"
    assert described["properties"]["in"]["properties"]["x"]["description"] == "image"
    assert described["properties"]["with"]["properties"]["width"]["default"] == 3
    assert {"const": "toy/eye", "description": "See with a toy."} in schema["$defs"]["node"]["properties"]["use"]["anyOf"]
    assert [schema["properties"][key]["description"] for key in ("nodes", "params")] == [TOP_KEYS["nodes"], TOP_KEYS["params"]]
    assert set(schema["$defs"]["node"]["properties"]) == set(NODE_KEYS)


def test_what_a_mapping_holds_may_be_a_param():
    """One size of a picture for several nodes; what is neither a number nor a param does not fit."""
    validator = jsonschema.Draft202012Validator(graph_schema(discover()))
    node = "{use: vision/preprocess, with: {size: {shortest_edge: %s}}, in: {image: inputs.x}}"
    text = f"modelgraft: 1\nparams: {{a: 9}}\ninputs: {{x: image}}\nnodes: {{n: {node}}}\noutputs: {{y: n}}\n"
    assert errors(text % '"${a}"', validator) == []
    assert errors(text % "wide", validator)
