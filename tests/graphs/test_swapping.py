"""Something else in a node by its name: what depends on it follows, what does not fit is told, and nothing is done in silence."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from modelgraft.commands import node_named
from support import checkpoints
from support.pictures import picture


def planned(graph: str, **swaps: object) -> tuple[mg.Plan, list[str]]:
    """The plan of a graph with something else in its nodes, and what was told of it."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plan = mg.plan(mg.load(graph, params=swaps))
    return plan, [str(one.message) for one in told]


def sizes(plan: mg.Plan) -> dict[str, str]:
    return {step.node.name: next(iter(step.shapes.values())) for step in plan.steps}


def test_another_eye_brings_its_pictures_and_is_used_as_the_old_one_was():
    """Pixels are made for it, its last layer but one and its patches are taken, and the projector learns its width."""
    plan, told = planned("llava", eye="preset:siglip-so400m-14-384")
    assert sizes(plan) | {"llm": ""} == {
        "pixels": "float[batch 3 384 384]",
        "vision": "float[batch 729 1152]",
        "project": "float[batch 729 4096]",
        "llm": "",
    }
    vision, project = plan.nodes["vision"].node, plan.nodes["project"].node
    assert (vision.config.layer, vision.config.select) == (-2, "patches")
    assert project.source is None
    assert plan.nodes["project"].parameters.trainable == 1152 * 4096 + 4096 + 4096 * 4096 + 4096
    assert told == [
        "pixels prepares as preset:siglip-so400m-14-384 says",
        "vision is used as before: layer is -2",
        "vision is used as before: select is patches",
        "project begins anew: the weights that were there do not fit its neighbours",
    ]


@pytest.mark.parametrize("name", ["llm", "tongue"])
def test_an_encoder_decoder_takes_the_place_of_a_decoder(name: str):
    """The component that the source is made for stands there; its width goes into the projector."""
    plan, told = planned("llava", **{name: "preset:flan-t5-xl"})
    assert plan.nodes["llm"].node.component.id == "llm/seq2seq"
    assert sizes(plan)["project"] == "float[batch 576 2048]"
    assert "llm is llm/seq2seq, which preset:flan-t5-xl is made for, in place of llm/causal" in told


def test_weights_that_still_fit_stay():
    """An eye of the same width: the projector keeps what it has, and no more than must begins anew."""
    plan, told = planned("llava", eye="preset:clip-vit-l-14")
    assert plan.nodes["project"].node.source is not None
    assert not any("anew" in text for text in told)
    plan, told = planned("blip2", eye="preset:siglip-so400m-14-384")
    anew = {
        name for name, step in plan.nodes.items() if step.node.component.kind in ("resampler", "projector") and step.node.source is None
    }
    assert anew == {"qformer"}
    assert plan.nodes["qformer"].node.config.encoder_hidden_size == 1152
    assert plan.nodes["qformer"].node.config.intermediate_size == 3072


def test_what_is_grafted_into_a_neighbour_begins_anew_too():
    """The gated blocks of Flamingo read the eye's width: of another width, they and the resampler are new, and as many as before."""
    before, _ = planned("openflamingo")
    plan, told = planned("openflamingo", eye="preset:clip-vit-b-16")
    assert "resampler, llm.adapters begin anew: the weights that were there do not fit its neighbours" in told
    [block], [old] = plan.nodes["llm"].node.adapters, before.nodes["llm"].node.adapters
    assert block.source is None
    assert (block.config.every, block.component) == (old.config.every, old.component)
    assert plan.nodes["resampler"].node.config.depth == before.nodes["resampler"].node.config.depth
    _, told = planned("openflamingo", eye="preset:clip-vit-l-14")
    assert not any("anew" in text for text in told)


def test_two_at_once():
    plan, told = planned("blip2", eye="preset:clip-vit-b-16", tongue="preset:flan-t5-xl")
    assert sizes(plan)["project"] == "float[batch 32 2048]"
    assert "qformer, project begin anew: the weights that were there do not fit its neighbours" in told


def test_a_component_or_a_graph_takes_the_wires_of_what_stood_there():
    plan, _ = planned("llava", project="projector/c_abstractor")
    assert sizes(plan)["project"] == "float[batch 144 4096]"
    plan, _ = planned("llava", projector="projector/pixel_shuffle")  # four patches of 1024 are as wide as LLaMA
    assert sizes(plan)["project"] == "float[batch 144 4096]"


