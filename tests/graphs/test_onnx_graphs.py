"""Whole graphs on the onnx backend: the same file, the same answers as on torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

import modelgraft as mg
from modelgraft.cli.tables import plan_document
from modelgraft.kernel.words.errors import InputError
from support import checkpoints

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def folders(tmp_path_factory):
    """A cache of exports for these tests, and the checkpoint of each case, built when it is first asked for."""
    home, built = tmp_path_factory.mktemp("onnx"), dict[str, Path]()

    def folder_of(case):
        if case not in built:
            built[case] = home / case
            CASES[case][0](built[case])
        return built[case]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(home / "cache"))
        yield folder_of


def pictures():
    photo = Image.fromarray(data.chelsea())
    return [photo, photo.rotate(90, expand=True).convert("L")]


def answers(name, folder, backend, *, asked, **inputs):
    graph = mg.load(name, params={"checkpoint": str(folder)})
    with mg.open(graph, backend=backend) as pipeline:
        return pipeline.run(outputs=asked, **inputs)


CASES = {
    "blip2": (checkpoints.blip2, ["text", "llm.logits"], {"prompt": ["a cat", "what is on the grass ?"]}),
    "blip2-t5": (
        lambda folder: checkpoints.blip2(folder, language="t5"),
        ["text", "llm.logits", "project.y"],
        {"prompt": ["a cat", "what is it ?"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_graph_answers_on_onnx_as_on_torch(case, folders):
    """Same texts and labels; numbers within 1e-4 of the largest; a batch of unequal prompts and pictures."""
    _, asked, inputs = CASES[case]
    folder, name = folders(case), case.partition("-")[0]
    expected = answers(name, folder, "torch", asked=asked, image=pictures(), **inputs)
    got = answers(name, folder, "onnx", asked=asked, image=pictures(), **inputs)
    for output in asked:
        if isinstance(expected[output], torch.Tensor):
            scale = expected[output].abs().max().item()
            assert (got[output] - expected[output]).abs().max().item() <= 1e-4 * max(scale, 1.0), output
        else:
            assert got[output] == expected[output]


def test_connected_nodes_are_one_call_and_the_eye_is_not_run_again(folders):
    """Eye, queries, Q-Former and projection of BLIP-2 are one session; with another prompt it is not called."""
    graph = mg.load("blip2", params={"checkpoint": str(folders("blip2"))})
    with mg.open(graph, backend="onnx") as pipeline:
        first = pipeline.run(image=pictures()[0], prompt="a cat")
        second = pipeline.run(image=pictures()[0], prompt="what is on the grass ?")
    assert list(first.timings) == ["pixels", "vision+queries+qformer+project", "llm"]
    assert second.cached == {"pixels", "vision", "queries", "qformer", "project"}
    assert list(second.timings) == ["llm"]


def test_settings_of_the_loop_need_no_other_export(folders):
    """Another length of the answer and another temperature: nothing is exported again, and a plan knows what is kept."""
    from modelgraft_plugins.onnx import store

    folder = str(folders("blip2"))
    inputs = {"image": pictures()[0], "prompt": "a cat"}
    answers("blip2", folder, "onnx", asked=["text"], **inputs)
    before = [entry.folder for entry in store.entries()]
    graph = mg.load("blip2", params={"checkpoint": folder, "max_new_tokens": 3, "nodes.llm.with.temperature": 0.5})
    with mg.open(graph, backend="onnx") as pipeline:
        pipeline.run(outputs=["text"], **inputs)
        assert pipeline._loader.loaded()["llm"].state is None, "the weights of its decoder are let go of"
    assert [entry.folder for entry in store.entries()] == before
    assert set(plan_document(mg.plan(graph, backend="onnx"))["parity"]) == {"vision+queries+qformer+project", "llm"}
    unmade = plan_document(mg.plan(graph, backend="onnx", precision="int8"), export="later")
    assert (unmade["parity"], unmade["unexported"]) == ({}, {"vision+queries+qformer+project": "later", "llm": "later"})
    assert plan_document(mg.plan(graph, backend="onnx"))["unexported"] == {}


def test_a_graph_runs_in_eight_bits(tmp_path):
    """What has weights runs in int8 and answers nearly as torch does; what has none, such as preparing pictures, as ever."""
    folder = tmp_path / "checkpoint"
    checkpoints.vit(folder)
    expected = answers("vit", folder, "torch", asked=["logits"], image=pictures())["logits"]
    with mg.open(mg.load("vit", params={"checkpoint": str(folder)}), backend="onnx", precision="int8") as pipeline:
        difference = (pipeline.run(outputs=["logits"], image=pictures())["logits"] - expected).abs().max()
    assert 1e-4 * expected.abs().max() < difference < 0.25 * expected.abs().max()


TONGUE = """
modelgraft: 1
params: {checkpoint: ""}
inputs: {image: "float[batch tokens WIDTH]", prompt: text}
nodes:
  llm:
    use: llm/causal
    from: "${checkpoint}#language_model"
    with: {prompt: "{image}{prompt}", max_new_tokens: 4}
    in: {image: inputs.image, prompt: inputs.prompt}
outputs: {text: llm.text}
"""


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_decoder_whose_logits_are_no_numbers_is_named(backend, folders, tmp_path):
    """One error with the node, the record and what to look for; a NaN is never taken for the most likely token."""
    folder = folders("blip2")
    width = json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"]
    path = tmp_path / "tongue.yaml"
    path.write_text(TONGUE.replace("WIDTH", str(width)))
    vectors = torch.zeros(2, 3, width)
    with mg.open(mg.load(path, params={"checkpoint": str(folder)}), backend=backend) as pipeline:
        assert len(pipeline.run(image=vectors, prompt=["a cat", "a dog"])["text"]) == 2
        vectors[1, 2, 0] = float("nan")
        expected = r"^llm \(tongue\.yaml:\d+\): the logits of record 1 are nan after 0 tokens of its answer"
        with pytest.raises(InputError, match=expected) as raised:
            pipeline.run(image=vectors, prompt=["a cat", "a dog"])
        assert raised.value.node == "llm"
