"""Names, wires and what is left over: each mistake with its place, what there is, and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelgraft import GraphError, component
from modelgraft.installed.discovery import assemble
from modelgraft.kernel.language.expand import load_graph
from modelgraft.kernel.words.order import find_cycles, topological
from modelgraft.tools.checked import checked
from support.checkable import EVERY, REGISTRY, Gate, graph_of, join, plugin, with_presets


def told(text, **options):
    """What the checker says about a graph, one text."""
    with pytest.raises(GraphError) as caught:
        checked(graph_of(text, **options))
    return str(caught.value)


def joined(nodes, *, outputs="{text: end.text}", inputs="{text: text}"):
    return f"modelgraft: 1\ninputs: {inputs}\nnodes:\n{nodes}\noutputs: {outputs}\n"


def test_a_misspelt_port_names_the_nearest_one():
    """The output that was meant is named after all that there are, in their order."""
    found = told(
        joined(
            """
  pixels: {use: toy/pixels, in: {image: inputs.image}}
  eye: {use: toy/eye, in: {pixels: pixels}}
  bridge: {use: toy/bridge, in: {media: eye.tokens}}
  end: {use: toy/linear, with: {out_features: 3}, in: {x: bridge.tokes}}""",
            inputs="{image: image}",
            outputs="{y: end}",
        )
    )
    assert found == "graph.yaml:8  unknown-port  bridge has no output 'tokes'; it has: tokens, mask. Did you mean 'tokens'?"


def test_a_misspelt_input_port_names_the_nearest_one():
    """The port that was meant is not told as missing on top of it."""
    found = told(joined("  end: {use: toy/join, in: {lefft: inputs.text}}"))
    assert found == "graph.yaml:4  unknown-port  end has no input 'lefft'; it has: left, right. Did you mean 'left'?"


def test_a_misspelt_node_names_the_nearest_one():
    """And the node that was meant does not count as unused."""
    found = told(joined("  start: {use: toy/join, in: {left: inputs.text}}\n  end: {use: toy/join, in: {left: strat}}"))
    assert found == "graph.yaml:5  unknown-node  end: there is no node 'strat'; there are: end, start. Did you mean 'start'?"


def test_an_input_named_without_inputs_says_how_to_write_it():
    """`image` alone is a node; inputs stand behind `inputs.`."""
    found = told(joined("  end: {use: toy/join, in: {left: text}}"))
    assert found == "graph.yaml:4  unknown-node  end: there is no node 'text', but an input of that name: write inputs.text"


def test_a_misspelt_input_of_the_graph_names_the_nearest_one():
    """The input that was meant does not count as unread."""
    found = told(joined("  end: {use: toy/join, in: {left: inputs.txt}}"))
    assert found == "graph.yaml:4  unknown-input  end: the graph has no input 'txt'; it has: text. Did you mean 'text'?"


def test_a_misspelt_output_of_a_node_in_outputs_is_told_at_its_line():
    """`outputs` are wires too."""
    found = told(joined("  end: {use: toy/join, in: {left: inputs.text}}", outputs="{text: end.txt}"))
    assert found == "graph.yaml:5  unknown-port  end has no output 'txt'; it has: text. Did you mean 'text'?"


def test_a_bare_node_with_several_outputs_must_say_which():
    """All of them are listed as they would be written."""
    nodes = "  asks: {use: toy/asks, in: {text: inputs.text}}\n  end: {use: toy/join, in: {left: asks}}"
    assert told(joined(nodes)) == "graph.yaml:5  ambiguous-output  end: asks has 2 outputs; say which: asks.yes, asks.topic"


def test_a_misspelt_component_names_the_nearest_one():
    """Within a namespace that is installed, its components are listed."""
    found = told(joined("  end: {use: toy/joint, in: {left: inputs.text}}"), registry=assemble({"toys": plugin(join)}))
    assert (
        found
        == "graph.yaml:4  unknown-component  end: no installed plugin offers 'toy/joint'; there are: toy/join. Did you mean 'toy/join'?"
    )


def test_a_component_of_no_installed_plugin_says_how_to_look():
    """Nobody offers the namespace."""
    found = told(joined("  end: {use: alien/mind, in: {left: inputs.text}}"))
    assert found.splitlines() == [
        "graph.yaml:4  unknown-component  end: no installed plugin offers 'alien/mind', nor anything else under alien/.",
        "    `modelgraft components` lists them; `modelgraft plugins install NAME` adds a plugin",
    ]


def test_a_component_of_a_broken_plugin_names_the_plugin_its_error_and_what_to_install():
    """The package that is missing is what to install."""
    broken = plugin(join, error=ModuleNotFoundError("No module named 'rapidocr.engine'"))
    found = told(joined("  end: {use: ocr/lines, in: {left: inputs.text}}"), registry=assemble({"ocr": broken}))
    assert found.splitlines() == [
        "graph.yaml:4  unknown-component  end: 'ocr/lines' belongs to the plugin 'ocr', which could not be loaded: "
        "ModuleNotFoundError: No module named 'rapidocr.engine'",
        "    install what it needs: pip install rapidocr",
    ]


def test_a_plugin_that_raises_is_mended_where_it_does():
    """A namespace in the singular belongs to a plugin named in the plural; the way out is the line of its author."""
    registry = assemble({"heads": plugin(join, error=RuntimeError("no luck")), "toys": plugin(*EVERY)})
    found = told(joined("  end: {use: head/top, in: {left: inputs.text}}"), registry=registry)
    assert "'head/top' belongs to the plugin 'heads', which could not be loaded: RuntimeError: no luck" in found
    place = registry.plugins["heads"].place
    assert f"mend it at {place}; details: modelgraft plugins info heads" in found
    assert Path(place.file).name == "checkable.py"


def test_any_broken_plugin_may_be_the_one_when_nobody_offers_the_namespace():
    """The names of plugins need not be those of their namespaces."""
    registry = assemble({"mixed": plugin(join, error=RuntimeError("no luck"))})
    found = told(joined("  end: {use: ocr/lines, in: {left: inputs.text}}"), registry=registry)
    assert "no working plugin offers 'ocr/lines'; it may belong to one that could not be loaded: the plugin 'mixed'" in found


def test_another_version_of_a_component_is_told():
    """The version that is there is named."""
    found = told(joined("  end: {use: toy/join@2, in: {left: inputs.text}}"))
    assert found.splitlines() == [
        "graph.yaml:4  unknown-component  end: 'toy/join' is installed in version 1, not 2",
        "    write use: toy/join@1, or toy/join for any version",
    ]


def test_a_cycle_is_printed_in_the_direction_of_the_data():
    """From the first node by name, back to it; each knot once."""
    nodes = """
  a: {use: toy/join, in: {left: inputs.text, right: c}}
  b: {use: toy/join, in: {left: a}}
  c: {use: toy/join, in: {left: b}}
  end: {use: toy/join, in: {left: c}}"""
    assert told(joined(nodes)).splitlines() == [
        "graph.yaml:5  cycle  these nodes wait for each other: a -> b -> c -> a",
        "    a graph has no loops; what must repeat lives inside a component",
    ]


def test_a_node_that_takes_from_itself_is_a_cycle():
    """The shortest there is."""
    assert "these nodes wait for each other: end -> end" in told(joined("  end: {use: toy/join, in: {left: inputs.text, right: end}}"))


def test_what_nobody_uses_is_told_and_can_be_allowed():
    """A node that reaches no output, an input that nobody reads; `--allow unused` lets them be."""
    text = joined(
        "  end: {use: toy/join, in: {left: inputs.text}}\n  spare: {use: toy/join, in: {left: inputs.text}}",
        inputs="{text: text, other: text}",
    )
    assert told(text).splitlines() == [
        "graph.yaml:2  unused-input  no node reads the input 'other'",
        '    remove it, or check with allow=["unused"] while you draft',
        "graph.yaml:5  unused-node  no output needs spare",
        '    remove it, or check with allow=["unused"] while you draft',
    ]
    assert "spare" in checked(graph_of(text, allow=["unused"])).nodes


def test_unused_params_inputs_and_nodes_are_told_together(tmp_path):
    """Also those of a graph that stands as a node, and such a graph that no output needs, once and without the nodes inside it."""
    (tmp_path / "inner.yaml").write_text(
        "modelgraft: 1\nparams: {depth: 3}\ninputs: {text: text}\nnodes: {a: {use: toy/join, in: {left: inputs.text}}}\noutputs: {y: a}\n"
    )
    (tmp_path / "graph.yaml").write_text(
        "modelgraft: 1\nparams: {style: short}\ninputs: {text: text, other: text}\nnodes:\n"
        "  kept: {use: 'graph:inner.yaml', in: {text: inputs.text}}\n  spare: {use: 'graph:inner.yaml', in: {text: inputs.text}}\n"
        "  lone: {use: toy/join, in: {left: inputs.text}}\n  end: {use: toy/join, in: {left: kept}}\noutputs: {y: end}\n"
    )
    with pytest.raises(GraphError) as caught:
        checked(load_graph(tmp_path / "graph.yaml", registry=REGISTRY))
    assert sorted((problem.code, problem.found, problem.place.short) for problem in caught.value.problems) == [
        ("unused-input", "no node reads the input 'other'", "graph.yaml:3"),
        ("unused-node", "no output needs lone", "graph.yaml:7"),
        ("unused-node", "no output needs spare", "graph.yaml:6"),
        ("unused-param", "nothing uses the param 'depth'", "inner.yaml:2"),
        ("unused-param", "nothing uses the param 'style'", "graph.yaml:2"),
    ]


def test_a_duplicate_key_is_told():
    """The reader tells it, with both lines."""
    text = joined("  end: {use: toy/join, in: {left: inputs.text}}\n  end: {use: toy/join, in: {left: inputs.text}}")
    found = told(text)
    assert "duplicate-key" in found
    assert "'end'" in found
    assert "line 4" in found or "graph.yaml:4" in found


def test_a_list_where_one_value_is_wanted_is_told():
    """And how to write it."""
    found = told(joined("  end: {use: toy/join, in: {left: [inputs.text, inputs.text]}}"))
    assert found.splitlines() == [
        "graph.yaml:4  list-for-one  end.left takes one value (text), but a list of 2 is wired",
        "    write left: inputs.text",
    ]


def test_one_value_where_a_list_is_wanted_is_told():
    """And how to write it."""
    found = told(
        joined(
            "  end: {use: toy/rank, in: {image: inputs.image, labels: inputs.text}}",
            inputs="{text: text, image: image}",
            outputs="{y: end}",
        )
    )
    assert found.splitlines() == [
        "graph.yaml:4  one-for-list  inputs.text gives one value (text), but end.labels takes a list (list[text])",
        "    write labels: [inputs.text]",
    ]


def test_what_nothing_can_make_is_told():
    """A list where a text is wanted, and no component that gives one of it."""
    nodes = "  end: {use: toy/join, in: {left: inputs.labels}}"
    assert told(joined(nodes, inputs="{labels: 'list[text]'}")).splitlines() == [
        "graph.yaml:4  list-for-one  inputs.labels gives a list (list[text]), but end.left takes one value (text)",
        "    no installed component makes text of list[text]: wire something that gives text",
    ]


def test_a_list_of_lists_is_told():
    """`[inputs.labels]` wraps what is a list already."""
    nodes = "  end: {use: toy/rank, in: {image: inputs.image, labels: [inputs.labels]}}"
    found = told(joined(nodes, inputs="{labels: 'list[text]', image: image}", outputs="{y: end}"))
    assert "list-for-one  inputs.labels gives a list (list[text]) already" in found
    assert "write labels: inputs.labels" in found


def test_lists_of_wires_and_lists_as_values_both_fit():
    """`[a, b]` and an input of type list[text]."""
    nodes = """
  one: {use: toy/rank, in: {image: inputs.image, labels: [inputs.text, inputs.text]}}
  two: {use: toy/rank, in: {image: inputs.image, labels: inputs.labels}}"""
    solved = checked(graph_of(joined(nodes, inputs="{labels: 'list[text]', image: image, text: text}", outputs="{y: one, z: two}")))
    assert solved.nodes["one"].lists == {"labels"}
    assert [str(ref) for ref in solved.nodes["one"].wired["labels"]] == ["inputs.text", "inputs.text"]
    assert solved.nodes["two"].lists == frozenset()


def test_an_image_into_a_text_is_told_with_components_that_read_it():
    """Components that need nothing else are proposed."""

    @component("toy/caption", kind="llm", inputs={"image": "image"}, outputs={"text": "text"})
    def caption(image):
        """Say what is on a picture."""

    registry = assemble({"toys": plugin(join, caption)})
    found = told(joined("  end: {use: toy/join, in: {left: inputs.image}}", inputs="{image: image}"), registry=registry)
    assert found.splitlines() == [
        "graph.yaml:4  modality-mismatch  inputs.image gives image, but end.left takes text",
        "    components that make text of image: toy/caption",
    ]


def test_a_missing_input_says_what_would_fit():
    """Only ports of the same kind, dtype and number of axes are offered, those of the same name first."""
    nodes = """
  eye: {use: toy/eye, in: {pixels: inputs.pixels}}
  end: {use: toy/linear, with: {out_features: 3}}"""
    found = told(joined(nodes, inputs="{pixels: 'float[batch 3 224 224]'}", outputs="{y: end, z: eye.pooled}"))
    assert found.splitlines() == [
        "graph.yaml:6  missing-input  end needs its input 'x' (float[batch tokens in_features])",
        "    wire it: in: {x: eye.tokens}",
    ]


def test_a_route_takes_a_mask():
    """`when` on anything else says what it found."""
    nodes = "  asks: {use: toy/asks, in: {text: inputs.text}}\n  end: {use: toy/join, in: {left: inputs.text}, when: asks.topic}"
    assert told(joined(nodes)) == "graph.yaml:5  route-not-mask  end runs when asks.topic, which gives label; a route takes mask[batch]"
    good = checked(graph_of(joined(nodes.replace("asks.topic", "asks.yes"))))
    assert str(good.nodes["end"].when) == "asks.yes"


@pytest.mark.parametrize(
    ("share", "sentence"),
    [
        ("nobody", "unknown-node  end shares the weights of 'nobody', which is no node; there are: end, other."),
        ("end", "share-mismatch  end shares the weights of itself"),
        ("other", "share-mismatch  end is a toy/join and shares the weights of other, a toy/asks"),
    ],
)
def test_weights_are_shared_with_another_node_of_the_same_component(share, sentence):
    """Everything else is told."""
    nodes = f"  other: {{use: toy/asks, in: {{text: inputs.text}}}}\n  end: {{use: toy/join, in: {{left: inputs.text}}, share: {share}}}"
    assert sentence in told(joined(nodes, outputs="{text: end.text, yes: other.yes}"))


def test_a_node_that_shares_weights_takes_over_the_config():
    """Its own `with` goes over it; dimensions that it leaves open are those of the owner."""
    nodes = """
  owner: {use: toy/linear, with: {out_features: 3}, in: {x: inputs.x}}
  again: {use: toy/linear, in: {x: inputs.y}, share: owner}"""
    solved = checked(graph_of(joined(nodes, inputs="{x: 'float[batch n 5]', y: 'float[batch m w]'}", outputs="{a: owner, b: again}")))
    assert (solved.nodes["again"].config.in_features, solved.nodes["again"].config.out_features) == (5, 3)
    assert str(solved.inputs["y"].port) == "float[batch m 5]"


def test_adapters_are_written_at_their_host():
    """An adapter as a node, and a node as an adapter, are told."""
    nodes = """
  gate: {use: toy/gate, in: {media: inputs.x}}
  end: {use: toy/tongue, with: {prompt: "{t}"}, in: {t: inputs.text}, adapters: [{use: toy/linear}]}"""
    found = told(joined(nodes, inputs="{text: text, x: 'float[batch n 5]'}", outputs="{a: end}"), allow=["unused"])
    assert "graph.yaml:5  adapter-misplaced  gate: toy/gate is an adapter, which works inside another node" in found
    assert "adapter-misplaced  end: toy/linear is no adapter but of kind projector" in found


def test_an_adapter_brings_ports_and_takes_its_width_from_the_host():
    """Ports of adapters come after those of the host, and their open dimensions are the host's fields of that name."""
    nodes = """
  end:
    use: toy/tongue
    with: {prompt: "{t}"}
    in: {t: inputs.text}
    adapters: [{use: toy/gate, in: {media: inputs.x}}]"""
    node = checked(graph_of(joined(nodes, inputs="{text: text, x: 'float[batch n 5]'}"))).nodes["end"]
    assert list(node.in_ports) == ["t", "media"]
    assert str(node.wired["media"][0]) == "inputs.x"
    [adapter] = node.adapters
    assert (adapter.config.hidden_size, adapter.config.media_width, adapter.ports) == (2560, 5, ("media",))