@pytest.mark.parametrize(
    ("swaps", "wanted"),
    [
        ({"project": "resampler/perceiver"}, r"project\.latents gives float\[batch 64 1024\].*\n.*insert projector/linear \(1024 -> 4096"),
        ({"eye": "preset:wav2vec2-base"}, r"vision/encoder has no tower for model_type 'wav2vec2'"),
        ({"llm": "preset:nope"}, r"there is no preset 'nope'"),
        (
            {"eyes": "preset:vit-b-16"},
            r"the graph llava has no param 'eyes'.*\n.*nodes that can be set by name: pixels, vision, project, llm",
        ),
        ({"llm": "benchmarks/sweeps/tiny/short"}, r"llm reads and writes at least 640 tokens, but llama has 48 positions: 576 of image"),
        ({"llm": "graph:nowhere"}, r"'nowhere' is neither a file nor a shipped graph"),
    ],
)
def test_what_does_not_fit_is_told(swaps: dict[str, str], wanted: str):
    """Where, what was found and wanted, and what to put between."""
    with pytest.raises(mg.GraphError, match=wanted):
        planned("llava", **swaps)


def test_a_name_that_means_several_nodes_is_refused():
    with pytest.raises(mg.GraphError, match=r"the graph blip2 has 2 nodes that 'resampler' may mean: queries, qformer"):
        mg.load("blip2", params={"resampler": "projector/linear"})


def test_what_is_no_text_is_refused():
    with pytest.raises(mg.InputError, match="vision is set to None; wanted: a source such as preset:NAME, a component, or graph:NAME"):
        mg.load("llava", params={"vision": None})


def test_a_param_keeps_its_meaning_and_may_stand_beside():
    plan, _ = planned("llava", eye="preset:vit-b-16", max_new_tokens=7)
    assert plan.nodes["llm"].node.config.max_new_tokens == 7


def test_params_may_be_set_later_and_the_graph_written(tmp_path: Path):
    """`Graph.to_yaml` writes what holds now, not the name that set it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = mg.load("llava").with_params({"eye": "preset:vit-b-16"})
        again = mg.load("llava", params={"eye": "preset:vit-b-16"})
    assert graph == again
    (tmp_path / "swapped.yaml").write_text(graph.to_yaml())
    assert sizes(mg.plan(str(tmp_path / "swapped.yaml")))["project"] == "float[batch 196 4096]"


def test_the_graph_runs_with_another_eye_and_another_tongue(tmp_path: Path):
    """On real folders: weights that stay are the checkpoint's own, those that begin anew are drawn by the seed."""
    checkpoints.llava(tmp_path / "llava")
    checkpoints.siglip(tmp_path / "eye")
    checkpoints.opt(tmp_path / "tongue")
    swaps = {"checkpoint": str(tmp_path / "llava"), "eye": str(tmp_path / "eye"), "llm": str(tmp_path / "tongue"), "max_new_tokens": 5}
    answers = []
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = mg.open("llava", params=swaps, seed=3)
        with pipeline:
            answers.append(pipeline.run(image=picture(31, 17), prompt="What is it?", outputs=["text", "project.y"]))
    assert answers[0]["text"] == answers[1]["text"]
    assert torch.equal(answers[0]["project.y"], answers[1]["project.y"])
    assert answers[0]["project.y"].shape[-1] == 24


def test_a_q_former_reads_the_question_as_well(tmp_path: Path):
    """`connectors/qformer_text`: another question, other tokens; the same question, the same."""
    checkpoints.instructblip(tmp_path / "asked")
    checkpoints.llava(tmp_path / "llava")
    (tmp_path / "asked" / "qformer_tokenizer" / "config.json").write_text('{"model_type": "bert"}')
    sizes = {"words": str(tmp_path / "asked" / "qformer_tokenizer"), "tokens": 5, "width": 12, "layers": 2, "heads": 3}
    settings = {f"nodes.project.with.{name}": value for name, value in sizes.items()}
    settings |= {"nodes.project.in.text": "inputs.prompt", "checkpoint": str(tmp_path / "llava"), "max_new_tokens": 3}
    graph = mg.load("llava", params={"projector": "graph:connectors/qformer_text", **settings})
    with mg.open(graph, seed=1) as pipeline:
        one, other, again = (
            pipeline.run(image=picture(31, 17), prompt=prompt, outputs=["project.y"])["project.y"]
            for prompt in ("a cat?", "a dog", "a cat?")
        )
    assert one.shape == (1, 5, 28)
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_a_graph_with_generators_can_be_planned_and_swapped():
    """A field of a config that is called `trained` counts nothing."""
    plan, _ = planned("nextgpt/text", llm="preset:llama-13b")
    assert sizes(plan)["llm"] == "text"
    assert mg.plan("stable_diffusion").totals.trainable == 0


@pytest.mark.parametrize(
    ("graph", "name", "node"),
    [
        ("llava", "eye", "vision"),
        ("describe", "eye", "eye"),
        ("qwen2_vl", "eye", "vision"),
        ("flamingo", "eye", "vision"),
        ("hubert", "ear", "encoder"),
    ],
)
def test_what_sees_and_what_hears_can_be_named_so(graph: str, name: str, node: str):
    """Whatever component it is; a name that means nothing else lists the nodes there are."""
    assert node_named(name, mg.load(graph).spec) == node
    assert node_named("nose", mg.load(graph).spec) is None
