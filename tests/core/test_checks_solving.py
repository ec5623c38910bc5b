"""How dimensions are solved, configs validated, and that nothing depends on the order of declaration."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelgraft import Config, Dim, GraphError, Ports, component
from modelgraft.installed.discovery import assemble
from modelgraft.tools.checked import checked
from support.checkable import CAPTION, EVERY, NOWHERE, OPT, graph_of, one, plugin, told, with_presets


@pytest.mark.parametrize(
    ("use", "given", "wanted"),
    [
        ("toy/shuffle", "float[batch 256 7]", "float[batch 64 28]"),
        ("toy/shuffle", "float[batch n 7]", "float[batch groups 28]"),
        ("toy/longer", "float[batch 256 7]", "float[batch 257 7]"),
        ("toy/norm", "float[batch 2 3 5 7]", "float[batch 2 3 5 7]"),
        ("toy/norm", "float[... 7]", "float[... 7]"),
        ("toy/norm", "float[batch ... 7]", "float[batch ... 7]"),
        ("toy/mean", "float[batch ... 7]", "float[batch 7]"),
    ],
)
def test_sums_multiples_and_any_number_of_axes_are_solved(use, given, wanted):
    """From what goes in, what comes out."""
    assert str(checked(graph_of(one(use, "x", given))).nodes["node"].out_ports["y"]) == wanted


@pytest.mark.parametrize(
    ("use", "given", "sentence"),
    [
        ("toy/shuffle", "float[batch 7 5]", "7 stands in the type of inputs.x, line 2; node.x takes a multiple of 4"),
        ("toy/mean", "float[batch 5]", "inputs.x gives float[batch 5], but node.x takes float[batch n w]: 2 axes where 3 are wanted"),
        ("toy/mean", "float[batch ... 5 6 7]", "4 or more axes where 3 are wanted"),
        ("toy/mean", "int64[batch 2 5]", "dtype-mismatch  inputs.x gives int64[batch 2 5], but node.x takes float[batch 2 5]"),
    ],
)
def test_axes_that_cannot_be_made_equal(use, given, sentence):
    """Sizes, numbers of axes, dtypes."""
    assert sentence in told(one(use, "x", given))[0]


def test_half_precision_fits_a_float_port():
    """The families meet."""
    assert str(checked(graph_of(one("toy/mean", "x", "float16[batch 2 5]"))).nodes["node"].out_ports["y"]) == "float[batch 5]"


def test_a_dimension_that_nobody_decides_says_what_to_set():
    """One side of a projector is open."""
    assert told(one("toy/linear", "x", "float[batch 2 5]")) == [
        "graph.yaml:4  unsolved-dim  node.out_features (toy/linear) is not known: nothing that is wired to node.y says it",
        "    write with: {out_features: NUMBER} at node, or wire it to a port that knows its size",
    ]


def test_batch_is_one_symbol_of_the_whole_graph_and_other_names_are_local():
    """Two inputs of different length, one batch."""
    text = """
modelgraft: 1
inputs: {x: "float[4 n 5]", y: "float[batch n w]"}
nodes:
  one: {use: toy/mean, in: {x: inputs.x}}
  two: {use: toy/longer, in: {x: inputs.y}}
outputs: {x: one, y: two}
"""
    solved = checked(graph_of(text))
    assert str(solved.nodes["two"].out_ports["y"]) == "float[4 n+1 w]"
    assert str(solved.inputs["y"].port) == "float[4 n w]"


def test_a_route_of_another_length_than_the_batch_is_told():
    """A mask tells of every record."""
    text = """
modelgraft: 1
inputs: {x: "float[4 n 5]", m: "bool[3]"}
nodes:
  node: {use: toy/mean, in: {x: inputs.x}, when: inputs.m}