def test_all_problems_of_wiring_come_at_once_in_the_order_of_the_file():
    """A config that does not hold together does not hide a misspelt port elsewhere."""
    nodes = """
  one: {use: toy/tongue, with: {max_new_tokens: 0, prompt: "{t}"}, in: {t: inputs.text}}
  two: {use: toy/join, in: {left: three.txt}}
  three: {use: toy/joins, in: {left: inputs.text}}
  end: {use: toy/join, in: {left: two, right: one.text, middle: two}}"""
    with pytest.raises(GraphError) as caught:
        checked(graph_of(joined(nodes)))
    assert [(p.place.line, p.code, p.node) for p in caught.value.problems] == [
        (5, "wrong-value", "one"),
        (7, "unknown-component", "three"),
        (8, "unknown-port", "end"),
    ]


def test_a_source_that_is_not_there_is_told_once(tmp_path):
    """However many nodes take a part of it."""
    registry = with_presets(tmp_path, siglip={})
    nodes = """
  pixels: {use: toy/pixels, from: preset:siglp, in: {image: inputs.image}}
  end: {use: toy/eye, from: preset:siglp, in: {pixels: pixels}}"""
    found = told(joined(nodes, inputs="{image: image}", outputs="{y: end.pooled}"), registry=registry)
    assert found.splitlines() == [
        "graph.yaml:5  source-not-found  there is no preset 'siglp'; there are: siglip",
        "    Did you mean 'preset:siglip'?",
    ]


