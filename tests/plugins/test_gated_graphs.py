"""Gated cross-attention in a graph: what is checked, planned and explained, and what a prompt and a file must hold."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft.engine.modules.grafting import count_adapters
from modelgraft.tools.explain import explain
from modelgraft_plugins.llm.gated import GatedCrossAttention
from support import openflamingo
from support.openflamingo import HEADS, REFERENCE, counted_graph, graph, in_yaml, pictures_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the tiny OpenFlamingo."""
    found = tmp_path_factory.mktemp("openflamingo")
    openflamingo.parts(found)
    return found


def test_the_template_places_the_picture_unless_the_prompt_does(folder: Path):
    """As for language models that embed pictures."""
    with mg.open(graph(folder, template="<image> {prompt}")) as pipeline:
        pictures = pictures_of("one_row", 0)[None]
        placed = pipeline.run(outputs=["logits"], pictures=pictures, prompt="w5 w9")["logits"]
        assert torch.equal(placed, pipeline.run(outputs=["logits"], pictures=pictures, prompt="<image> w5 w9")["logits"])
        behind = pipeline.run(outputs=["logits"], pictures=pictures, prompt="w5 w9 <image>")["logits"]
    assert (placed - behind).abs().max() > 1e-3


def test_a_template_without_fields_is_written_for_every_medium(folder: Path):
    """The media say how many records there are."""
    path = folder / "captions.yaml"
    path.write_text(CAPTIONS.format(heads=in_yaml(HEADS)))
    latents = torch.randn(3, 5, 36, generator=torch.Generator().manual_seed(2))
    with mg.open(path) as pipeline:
        together = pipeline.run(latents=latents)["logits"]
        alone = [pipeline.run(latents=latents[row : row + 1])["logits"] for row in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0.0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


CAPTIONS = """
modelgraft: 1
inputs: {{latents: "float[batch 5 36]"}}
nodes:
  llm:
    use: llm/causal
    from: ./language
    with: {{max_new_tokens: 0, prompt: "<image> w5"}}
    adapters:
      - use: adapter/gated_cross_attention
        from: "./openflamingo.safetensors#lang_encoder"
        with: {{every: 2, {heads}}}
        in: {{media: inputs.latents}}
outputs: {{logits: llm.logits}}
"""


@pytest.mark.parametrize(("prompt", "times"), [("w5", 0), ("<image> w5 <image> w6 <image>", 3)])
def test_a_prompt_shows_all_pictures_and_no_more(folder: Path, prompt: str, times: int):
    """One that is left out, or one too many, is told with both numbers."""
    with mg.open(graph(folder)) as pipeline, pytest.raises(mg.InputError) as caught:
        pipeline.run(pictures=pictures_of("two_images", 0)[None], prompt=prompt)
    assert f"the prompt holds '<image>' {times} times, and 2 media are given: write it once for each" in str(caught.value)


def test_a_tokenizer_without_the_placeholder_is_refused(folder: Path):
    """Nothing could say where the pictures stand."""
    params = {"nodes.llm.with.placeholder": "<picture>"}
    with mg.open(mg.load(graph(folder).path, params=params)) as pipeline, pytest.raises(mg.InputError) as caught:
        pipeline.run(pictures=pictures_of("one_row", 0)[None], prompt="w5")
    assert "the tokenizer has no token '<picture>', which marks where the media stand; set `placeholder`" in str(caught.value)


def test_the_blocks_are_planned_and_their_port_is_checked(folder: Path):
    """Parameters by formula and as built, with those of the host; widths come from the neighbours; `explain` shows them."""
    plan = mg.plan(graph(folder))
    trained = [tensor.numel() for name, tensor in REFERENCE.weights.items() if "gated_cross_attn" in name]
    llm = plan.nodes["llm"].parameters
    assert llm.trainable == sum(trained)
    language = openflamingo.language_model()
    assert llm.total == sum(trained) + sum(parameter.numel() for parameter in language.parameters())
    node = next(step.node for step in plan.steps if step.node.name == "llm")
    assert str(node.in_ports["media"]) == "float[batch images 5 36]"
    assert count_adapters(node, plan.graph.graph.registry) == sum(trained)
    rows = {row.key: (row.value, row.origin) for row in explain(plan.graph, "llm")}
    assert rows["adapters.0.use"][0] == "adapter/gated_cross_attention@1"
    assert rows["adapters.0.with.every"] == (2, "graph.yaml:19")
    assert rows["adapters.0.with.media_size"] == (36, "graph.yaml:19 (./openflamingo.safetensors#lang_encoder)")
    assert rows["adapters.0.with.num_hidden_layers"][0] == 4
    assert rows["in.media"] == ("float[batch images 5 36]", "fed by resampler.latents")


def test_media_of_another_width_are_a_problem_of_the_graph(folder: Path):
    """Found before anything is loaded, with both numbers."""
    with pytest.raises(mg.GraphError, match=r"dim-mismatch .*36.*") as caught:
        mg.check(mg.load(graph(folder).path, params={"nodes.llm.adapters": [{**ADAPTER, "with": {**ADAPTER["with"], "media_size": 35}}]}))
    assert "35" in str(caught.value)


ADAPTER = {"use": "adapter/gated_cross_attention", "with": {"every": 2}, "in": {"media": "resampler"}}


def test_it_is_grafted_into_language_models_alone(folder: Path):
    """The message names what it can be grafted into."""
    path = folder / "misplaced.yaml"
    path.write_text(
        "modelgraft: 1\ninputs: {x: 'float[batch tokens 3]'}\nnodes:\n"
        "  project: {use: projector/linear, with: {out_features: 4}, in: {x: inputs.x}, adapters: [\n"
        "    {use: adapter/gated_cross_attention, in: {media: inputs.x}}]}\noutputs: {y: project}\n"
    )
    with pytest.raises(mg.GraphError, match=r"adapter-misplaced  project: .* cannot be grafted into projector/linear"):
        mg.check(mg.load(path))


def test_a_file_of_other_sizes_is_one_error(folder: Path):
    """It names the tensors."""
    source = f"{folder / 'openflamingo.safetensors'}#lang_encoder"
    params = {"nodes.llm.adapters": [{**ADAPTER, "from": source, "with": {"every": 2, "num_heads": 3}}]}
    wanted = r"attn\.to_kv\.weight is \[80, 36\], wanted \[384, 36\]"
    with mg.open(mg.load(graph(folder).path, params=params)) as pipeline, pytest.raises(mg.SourceError, match=wanted):
        pipeline.run(pictures=pictures_of("one_row", 0)[None], prompt="<image>")


def test_counts_are_those_of_the_publications():
    """OpenFlamingo v1 and IDEFICS-9B: LLaMA-7B with CLIP ViT-L/14, and with ViT-H/14."""
    host = {"hidden_size": 4096, "num_hidden_layers": 32}
    assert GatedCrossAttention(media_size=1024, **host).parameters() == 1_115_815_952
    sizes = {"media_size": 1280, "num_heads": 32, "intermediate_size": 11008, "qk_norms": True}
    assert GatedCrossAttention(family="idefics", **host, **sizes).parameters() == 1_434_519_568


def test_blocks_stand_where_their_publications_put_them():
    """OpenFlamingo before the last of every four layers, IDEFICS before the first."""
    assert GatedCrossAttention(num_hidden_layers=12).layers == (3, 7, 11)
    assert GatedCrossAttention(family="idefics", num_hidden_layers=12).layers == (0, 4, 8)
    assert GatedCrossAttention(num_hidden_layers=7, every=2).layers == (1, 3, 5)


RECORDS = {0: "w5 w9", 1: "w5 <image> w9", 2: "<image> w5 <image> w6"}  # by the number of pictures


@pytest.mark.parametrize("are_counted", [True, False], ids=["counted", "filled up with zeros"])
@pytest.mark.parametrize("order", list(itertools.permutations(RECORDS)), ids=str)
def test_records_of_unlike_numbers_of_pictures_answer_as_alone(folder: Path, order: tuple[int, ...], are_counted: bool):
    """Each by its own count, in whatever order they stand; what fills the batch up is looked at by none."""
    chosen = counted_graph(folder) if are_counted else graph(folder)
    pictures = pictures_of("two_images", 0)
    with mg.open(chosen) as pipeline:
        batch = torch.stack([torch.cat([pictures[:count], torch.zeros_like(pictures[count:])]) for count in order])
        counts = {"counts": torch.tensor(order)} if are_counted else {}
        given = {"pictures": batch, **counts, "prompt": [RECORDS[count] for count in order]}
        together = pipeline.run(outputs=["logits"], **given)["logits"]
        for row in range(len(order)):
            alone = {name: value[row : row + 1] for name, value in given.items()}
            expected = pipeline.run(outputs=["logits"], **alone)["logits"]
            torch.testing.assert_close(together[row : row + 1], expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("order", list(itertools.permutations([0, 1, 2])), ids=str)
@pytest.mark.parametrize("are_counted", [True, False], ids=["counted", "all alike"])
def test_a_record_whose_prompt_does_not_fit_is_refused_alone_and_beside_others(folder: Path, order: tuple[int, ...], are_counted: bool):
    """One rule per record: a picture without its `<image>` is not passed over because another record shows its own."""
    chosen = counted_graph(folder) if are_counted else graph(folder)
    pictures = pictures_of("two_images", 0)
    prompts = ["<image> w5 <image> w6", "w5 w9", "<image> w5 <image> w7"]
    given = {"pictures": torch.stack([pictures] * 3), "prompt": [prompts[index] for index in order]}
    counts = {"counts": torch.tensor([2, 2, 2])} if are_counted else {}
    row = order.index(1)
    with mg.open(chosen) as pipeline:
        with pytest.raises(mg.InputError, match=rf"the prompt of record {row + 1} of 3 holds '<image>' 0 times, and 2 media are given"):
            pipeline.run(outputs=["logits"], **given, **counts)
        with pytest.raises(mg.InputError, match=r"the prompt holds '<image>' 0 times, and 2 media are given"):
            pipeline.run(outputs=["logits"], **{name: value[row : row + 1] for name, value in (given | counts).items()})


def test_one_picture_without_its_place_is_refused_beside_one_with_it(folder: Path):
    with mg.open(graph(folder)) as pipeline:
        pictures = torch.stack([pictures_of("one_row", 0)] * 2)
        for prompts, row in ((["w5", "<image> w5"], 1), (["<image> w5", "w5"], 2)):
            with pytest.raises(mg.InputError, match=rf"of record {row} of 2 holds '<image>' 0 times, and 1 medium is given"):
                pipeline.run(outputs=["logits"], pictures=pictures, prompt=prompts)