outputs: {x: node}
"""
    assert told(text) == [
        "graph.yaml:4  dim-mismatch  inputs.m gives bool[3], but node.when takes mask[4]: "
        "3 stands in the type of inputs.m, line 2; 4 stands in the type of inputs.x, line 2"
    ]


def test_inputs_of_a_graph_get_the_sizes_that_their_takers_want():
    """So a tensor given by the user can be checked at the edge."""
    text = (
        "modelgraft: 1\ninputs: {x: 'float[batch c h w]'}\nnodes: {eye: {use: toy/eye, in: {pixels: inputs.x}}}\noutputs: {y: eye.pooled}"
    )
    assert str(checked(graph_of(text)).inputs["x"].port) == "float[batch 3 224 224]"


@pytest.mark.parametrize(("given", "chosen"), [("text", "text"), ("float[batch 3 2560]", "float[batch 3 2560]")])
def test_a_port_with_alternatives_takes_the_type_of_its_source(given, chosen):
    """The solved port shows the one that was chosen."""
    assert str(checked(graph_of(one("toy/tongue", "p", given, rest=', with: {prompt: "{p}"}'))).nodes["node"].in_ports["p"]) == chosen


@component("grow/double", kind="encoder", module=NOWHERE)
class Double(Config):
    """Twice as wide, and one more port where it is wide."""

    width: Dim = None

    @property
    def twice(self):
        return None if self.width is None else 2 * self.width

    def ports(self):
        outputs = {"y": "float[batch twice]"}
        return Ports.of({"x": "float[batch width]"}, outputs if (self.width or 0) < 100 else {**outputs, "wide": "float[batch width]"})


GROWING = assemble({"grow": plugin(Double), "toys": plugin(*EVERY)})


def test_properties_of_solved_configs_decide_more():
    """A chain in which each width follows from the one before, declared backwards; ports may change on the way."""
    nodes = "\n".join(f"  n{i}: {{use: grow/double, in: {{x: {f'n{i - 1}.y' if i else 'inputs.x'}}}}}" for i in reversed(range(8)))
    text = f"modelgraft: 1\ninputs: {{x: 'float[batch 3]'}}\nnodes:\n{nodes}\noutputs: {{y: n7.y, z: n7.y}}\n"
    solved = checked(graph_of(text, registry=GROWING))
    assert [solved.nodes[f"n{i}"].config.width for i in range(8)] == [3 * 2**i for i in range(8)]
    assert str(solved.nodes["n7"].out_ports["y"]) == "float[batch 768]"
    assert list(solved.nodes["n7"].out_ports) == ["y", "wide"]


def test_a_port_that_vanishes_when_its_config_is_filled_is_told():
    """Below a width of 100 there is no output `wide`; that is known once the width is."""
    text = "modelgraft: 1\ninputs: {x: 'float[batch 3]'}\nnodes: {a: {use: grow/shy, in: {x: inputs.x}}}\noutputs: {y: a.wide}\n"

    @component("grow/shy", kind="encoder", module=NOWHERE)
    class Shy(Config):
        """Wide until its width is known to be small."""

        width: Dim = None

        def ports(self):
            outputs = {"y": "float[batch width]", "wide": "float[batch width]"}
            if self.width is not None and self.width < 100:
                del outputs["wide"]
            return Ports.of({"x": "float[batch width]"}, outputs)

    assert told(text, registry=assemble({"grow": plugin(Shy)})) == ["graph.yaml:4  unknown-port  a has no output 'wide'; it has: y."]


def test_a_property_that_contradicts_the_wires_after_solving_is_told():
    """The width is 3, so its double cannot be 7."""
    nodes = "  a: {use: grow/double, in: {x: inputs.x}}\n  b: {use: grow/double, with: {width: 7}, in: {x: a}}"
    text = f"modelgraft: 1\ninputs: {{x: 'float[batch 3]'}}\nnodes:\n{nodes}\noutputs: {{y: b.y}}\n"
    assert told(text, registry=GROWING) == [
        "graph.yaml:4  dim-mismatch  a.twice is 6, which follows from width 3, solved: inputs.x makes it 3, "
        "but its wires make it another number: 7 is b.width, line 5"
    ]


def test_solved_values_are_validated_like_written_ones():
    """A component may refuse a width; the message says that it was solved, and from what."""

    @component("grow/even", kind="encoder", module=NOWHERE, inputs={"x": "float[batch width]"}, outputs={"y": "float[batch width]"})
    class Even(Config):
        """Only even widths."""

        width: Dim = None

        def model_post_init(self, context):
            if self.width is not None and self.width % 2:
                raise ValueError(f"a width of {self.width} cannot be split in two")

    found = told(one("grow/even", "x", "float[batch 7]"), registry=assemble({"grow": plugin(Even)}))
    assert found == [
        "graph.yaml:4  wrong-value  the config of node (grow/even) does not hold together: a width of 7 cannot be split in two"
    ]


def test_shared_weights_must_agree_in_their_dimensions():
    """The second use is as wide as the first."""
    text = """
