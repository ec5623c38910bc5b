"""What `run` would refuse, and files and configs tell before, `check` refuses or warns of."""

from __future__ import annotations

import inspect
import json
from types import ModuleType

import pytest
from PIL import Image

import modelgraft as mg
from modelgraft import GraphError, SourceError
from modelgraft.engine.intake import inlet_of, read
from modelgraft.engine.pipeline import Pipeline
from modelgraft.installed.discovery import assemble, discover
from modelgraft.kernel.language.document import RESERVED_NAMES
from modelgraft.records.shipped import SHIPPED
from modelgraft.tools.checked import checked
from support.checkable import EVERY, graph_of, plugin, with_presets
from support.command import commands
from support.expanding import load, problem


def told(text, **options):
    with pytest.raises(GraphError) as caught:
        checked(graph_of(text, **options))
    return caught.value.problems


@pytest.mark.parametrize("name", ["seed", "outputs"])
def test_no_input_is_called_as_an_argument_of_a_run(tmp_path, name):
    """It could not be given: `pipeline.run(seed=...)` is the seed of the run."""
    found = problem(tmp_path, f"inputs: {{{name}: text}}\nnodes: {{a: {{use: t/a, in: {{x: inputs.{name}}}}}}}\noutputs: {{y: a}}\n")
    assert (found.code, found.place.line) == ("bad-name", 2)
    assert found.found.startswith(f"no input may be called '{name}': beside the inputs, that word stands for ")


@pytest.mark.parametrize("call", [Pipeline.run, Pipeline.stream])
def test_every_argument_of_a_run_is_reserved(call):
    """A new one needs its word in the table."""
    parameters = inspect.signature(call).parameters.values()
    assert {one.name for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)} == set(RESERVED_NAMES["input"])


@pytest.mark.parametrize("name", ["error", "absent"])
def test_no_output_is_called_as_what_stands_beside_the_outputs_of_a_record(tmp_path, name):
    found = problem(tmp_path, f"nodes: {{a: {{use: t/a}}}}\noutputs: {{{name}: a}}\n")
    assert (found.code, found.hint) == ("bad-name", "give it another name")


DEFAULTS = [
    ("float[batch]", "[0.5, 1]"), ("float[batch 2]", "[[1, 2], [3, 4]]"), ("float[batch ... 2]", "[[[1.0, 2.0]]]"), ("int64[batch]", "[1]"),
    ("mask[batch]", "[true, false]"), ("list[text]", "[a, b]"), ("text | float[batch]", "hm"),
    ("conversation", "[{role: user, content: Hello}]"),
    ("conversation", "Hello"), ("list[list[text]]", "[[[a], []]]"),
    ("list[text]", "[[a], [b, c]]"), ("label", "cat"),
    ("optional[image]", "~"),
]  # fmt: skip
NO_DEFAULTS = [
    ("float[batch]", "0.5", "float[batch]: lists 1 deep"),
    ("float[batch 2]", "[[1, 2], [3]]", "float[batch 2]: lists of one length on each level"),
    ("float[batch 2]", "[[1, 2, 3]]", "float[batch 2]: 2 entries where it says so"),
    ("float[batch ... 2]", "[1.0]", "float[batch ... 2]: lists 2 deep"),
    ("float[batch]", "[a]", "float[batch]: numbers, in lists of lists"),
    ("float[batch]", "[true]", "float[batch]: numbers"),
    ("float[batch]", "[]", "float[batch]: at least one record"),
    ("int64[batch]", "[1.5]", "int64[batch]: whole numbers"),
    ("mask[batch]", "[1]", "mask[batch]: true or false"),
    ("list[text]", "[a, 3]", "a list of texts"),
    ("list[image]", "[a.png]", "none: a value of type list[image] is given to the run"),
    ("conversation", "[{role: user}]", "a text, or a list of messages, each with role and content"),
    ("conversation", "3", "a text, or a list of messages, each with role and content"),
    ("text", "~", "a text"),
    ("text | float[batch]", "[1.5]", "a text"),
    ("list[list[text]]", "[[a], []]", "a list of values of type list[text]"),
]