def test_a_source_of_another_family_is_told_in_the_words_of_the_component(tmp_path):
    """At the line of `from`."""
    registry = with_presets(tmp_path, fish={"model_type": "fish"})
    nodes = """
  end:
    use: toy/eye
    from: preset:fish
    in: {pixels: inputs.pixels}"""
    found = told(joined(nodes, inputs="{pixels: 'float[batch 3 h w]'}", outputs="{y: end.pooled}"), registry=registry)
    assert found.startswith("graph.yaml:7  source-mismatch  end: toy/eye cannot use preset:fish: it is a fish; this serves eyes")


def test_the_order_of_nodes_is_by_feeders_then_by_name():
    """Whatever the order in which they are given."""
    feeders = {"d": {"b", "c"}, "b": {"a"}, "c": {"a"}, "a": set(), "e": set()}
    assert topological(feeders) == ["a", "b", "c", "d", "e"]
    assert topological(dict(reversed(feeders.items()))) == ["a", "b", "c", "d", "e"]


def test_cycles_are_the_shortest_of_each_knot_without_recursion():
    """Two knots far down a long chain."""
    chain = {f"n{i}": {f"n{i - 1}"} if i else set() for i in range(5000)}
    knots = {"x": {"y", "n4999"}, "y": {"x", "z"}, "z": {"y"}, "loop": {"loop"}}
    assert find_cycles({**chain, **knots}) == [("loop",), ("x", "y")]


def test_an_adapter_may_not_bring_a_port_that_is_there():
    """Two gates on one host would both bring `media`."""
    assert Gate.__component__.kind == "adapter"
    nodes = """
  end:
    use: toy/tongue
    with: {prompt: "{media}"}
    in: {media: inputs.text}
    adapters: [{use: toy/gate, in: {media: inputs.x}}]"""
    found = told(joined(nodes, inputs="{text: text, x: 'float[batch n 5]'}"), allow=["unused"])
    assert "port-clash  toy/gate adds an input 'media' to end, which has one of that name already" in found
