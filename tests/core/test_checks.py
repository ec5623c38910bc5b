"""What the checker says of parts that do not fit: places, both ends, origins and ways out."""

from __future__ import annotations

from modelgraft import Config, Ports, component
from modelgraft.installed.discovery import assemble
from modelgraft.tools.checked import checked
from support.checkable import CAPTION, NOWHERE, OPT, graph_of, one, plugin, told, with_presets

EVA = {"hidden_size": 1408}
SIGLIP = {"hidden_size": 1152, "image_size": 384, "has_class": False, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def test_neighbours_decide_the_widths_of_a_projector(tmp_path):
    """No width is written, and each solved value says who decided it."""
    solved = checked(graph_of(CAPTION, registry=with_presets(tmp_path, **{"eva-clip-g": EVA, "opt": OPT})))
    project = solved.nodes["project"]
    assert (project.config.in_features, project.config.out_features) == (1408, 2560)
    assert {name: str(origin) for name, origin in project.origins.items()} == {
        "in_features": "solved (vision.hidden_size is 1408)",
        "out_features": "solved (llm.hidden_size is 2560)",
    }
    assert str(solved.nodes["vision"].origins["hidden_size"]) == "graph.yaml:7 (preset:eva-clip-g)"
    assert str(solved.nodes["vision"].origins["patch_size"]) == "default"
    assert str(solved.nodes["llm"].in_ports["image"]) == "float[batch 257 2560]"
    assert str(project.out_ports["y"]) == "float[batch 257 2560]"


def test_a_wide_encoder_into_a_narrow_projector_says_both_origins_and_two_ways_out(tmp_path):
    """1408 from the source, 768 from the file."""
    text = CAPTION.replace("    in: {x: vision.tokens}", "    with:\n      in_features: 768\n    in: {x: vision.tokens}")
    assert told(text, registry=with_presets(tmp_path, **{"eva-clip-g": EVA, "opt": OPT})) == [
        "graph.yaml:13  dim-mismatch  vision.tokens gives float[batch 257 1408], but project.x takes float[batch 257 768]: "
        "1408 is vision.hidden_size, from the source preset:eva-clip-g (line 7); 768 is project.in_features, line 12",
        "    leave project.in_features out (line 12): the neighbours decide it, "
        "or insert toy/linear (1408 -> 768, 1.1 M parameters) between them",
    ]


def test_two_sources_that_do_not_fit_get_a_component_between_them(tmp_path):
    """Nothing can be set: the weights decide both numbers. A component that hands axes on does not hide who decided."""
    text = CAPTION.replace("toy/linear", "toy/norm")
    assert told(text, registry=with_presets(tmp_path, **{"eva-clip-g": EVA, "opt": OPT})) == [
        "graph.yaml:12  dim-mismatch  project.y gives float[batch 257 1408], but llm.image takes float[batch 257 2560]: "
        "1408 is vision.hidden_size, from the source preset:eva-clip-g (line 7); "
        "2560 is llm.hidden_size, from the source preset:opt (line 12)",
        "    insert toy/linear (1408 -> 2560, 3.6 M parameters) between them",
    ]


def test_placeholders_that_do_not_match_the_tokens_of_the_encoder(tmp_path):
    """729 patches without a class token, one dropped, against 729 in the template: the fields behind 728 are named."""
    text = """
modelgraft: 1
inputs: {image: image, prompt: text}
nodes:
  pixels: {use: toy/pixels, with: {size: 384, image_std: [0.5, 0.5, 0.5]}, in: {image: inputs.image}}
  vision:
    use: toy/eye
    from: preset:siglip
    with: {drop_first: true}
    in: {pixels: pixels}
  project: {use: toy/linear, in: {x: vision.tokens}}
  llm:
    use: toy/tongue
    with: {prompt: "{image:729} {prompt}"}
    in: {image: project, prompt: inputs.prompt}
outputs: {text: llm.text}
"""
    registry = with_presets(tmp_path, siglip=SIGLIP)
    checked(graph_of(text.replace("drop_first: true", "drop_first: false"), registry=registry))
    assert told(text, registry=registry) == [
        "graph.yaml:14  dim-mismatch  project.y gives float[batch 728 2560], but llm.image takes float[batch 729 2560]: "
        "728 is vision.tokens, which follows from image_size 384, has_class false, from the source preset:siglip (line 7), "
        "and patch_size 14, the default of toy/eye, and drop_first true, line 8; 729 stands in llm.prompt, line 13",
        "    write 728 for 729 in llm.prompt (line 13)",
    ]


def test_each_pair_of_axes_that_differs_gets_its_own_way_out(tmp_path):
    """A wrong number of placeholders and a missing projector at once: one line for each."""
    text = """
modelgraft: 1
inputs: {x: "float[batch 7 5]"}
nodes:
  llm: {use: toy/tongue, with: {prompt: "{image:9}"}, in: {image: inputs.x}}
outputs: {text: llm.text}
"""
    assert told(text) == [
        "graph.yaml:4  dim-mismatch  inputs.x gives float[batch 7 5], but llm.image takes float[batch 9 2560]: "
        "7 stands in the type of inputs.x, line 2; 9 stands in llm.prompt, line 4; "
        "5 stands in the type of inputs.x, line 2; 2560 is llm.hidden_size, the default of toy/tongue",
        "    write 7 for 9 in llm.prompt (line 4)",
        "    set llm.hidden_size: 5, or insert toy/linear (5 -> 2560, 15.4 k parameters) between them",
    ]


def test_a_property_that_asks_a_method_names_the_fields_behind_both():
    """The method is followed too."""

    @component("grow/crop", kind="preprocess", module=NOWHERE)
    class Crop(Config):
        """Cut to size."""

        size: int = 9
        border: int = 1

        @property
        def side(self):
            return self._inner(2)

        def _inner(self, times):
            return self.size - times * self.border

        def ports(self):
            return Ports.of({"x": "float[batch side]"}, {"y": "float[batch side]"})

    found = told(one("grow/crop", "x", "float[batch 5]"), registry=assemble({"grow": plugin(Crop)}))
    assert "7 is node.side, which follows from size 9, border 1, the default of grow/crop" in found[0]


def test_pixels_normalised_for_one_encoder_into_another(tmp_path):
    """Mean and std of both ends, with the origin of each."""
    text = """
modelgraft: 1
inputs: {image: image}
nodes:
  pixels:
    use: toy/pixels
    from: preset:clip
    with: {size: 384}
    in: {image: inputs.image}
  vision: {use: toy/eye, from: preset:siglip, in: {pixels: pixels}}
outputs: {y: vision.tokens}
"""
    registry = with_presets(tmp_path, clip={"image_mean": [0.48, 0.46, 0.41]}, siglip=SIGLIP)
    assert told(text, registry=registry) == [
        "graph.yaml:9  space-mismatch  pixels.pixels gives pixels of another kind than vision.pixels takes: "
        "mean is (0.48, 0.46, 0.41) (pixels.image_mean, from the source preset:clip), "
        "wanted (0.5, 0.5, 0.5) (vision.image_mean, from the source preset:siglip); "
        "std is (0.25, 0.25, 0.25) (pixels.image_std, the default of toy/pixels), "
        "wanted (0.5, 0.5, 0.5) (vision.image_std, from the source preset:siglip)",
        "    let both come from one source: give pixels from: preset:siglip",
    ]


def test_tokens_of_one_tokenizer_into_the_embedding_of_another_model():
    """Both identities, and where each is written."""
    text = """
modelgraft: 1
inputs: {text: text}
nodes:
  cut: {use: toy/tokenizer, in: {text: inputs.text}}
  look:
    use: toy/embed
    with: {identity: llama-2}
    in: {ids: cut}
outputs: {y: look}
"""
    assert told(text) == [
        "graph.yaml:8  space-mismatch  cut.ids gives tokens of another kind than look.ids takes: "
        "tokenizer is opt (cut.identity, the default of toy/tokenizer), wanted llama-2 (look.identity, line 7)",
        "    put a component between them that gives the tokens that look takes, or wire the one that was made for it",
    ]
    checked(graph_of(text.replace("llama-2", "opt")))


def test_a_node_without_a_space_ends_the_space():
    """What a component that states nothing gives is not checked."""
    text = """
modelgraft: 1
inputs: {image: image}
nodes:
  pixels: {use: toy/pixels, in: {image: inputs.image}}
  scaled: {use: toy/norm, in: {x: pixels}}
  vision: {use: toy/eye, with: {image_mean: [0, 0, 0]}, in: {pixels: scaled}}
outputs: {y: vision.pooled}
"""
    checked(graph_of(text))
    assert "space-mismatch" in told(text.replace("pixels: scaled", "pixels: pixels"), allow=["unused"])[0]


def test_tokens_beyond_the_context_are_told_by_the_component():
    """Picture tokens of the solved graph and new tokens together."""
    text = """
modelgraft: 1
inputs: {x: "float[batch 2000 2560]"}
nodes:
  llm: {use: toy/tongue, with: {prompt: "{image}", max_new_tokens: 100}, in: {image: inputs.x}}
outputs: {text: llm}
"""
    assert told(text) == [
        "graph.yaml:4  context-overflow  llm: 2000 picture tokens and max_new_tokens 100 make 2100, more than the context of 2048",
        "    set max_new_tokens: 48 or less",
    ]