modelgraft: 1
inputs: {x: "float[batch n 5]", y: "float[batch n 7]"}
nodes:
  owner: {use: toy/linear, with: {out_features: 3}, in: {x: inputs.x}}
  again: {use: toy/linear, in: {x: inputs.y}, share: owner}
outputs: {a: owner, b: again}
"""
    [first, *_] = told(text)
    assert "dim-mismatch" in first
    assert "5 stands in the type of inputs.x, line 2" in first
    assert "7 stands in the type of inputs.y, line 2" in first


def test_a_component_whose_code_fails_is_a_problem_of_its_plugin():
    """Ports, properties and reviews may raise anything."""

    @component("bad/ports", kind="encoder", module=NOWHERE)
    class BadPorts(Config):
        """No ports."""

        def ports(self):
            raise KeyError("oops")

    @component("bad/review", kind="encoder", module=NOWHERE, inputs={"x": "float[batch n]"}, outputs={"y": "float[batch n]"})
    class BadReview(Config):
        """No review."""

        def review(self, node):
            raise TypeError("oops")

    registry = assemble({"bad": plugin(BadPorts, BadReview)})
    assert told(one("bad/ports", "x", "float[batch n]"), registry=registry)[0] == (
        "graph.yaml:4  component-failed  plugin 'bad': bad/ports could not tell the ports of node: KeyError: 'oops'"
    )
    assert "bad/review could not review node: TypeError: oops" in told(one("bad/review", "x", "float[batch n]"), registry=registry)[0]


def test_wrong_values_and_missing_keys_are_told_at_their_lines():
    """In the words of the config model, one for each key."""

    @component("strict/node", kind="preprocess", inputs={"x": "text"}, outputs={"y": "text"})
    def strict(x, *, size: int, shape: tuple[int, int] = (1, 2)):
        """Take a size."""

    text = """
modelgraft: 1
inputs: {x: text}
nodes:
  node:
    use: strict/node
    with:
      shape: [1, two]
    in: {x: inputs.x}