@pytest.mark.parametrize(("type_", "default"), DEFAULTS)
def test_a_default_that_a_run_takes_is_taken_by_the_check(tmp_path, type_, default):
    """The two agree: what the check lets pass is read without an error."""
    text = f"inputs: {{x: {{type: '{type_}', default: {default}}}}}\nnodes: {{a: {{use: t/a, in: {{x: inputs.x}}}}}}\noutputs: {{y: a}}\n"
    given = load(tmp_path, text).inputs["x"]
    assert given.default is None or read(inlet_of(given, SHIPPED), {}).value is not None


@pytest.mark.parametrize(("type_", "default", "wanted"), NO_DEFAULTS)
def test_a_default_that_no_run_takes_is_told_by_the_check(tmp_path, type_, default, wanted):
    text = f"inputs: {{x: {{type: '{type_}', default: {default}}}}}\nnodes: {{a: {{use: t/a, in: {{x: inputs.x}}}}}}\noutputs: {{y: a}}\n"
    found = problem(tmp_path, text)
    assert (found.code, found.found.partition("; wanted ")[2]) == ("wrong-type", wanted)


PLACED = """
modelgraft: 1
inputs: {x: "float[batch n 5]"}
nodes:
  a: {use: projector/linear, with: {out_features: 3}, in: {x: inputs.x}, runtime: {%s}}
outputs: {y: a}
runtime: {%s}
"""


DEVICES = "wanted: auto, cpu, cuda or cuda:1"
OTHERWISE = "write auto to let it choose"
NEAR = "Did you mean 'onnx'?"


@pytest.mark.parametrize(
    ("node", "whole", "found"),
    [
        ("device: gpu", "", ("unknown-device", f"a.runtime.device is 'gpu'; {DEVICES}", "write cuda", 4)),
        ("", "device: GPU:0", ("unknown-device", f"runtime.device is 'GPU:0'; {DEVICES}", "write cuda", 6)),
        ("device: 'cuda:x'", "", ("unknown-device", f"a.runtime.device is 'cuda:x'; {DEVICES}", OTHERWISE, 4)),
        ("", "device: {a: tpu}", ("unknown-device", f"a.runtime.device is 'tpu'; {DEVICES}", OTHERWISE, 6)),
        (
            "backend: onxx",
            "",
            (
                "unknown-backend",
                "a.runtime.backend is 'onxx', which no plugin offers; there is: auto, compile, llamacpp, onnx, torch",
                "Did you mean 'onnx'?",
                4,
            ),
        ),
    ],
)
def test_places_that_are_on_no_machine_are_told(node, whole, found):
    (only,) = told(PLACED % (node, whole), registry=discover())
    assert (only.code, only.found, only.hint, only.place.line) == found


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "'cuda:3'"])
def test_places_that_another_machine_may_have_are_right(device):
    assert checked(graph_of(PLACED % (f"device: {device}", "backend: torch"), registry=discover())).warnings == ()


def test_the_devices_of_another_backend_are_its_own():
    @mg.hookimpl
    def register_backends(register):
        register("farm", "nowhere:Farm")

    farm = ModuleType("farm")
    farm.register_backends = register_backends
    registry = assemble({"farm": farm, "projectors": __import__("modelgraft_plugins.projectors", fromlist=["x"])})
    assert checked(graph_of(PLACED % ("backend: farm, device: 'rack:7'", ""), registry=registry))
    assert told(PLACED % ("device: 'rack:7'", ""), registry=registry)[0].code == "unknown-device"


@pytest.mark.parametrize(
    ("node", "whole", "found", "hint"),
    [
        (
            "",
            "precision: int8",
            "a: the torch backend has no precision 'int8'; it has ",
            'run it with backend="onnx", or write another precision',
        ),
        ("backend: onnx, dtype: bfloat16", "", "a: the onnx backend has no dtype 'bfloat16'; it has ", 'run it with backend="torch", '),
    ],
)
def test_what_an_option_of_the_run_can_change_is_a_warning(node, whole, found, hint):
    """The graph may be run with another backend."""
    (only,) = checked(graph_of(PLACED % (node, whole), registry=discover())).warnings
    assert only.found.startswith(found)
    assert only.hint.startswith(hint)


