"""Plans: what runs for what is wanted, in which order and where, what it costs, and what its results depend on."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgraft import Config, Dim, GraphError, InputError, component
from modelgraft.cli.tables import releases
from modelgraft.engine.modules.building import count_parameters
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.planning.planner import find_output, plan
from modelgraft.kernel.words.graph import Ref
from modelgraft.tools.checked import checked
from support.checkable import EVERY, NOWHERE, graph_of, plugin

TEXT = """
modelgraft: 1
inputs: {image: image, text: text}
nodes:
  pixels: {use: toy/pixels, in: {image: inputs.image}}
  vision: {use: toy/eye, with: {hidden_size: 6}, in: {pixels: pixels}, frozen: true}
  project: {use: toy/linear, in: {x: vision.tokens}}
  llm: {use: toy/tongue, with: {prompt: "{image}{text}", hidden_size: 10}, in: {image: project, text: inputs.text}}
  tidy: {use: toy/join, in: {left: llm, right: inputs.text}}
outputs: {text: tidy, features: vision.pooled}
"""
SOLVED = checked(graph_of(TEXT))


def test_steps_come_after_what_feeds_them_and_values_go_after_their_last_use():
    """Wanted values stay; a value that nothing uses goes at once; inputs of the graph go too."""
    planned = plan(SOLVED)
    assert [step.node.name for step in planned.steps] == ["pixels", "vision", "project", "llm", "tidy"]
    assert releases(planned) == {
        "pixels": ["inputs.image"],
        "vision": ["pixels.pixels"],
        "project": ["vision.tokens"],
        "llm": ["project.y"],
        "tidy": ["inputs.text", "llm.text"],
    }
    assert str(planned.wanted["features"]) == "vision.pooled"


def test_only_what_the_wanted_outputs_need_is_planned():
    """Declared outputs by name, ports as node.port, nodes with one output."""
    planned = plan(SOLVED, wanted=["features"])
    assert [step.node.name for step in planned.steps] == ["pixels", "vision"]
    assert planned.pruned == ("llm", "project", "tidy")
    assert releases(planned)["vision"] == ["pixels.pixels", "vision.tokens"]
    assert {name: str(ref) for name, ref in plan(SOLVED, wanted=["project", "vision.tokens"]).wanted.items()} == {
        "project": "project.y",
        "vision.tokens": "vision.tokens",
    }
    assert plan(SOLVED, wanted={"eye": Ref("vision", "pooled")}).wanted == {"eye": Ref("vision", "pooled")}
    assert plan(SOLVED, wanted=["inputs.text"]).steps == ()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("txt", "there is no output 'txt'; the outputs are: features, text, and any port as node.port. Did you mean 'text'?"),
        (
            "vison.tokens",
            "there is no output 'vison.tokens'; the outputs are: features, text, and any port as node.port. Did you mean 'vision'?",
        ),
        ("vision.tokes", "vision has no output 'tokes'; it has: tokens, pooled. Did you mean 'tokens'?"),
        ("vision", "vision has 2 outputs; say which; it has: tokens, pooled."),
    ],
)
def test_an_output_that_is_not_there_names_the_nearest(name, sentence):
    """With all that there are."""
    with pytest.raises(InputError) as caught:
        find_output(SOLVED, name)
    assert str(caught.value) == sentence


def test_costs_are_counted_by_formula_and_frozen_nodes_train_nothing():
    """Parameters, bytes in the dtype, shapes with every number, lanes."""
    planned = plan(SOLVED, asked={"dtype": "float16"})
    vision, project, tidy = (planned.nodes[name] for name in ("vision", "project", "tidy"))
    assert (vision.parameters.total, vision.parameters.trainable, vision.parameters.how) == (6 * (3 * 14**2 + 257), 0, "formula")
    assert (project.parameters.total, project.parameters.trainable) == (70, 70)
    assert (tidy.parameters.total, tidy.parameters.trainable, tidy.parameters.how) == (0, 0, "none")
    assert vision.bytes == 2 * vision.parameters.total
    assert vision.shapes == {"tokens": "float[batch 257 6]", "pooled": "float[batch 6]"}
    assert {step.lane for step in planned.steps} == {"cpu", "free"}
    assert tidy.lane == "free"
    assert planned.totals.parameters == vision.parameters.total + 70
    assert planned.totals.trainable == 70
    assert planned.totals.bytes == 2 * (vision.parameters.total + 70)


def test_placement_flags_go_over_nodes_and_nodes_over_the_graph():
    """`auto` and silence mean what the caller says."""
    text = TEXT.replace("frozen: true", "runtime: {device: 'cuda:1', dtype: float16}") + "runtime: {device: 'cuda:0', backend: auto}\n"
    solved = checked(graph_of(text))
    planned = plan(solved, otherwise={"backend": "onnx"})
    assert [(step.backend, step.device, step.dtype, step.lane) for step in planned.steps[:3]] == [
        ("onnx", "cuda:0", "float32", "cuda:0"),
        ("onnx", "cuda:1", "float16", "cuda:1"),
        ("onnx", "cuda:0", "float32", "cuda:0"),
    ]
    assert {step.device for step in plan(solved, asked={"device": "cpu"}).steps} == {"cpu"}
    with pytest.raises(InputError, match="dtype 'float12' is not known; there are: bfloat16, float16, float32"):
        plan(SOLVED, asked={"dtype": "float12"})


def test_shared_weights_count_once():
    """Two nodes, one set of weights, and an adapter of its own for the second."""
    text = """