outputs: {y: node}
"""
    assert told(text, registry=assemble({"strict": plugin(strict)})) == [
        "graph.yaml:4  missing-key  node (strict/node) needs the config key 'size'",
        "    write with: {size: ...}",
        "graph.yaml:7  wrong-value  node.shape.1 is 'two': input should be a valid integer, unable to parse string as an integer",
    ]


def test_kinds_of_values_have_the_names_of_documents():
    """Who writes a number where a mapping belongs is told so, and not of dictionaries and tuples of Python."""

    @component("strict/sized", kind="preprocess", inputs={"x": "text"}, outputs={"y": "text"})
    def sized(x, *, size: dict[str, int], shape: tuple[int, ...]):
        """Take sizes."""

    text = one("strict/sized", "x", "text", rest=", with: {size: 224, shape: 7}").replace("y: node", "y: node.y")
    assert [line.partition("wrong-value  ")[2] for line in told(text, registry=assemble({"strict": plugin(sized)}))] == [
        "node.size is 224: input should be a mapping, such as {name: value}",
        "node.shape is 7: input should be a list",
    ]


def test_a_misspelt_key_names_the_nearest_one():
    """After all that there are, in the order of the config."""
    assert told(one("toy/eye", "pixels", "float[batch c h w]", rest=", with: {hidden_sise: 8}").replace("y: node", "y: node.pooled")) == [
        "graph.yaml:4  unknown-key  node (toy/eye) has no config key 'hidden_sise'; it has: hidden_size, image_size, patch_size, "
        "has_class, drop_first, image_mean, image_std. Did you mean 'hidden_size'?"
    ]


def test_source_file_and_user_go_over_each_other(tmp_path):
    """default < source < file < --set, each with its origin."""
    text = CAPTION.replace("    in: {pixels: pixels}", "    with: {patch_size: 16}\n    in: {pixels: pixels}")
    registry = with_presets(tmp_path, **{"eva-clip-g": {"hidden_size": 1408, "patch_size": 32}, "opt": OPT})
    vision = checked(graph_of(text, registry=registry, params={"nodes.vision.with.hidden_size": 5})).nodes["vision"]
    assert (vision.config.hidden_size, vision.config.patch_size, vision.config.image_size) == (5, 16, 224)
    assert {name: vision.origins[name].layer for name in ("hidden_size", "patch_size", "image_size")} == {
        "hidden_size": "set",
        "patch_size": "file",
        "image_size": "default",
    }


def test_nodes_that_are_configured_alike_ask_for_their_ports_once():
    """So a thousand equal nodes cost little."""
    asked = []

    @component("count/ports", kind="preprocess", load=NOWHERE)
    class Counted(Config):
        """Count the questions."""

        size: int = 3

        def ports(self):
            asked.append(self.size)
            return Ports.of({"x": "float[batch n]"}, {"y": "float[batch n]"})

    nodes = "\n".join(
        f"  n{i}: {{use: count/ports, with: {{size: {i % 2}}}, in: {{x: {f'n{i - 1}' if i else 'inputs.x'}}}}}" for i in range(50)
    )
    text = f"modelgraft: 1\ninputs: {{x: 'float[batch 3]'}}\nnodes:\n{nodes}\noutputs: {{y: n49}}\n"
    checked(graph_of(text, registry=assemble({"count": plugin(Counted)})))
    assert sorted(asked) == [0, 1]


WHOLE = graph_of("""
modelgraft: 1
inputs: {image: image, text: text, labels: "list[text]"}
nodes:
  pixels: {use: toy/pixels, in: {image: inputs.image}}
  eye: {use: toy/eye, in: {pixels: pixels}}
  same: {use: toy/norm, in: {x: eye.tokens}}
  bridge: {use: toy/bridge, in: {media: same}}
  one: {use: toy/linear, in: {x: bridge.tokens}}
  two: {use: toy/linear, in: {x: one}, with: {in_features: 11}}
  llm: {use: toy/tongue, with: {prompt: "{image}{text}"}, in: {image: two, text: inputs.text}}
  asks: {use: toy/asks, in: {text: llm}}
  end: {use: toy/join, in: {left: llm, right: inputs.text}, when: asks.yes}
  rank: {use: toy/rank, in: {image: inputs.image, labels: inputs.labels}}
outputs: {text: end, label: rank}
""")


@given(st.permutations(sorted(WHOLE.nodes)), st.permutations(sorted(WHOLE.inputs)))
def test_nothing_depends_on_the_order_of_declaration(nodes, inputs):
    """The same nodes and inputs in another order give the same solved graph."""
    shuffled = replace(WHOLE, nodes={name: WHOLE.nodes[name] for name in nodes}, inputs={name: WHOLE.inputs[name] for name in inputs})
    expected, found = checked(WHOLE), checked(shuffled)
    assert list(found.nodes.items()) == list(expected.nodes.items())
    assert list(found.inputs.items()) == list(expected.inputs.items())


@given(st.permutations(sorted(WHOLE.nodes)))
def test_messages_do_not_depend_on_the_order_of_declaration(names):
    """A graph with two mistakes says the same whatever the order."""
    wrong = dict(WHOLE.nodes)
    wrong["eye"] = replace(wrong["eye"], config={"image_size": replace(wrong["two"].config["in_features"], value=100)})
    wrong["llm"] = replace(
        wrong["llm"], config={**wrong["llm"].config, "hidden_size": replace(wrong["two"].config["in_features"], value=3)}
    )
    wrong["one"] = replace(wrong["one"], config={"out_features": replace(wrong["two"].config["in_features"], value=13)})
    messages = []
    for order in (sorted(wrong), names):
        with pytest.raises(GraphError) as caught:
            checked(replace(WHOLE, nodes={name: wrong[name] for name in order}))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_checking_and_planning_import_nothing_heavy():
    """Neither torch nor numpy is loaded."""
    code = """
import sys
import modelgraft.kernel.checking.checks, modelgraft.kernel.planning.planner
print([name for name in ("torch", "transformers", "numpy", "onnxruntime", "PIL", "networkx") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