def test_what_cannot_be_exported_is_a_warning_where_the_graph_asks_for_exports(tmp_path):
    text = """
    modelgraft: 1
    inputs: {x: "float[batch n 5]"}
    nodes: {a: {use: toy/linear, with: {out_features: 3}, in: {x: inputs.x}, runtime: {backend: exports}}}
    outputs: {y: a}
    """

    @mg.hookimpl
    def register_backends(register):
        register("exports", "nowhere:Exports", fuses=True)

    exports = ModuleType("exports")
    exports.register_backends = register_backends
    (only,) = checked(graph_of(text, registry=assemble({"toys": plugin(*EVERY), "exports": exports}))).warnings
    assert only.found == "a: toy/linear cannot be exported, and exports runs exports alone"
    assert only.hint == 'write runtime: {backend: torch} at a, or let it stay there with a warning: fallback="torch"'


# -- weights --------------------------------------------------------------------------------------------------------------

EYE = """
modelgraft: 1
inputs: {image: image}
nodes:
  pixels: {use: toy/pixels, from: preset:eye, in: {image: inputs.image}}
  eye:
    use: toy/eye
    from: %s
    in: {pixels: pixels}
outputs: {y: eye.pooled}
"""


def test_a_source_that_never_has_weights_is_a_warning_with_its_line(tmp_path):
    """Once for the node that needs them; code that reads files by itself needs none."""
    registry = with_presets(tmp_path, eye={"hidden_size": 24})
    (only,) = checked(graph_of(EYE % "preset:eye", registry=registry)).warnings
    assert (only.code, only.node, only.place.line) == ("no-weights", "eye", 7)
    assert only.found == "eye: the weights of 'preset:eye' are not on this machine: only its published config is known"
    assert only.hint == 'name a checkpoint, or ask for random ones: init="random"'


def test_a_folder_without_weights_is_one_too_and_a_hub_id_is_none(tmp_path):
    """What the hub has is fetched when the graph is opened."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text(json.dumps({"hidden_size": 24}))
    (tmp_path / "g.yaml").write_text(EYE.replace("preset:eye", "./folder", 1) % "./folder")
    registry = with_presets(tmp_path, eye={})
    (only,) = mg.check(mg.load(tmp_path / "g.yaml", registry=registry)).warnings
    assert only.found.startswith(f"eye: {tmp_path / 'folder'} has no file of weights (model.safetensors")
    (tmp_path / "folder" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert mg.check(mg.load(tmp_path / "g.yaml", registry=registry)).warnings == ()


VIT = """modelgraft: 1
inputs: {image: image}
nodes:
  pixels: {use: vision/preprocess, from: google/vit-base-patch16-224, in: {image: inputs.image}}
  first: {use: vision/encoder, from: google/vit-base-patch16-224#vit, in: {pixels: pixels}, runtime: {timeout_s: 1}}
  second: {use: vision/encoder, from: ./empty, in: {pixels: pixels}}
outputs: {first: first.pooled, second: second.pooled}
"""


def test_weights_that_will_not_come_are_told_before_anything_is_loaded(tmp_path, monkeypatch):
    """With node and line, all of them, and not one node was loaded by then."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    registry = discover()
    recorded = registry.recorded_configs["google/vit-base-patch16-224"]
    (tmp_path / "empty").mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / "empty" / name).write_text((recorded / name).read_text())
    (tmp_path / "g.yaml").write_text(VIT)
    with mg.open(tmp_path / "g.yaml", offline=True) as pipeline:
        heard = []
        with pytest.raises(SourceError) as caught:
            heard.extend(event.kind for event in pipeline.stream(image=Image.new("RGB", (32, 32))))
    assert not {"node-loading", "node-loaded", "node-started"} & set(heard)
    assert [(p.code, p.node, p.place.line) for p in caught.value.problems] == [("no-weights", "first", 5), ("no-weights", "second", 6)]