modelgraft: 1
inputs: {x: "float[batch n 5]", y: "float[batch m 5]", t: text}
nodes:
  owner: {use: toy/linear, with: {out_features: 3}, in: {x: inputs.x}}
  again: {use: toy/linear, in: {x: inputs.y}, share: owner}
outputs: {a: owner, b: again}
"""
    solved = checked(graph_of(text, allow=["unused"]))
    assert plan(solved).totals.parameters == 18
    assert plan(solved, wanted=["b"]).totals.parameters == 18


def test_adapters_train_while_their_host_is_frozen():
    """Their parameters are counted with the node."""
    text = """
modelgraft: 1
inputs: {x: "float[batch n 5]", t: text}
nodes:
  llm:
    use: toy/eye
    with: {hidden_size: 7}
    in: {pixels: inputs.p}
    frozen: true
    adapters: [{use: toy/gate, in: {media: inputs.x}}]
outputs: {y: llm.tokens}
""".replace("t: text", 'p: "float[batch 3 224 224]"')
    parameters = plan(checked(graph_of(text))).nodes["llm"].parameters
    assert (parameters.total, parameters.trainable) == (7 * (3 * 14**2 + 257) + 4 * 7 * 5, 4 * 7 * 5)


@component("open/counted", kind="encoder", module=NOWHERE, inputs={"x": "float[batch width]"}, outputs={"y": "float[batch width]"})
class Counted(Config):
    """Its parameters are known from the checkpoint alone."""

    width: Dim = None

    def parameters(self):
        return None


def safetensors(path, shapes):
    """A file of zeros with these tensors, as the format says: length of the header, header, data."""
    header, end = {}, 0
    for name, shape in shapes.items():
        count = 4
        for size in shape:
            count *= size
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + count]}
        end += count
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def test_without_a_formula_the_headers_of_the_checkpoint_are_counted(tmp_path):
    """Without a checkpoint either, the number is not known, and neither are the totals."""
    registry = assemble({"open": plugin(Counted)})
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    safetensors(folder / "model.safetensors", {"a": (2, 3), "b": (5,), "scale": ()})
    text = """
modelgraft: 1
params: {source: x}
inputs: {x: "float[batch 3]"}
nodes:
  n: {use: open/counted, from: "${source}", in: {x: inputs.x}}
