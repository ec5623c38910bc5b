"""Any eye with any connector and any language model: no width is written anywhere, the checker works them out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import modelgraft as mg
from support import checkpoints
from support.pictures import picture

EYES = {"clip": "clip#vision_model", "siglip": "siglip#vision_model", "eva": "blip2#vision_model"}
CONNECTORS = {
    "linear": "  connect: {use: projector/linear, in: {x: eye.tokens}}",
    "mlp": "  connect: {use: projector/mlp, in: {x: eye.tokens}}",
    "qformer": (
        "  queries: {use: qformer/queries, with: {num_query_tokens: 3}, in: {memory: eye.tokens}}\n"
        "  connect: {use: qformer/qformer, with: {num_hidden_layers: 2, num_attention_heads: 1},\n"
        "            in: {queries: queries, memory: eye.tokens}}"
    ),
}
TONGUES = ("opt", "llama", "qwen2", "smollm")
WIDTHS = {"clip": 24, "siglip": 20, "eva": 22, "opt": 24, "llama": 28, "qwen2": 32, "smollm": 27}
TOKENS = {"clip": 10, "siglip": 16, "eva": 10}
GRAPH = """
modelgraft: 1
inputs: {{image: image, prompt: text}}
nodes:
  pixels: {{use: vision/preprocess, from: ./{pictures}, in: {{image: inputs.image}}}}
  eye: {{use: vision/encoder, from: "./{eye}", in: {{pixels: pixels}}, frozen: true}}
{connector}
  tongue:
    use: llm/causal
    from: ./{tongue}
    with: {{prompt: "{{image}} {{prompt}}", max_new_tokens: 4}}
    in: {{image: connect, prompt: inputs.prompt}}
    frozen: true
outputs: {{text: tongue.text}}
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of every part."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("clip", "siglip", "blip2", *TONGUES):
        getattr(checkpoints, name)(folder / name)
    return folder


def composed(folder: Path, eye: str, connector: str, tongue: str) -> mg.Graph:
    """The graph of three parts."""
    source = EYES[eye]
    text = GRAPH.format(pictures=source.partition("#")[0], eye=source, connector=CONNECTORS[connector], tongue=tongue)
    path = folder / f"{eye}-{connector}-{tongue}.yaml"
    path.write_text(text)
    return mg.load(path)


@pytest.mark.parametrize(("eye", "connector", "tongue"), list(itertools.product(EYES, CONNECTORS, TONGUES)))
def test_every_eye_goes_with_every_connector_and_tongue(parts: Path, eye: str, connector: str, tongue: str):
    """Solved, planned with the right widths and counts, and run with a new connector."""
    graph = composed(parts, eye, connector, tongue)
    plan = mg.plan(graph)
    tokens = 3 if connector == "qformer" else TOKENS[eye]
    assert list(plan.nodes["connect"].shapes.values()) == [f"float[batch {tokens} {WIDTHS[tongue]}]"]
    assert plan.nodes["eye"].shapes["tokens"] == f"float[batch {TOKENS[eye]} {WIDTHS[eye]}]"
    assert plan.nodes["eye"].parameters.trainable == plan.nodes["tongue"].parameters.trainable == 0
    assert plan.totals == mg.plan(graph, exact=True).totals
    with mg.open(graph) as pipeline:
        result = pipeline.run(image=[picture(31, 17), picture(9, 20, "L")], prompt=["what is it?", "a cat"])
    assert [type(text) for text in result["text"]] == [str, str]
    assert any("connect" in warning for warning in result.warnings)


def test_swapping_the_tongue_is_one_line(parts: Path):
    """The two graphs differ in the line that names the language model, and the connector follows."""
    one = (parts / "clip-mlp-opt.yaml", composed(parts, "clip", "mlp", "opt"))
    other = (parts / "clip-mlp-qwen2.yaml", composed(parts, "clip", "mlp", "qwen2"))
    lines = zip(one[0].read_text().splitlines(), other[0].read_text().splitlines(), strict=True)
    assert [pair for pair in lines if pair[0] != pair[1]] == [("    from: ./opt", "    from: ./qwen2")]
    assert [mg.check(graph).nodes["connect"].config.out_features for _, graph in (one, other)] == [24, 32]