def test_check_and_plan_print_the_warning_and_succeed(monkeypatch, tmp_path, capsys):
    run = commands(monkeypatch, tmp_path, capsys)
    registry = with_presets(tmp_path, eye={"hidden_size": 24})
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda **_: registry)
    (tmp_path / "g.yaml").write_text(EYE.lstrip() % "preset:eye")
    for command in ("check", "plan"):
        code, _, err = run(command, "g.yaml")
        assert code == 0
        assert "warning: g.yaml:7  no-weights  eye: the weights of 'preset:eye' are not on this machine" in err
        assert "ask for random ones: --init random" in err
    code, out, _ = run("check", "g.yaml", "--json")
    (graph,) = json.loads(out)["graphs"]
    assert (code, graph["ok"], [(w["code"], w["line"], w["node"]) for w in graph["warnings"]]) == (0, True, [("no-weights", 7, "eye")])


# -- the rest -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, True, 1.5])
def test_a_seed_is_a_whole_number_of_64_bits(tmp_path, seed):
    """Of a pipeline and of a run; others would be told as a defect of whatever draws numbers."""
    (tmp_path / "g.yaml").write_text(
        "modelgraft: 1\ninputs: {x: text}\nnodes: {a: {use: text/template, with: {template: '{x}'}, in: {x: inputs.x}}}\noutputs: {y: a}\n"
    )
    with pytest.raises(mg.InputError, match=r"^seed is .*; wanted: a whole number, from -2\*\*63 up to 2\*\*63 - 1$"):
        mg.open(tmp_path / "g.yaml", seed=seed)
    with mg.open(tmp_path / "g.yaml", seed=2**63 - 1) as pipeline:
        assert pipeline.run(x="a", seed=-(2**63))["y"] == "a"
        with pytest.raises(mg.InputError, match=r"^seed is "):
            pipeline.run(x="a", seed=seed)


def test_a_plan_for_a_device_that_is_none_is_refused():
    with pytest.raises(mg.InputError, match=r"^device is 'gpu'; wanted: auto, cpu, cuda or cuda:1$"):
        mg.plan(graph_of(PLACED % ("", ""), registry=discover()), device="gpu")


TOKENS = """
modelgraft: 1
inputs: {x: text}
nodes: {ids: {use: text/tokenizer%s, in: {text: inputs.x}}}
outputs: {y: ids.ids}
"""


def test_a_tokenizer_without_files_is_told(tmp_path):
    """Where nothing is named, and where a folder of the user has none."""
    (first,) = told(TOKENS % "", registry=discover())
    assert (first.code, first.found) == ("no-tokenizer", "ids has no `from`, so there is no tokenizer to cut texts with")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "clip_text_model"}')
    (tmp_path / "g.yaml").write_text(TOKENS.lstrip() % ", from: ./m")
    with pytest.raises(GraphError, match=r"g\.yaml:3  no-tokenizer  ids: .*m has no file of a tokenizer"):
        mg.check(tmp_path / "g.yaml")
    (tmp_path / "m" / "vocab.txt").write_text("a")
    assert mg.check(tmp_path / "g.yaml")
    (tmp_path / "g.yaml").write_text(TOKENS.lstrip() % ', from: "preset:clip-vit-b-32"')
    with (
        mg.open(tmp_path / "g.yaml", init="random") as pipeline,
        pytest.raises(SourceError, match=r"ids: preset:clip-vit-b-32 has no files.*\n.*name a"),
    ):
        pipeline.run(x="hello")


SHARING = """
modelgraft: 1
inputs: {x: "float[batch n 5]"}
nodes:
  a: {use: projector/linear, with: {out_features: 3}, in: {x: inputs.x}}
  b: {use: projector/linear, share: a, in: {x: inputs.x}%s}
outputs: {y: a, z: b}
"""


def test_weights_are_shared_by_nodes_that_have_the_same_ones():
    """Another shape, and a source of its own, are told; a way to use them is not."""
    assert checked(graph_of(SHARING % "", registry=discover()))
    (shape,) = told(SHARING % ", with: {bias: false}", registry=discover())
    assert (shape.code, shape.found) == ("share-mismatch", "b has 15 parameters under its config, and a, whose weights it shares, has 18")
    assert shape.hint.endswith("bias is False here and True there")
    (source,) = told(SHARING % ", from: org/other#part", registry=discover())[:1]
    assert source.found == "b is from org/other#part and shares the weights of a, which are new: only one of the two can count"