outputs: {y: n}
"""
    planned = plan(checked(graph_of(text, registry=registry, params={"source": str(folder)})))
    assert planned.nodes["n"].parameters.total == 12
    assert planned.nodes["n"].parameters.how == "checkpoint"
    planned = plan(checked(graph_of(text.replace('from: "${source}", ', "").replace("params: {source: x}\n", ""), registry=registry)))
    assert (planned.nodes["n"].parameters.total, planned.nodes["n"].parameters.how) == (None, "unknown")
    assert planned.nodes["n"].bytes is None
    assert (planned.totals.parameters, planned.totals.trainable, planned.totals.bytes) == (None, None, None)


@component("exact/right", kind="projector", module="torch.nn:Identity", inputs={"x": "float[batch n]"}, outputs={"y": "float[batch n]"})
class Right(Config):
    """A formula that agrees: nothing."""


@component("exact/wrong", kind="projector", module="torch.nn:Identity", inputs={"x": "float[batch n]"}, outputs={"y": "float[batch n]"})
class Wrong(Config):
    """A formula that does not agree."""

    def parameters(self):
        return 1234


def test_exact_builds_modules_and_names_both_numbers_when_they_differ():
    """A formula that is wrong is a defect of the plugin."""
    registry = assemble({"exact": plugin(Right, Wrong)})
    text = "modelgraft: 1\ninputs: {x: 'float[batch n]'}\nnodes: {n: {use: exact/right, in: {x: inputs.x}}}\noutputs: {y: n}"
    assert plan(checked(graph_of(text, registry=registry)), count_built=count_parameters).nodes["n"].parameters.how == "built"
    with pytest.raises(GraphError) as caught:
        plan(checked(graph_of(text.replace("right", "wrong"), registry=registry)), count_built=count_parameters)
    assert str(caught.value).splitlines() == [
        "graph.yaml:3  parameter-mismatch  n (exact/wrong) has 1,234 parameters by its formula, but 0 when it is built",
        "    this is a defect of the plugin 'exact': its parameters() and its module disagree",
    ]


def keys(text, **options):
    return {name: step.key for name, step in plan(checked(graph_of(text)), asked=options).nodes.items()}


def test_a_key_changes_with_what_the_result_depends_on_and_with_nothing_else():
    """A new prompt template changes the tongue and what follows it, not the eye."""
    before = keys(TEXT)
    assert len(set(before.values())) == 5
    assert all(before.values())
    after = keys(TEXT.replace("{image}{text}", "{image} {text}"))
    assert {name for name in before if before[name] != after[name]} == {"llm", "tidy"}
    wider = keys(TEXT.replace("hidden_size: 6", "hidden_size: 7"))
    assert {name for name in before if before[name] != wider[name]} == {"vision", "project", "llm", "tidy"}
    rewired = keys(TEXT.replace("{left: llm, right: inputs.text}", "{left: inputs.text, right: llm}"))
    assert {name for name in before if before[name] != rewired[name]} == {"tidy"}
    assert set(keys(TEXT, dtype="float16").values()).isdisjoint(before.values())
    assert set(keys(TEXT, backend="onnx").values()).isdisjoint(before.values())
    assert keys(TEXT, device="cpu") == before


def test_a_step_names_the_inputs_that_its_result_depends_on():
    """So that a changed prompt does not run the eye again."""
    assert {name: step.reads for name, step in plan(SOLVED).nodes.items()} == {
        "pixels": ("image",),
        "vision": ("image",),
        "project": ("image",),
        "llm": ("image", "text"),
        "tidy": ("image", "text"),
    }


def test_nodes_whose_weights_are_made_up_differ_from_each_other():
    """Random numbers differ from node to node, so equal configs do not mean equal results."""
    text = """
modelgraft: 1
inputs: {x: "float[batch n 5]"}
nodes:
  one: {use: toy/linear, with: {out_features: 3}, in: {x: inputs.x}}
  two: {use: toy/linear, with: {out_features: 3}, in: {x: inputs.x}}
  same: {use: toy/linear, in: {x: inputs.x}, share: one}
  norm: {use: toy/norm, in: {x: inputs.x}}
  again: {use: toy/norm, in: {x: inputs.x}}
outputs: {a: one, b: two, c: same, d: norm, e: again}
"""
    found = keys(text)
    assert found["one"] == found["same"] != found["two"]
    assert found["norm"] == found["again"]


def test_an_identity_that_cannot_be_told_makes_every_key_after_it_unknown(monkeypatch):
    """No key is better than a wrong one."""

    class Mute:
        has_weights = False

        def identity(self):
            raise OSError("gone")

    vision = replace(SOLVED.nodes["vision"], source=Mute())
    planned = plan(replace(SOLVED, nodes={**SOLVED.nodes, "vision": vision}))
    assert {name for name, step in planned.nodes.items() if not step.key} == {"vision", "project", "llm", "tidy"}


@given(st.permutations(sorted(SOLVED.nodes)))
def test_a_plan_does_not_depend_on_the_order_of_nodes(names):
    """The same nodes in another order give the same steps."""
    graph = replace(SOLVED.graph, nodes={name: SOLVED.graph.nodes[name] for name in names})
    assert plan(checked(graph)).steps == plan(SOLVED).steps


def test_a_route_is_waited_for_and_kept_until_it_is_read():
    """`when` orders steps like a wire."""
    text = """
modelgraft: 1
inputs: {text: text}
nodes:
  a: {use: toy/join, in: {left: inputs.text}, when: z.yes}
  z: {use: toy/asks, in: {text: inputs.text}}
outputs: {y: a}
"""
    planned = plan(checked(graph_of(text)))
    assert [step.node.name for step in planned.steps] == ["z", "a"]
    assert releases(planned)["a"] == ["inputs.text", "z.yes"]
    assert assemble({"toys": plugin(*EVERY)}).find("toy/asks") is not None
