"""LLaMA-Adapter V2 beside the published code: the vectors of a picture, logits at every place, and the loss, through the shipped graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft.testing import conform, run_node
from modelgraft_plugins.losses import CrossEntropy
from modelgraft_plugins.zoo import VisualPrompt
from support import zoo
from support.checkpoints import clip_pictures
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

NAME = "llama_adapter_v2"
NORMS = 1e-6  # of the blocks of timm 1.0.31, which the fixture was made with; the code was published with timm 0.3.2, where they are 1e-5
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def opened(given: Oracle, home: Path, *, nodes: Mapping[str, Any] | None = None) -> mg.Pipeline:
    """The shipped graph over one folder that holds the eye, the language model and what was trained.

    nodes  a file with what was trained instead, and the heads of the visual blocks
    """
    if not (home / "config.json").exists():
        given.as_folder(home, {"model_type": NAME, "v_norm_eps": NORMS, **given.config})
        zoo.tokenizer_of_ids(given.config["vocab_size"]).save_pretrained(home)
    side = given.config["clip"]["input_resolution"]
    graph = fed(home, "llama_adapter", {"vision.pixels": f"float[batch 3 {side} {side}]"}, {}, without=("pixels", "inputs.image"))
    settings = {"checkpoint": str(home), "vision": str(home), "language": f"{home}#language_model", "max_new_tokens": 0}
    told = {} if nodes is None else {"checkpoint": str(nodes["file"]), "nodes.visual.with": {"heads": nodes["heads"], "block_eps": NORMS}}
    return mg.open(graph, params={**settings, **told, "nodes.llm.with.chat": False, "nodes.llm.with.chat_template": None})


def run(given: Oracle, case: Case, home: Path) -> dict[str, torch.Tensor]:
    """Every output of a case: logits behind each beginning of each row, which is a record of its own."""
    ids, labels = case.inputs["ids"], case.inputs["labels"]
    begun = [(row, end + 1) for row in range(len(ids)) for end in range(ids.shape[1])]
    with opened(given, home) as pipeline:
        found = pipeline.run(
            vision_pixels=case.inputs["pixels"][[row for row, _ in begun]],
            prompt=[zoo.text_of_ids(ids[row, :end].tolist()) for row, end in begun],
            outputs=["visual", "llm.logits"],
        )
    logits = found["llm.logits"].view(*ids.shape, -1)
    lost = run_node(CrossEntropy, {"over": "tokens", "ignored": 0}, logits=logits[:, :-1], labels=labels[:, 1:])["loss"]
    prompt = found["visual"].view(*ids.shape, *found["visual"].shape[1:])[:, 0]
    return {"visual_prompt": prompt, "logits": logits, "loss": lost.mean()}


@pytest.mark.parametrize("case", cases(NAME))
def test_it_equals_the_published_code(case: Case, tmp_path: Path):
    case.compare_all(run(oracle(NAME), case, tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_weight_that_is_off_shows(seed: int, tmp_path: Path):
    must_differ(NAME, lambda given, case: run(given, case, tmp_path / "off"), seed=seed)


def trained_alone(given: Oracle, home: Path) -> tuple[Path, Path]:
    """A file with what was trained, norms among it, as the published ones are, and a folder with the rest, whose norms are others."""
    is_trained = {
        key: key.startswith(TRAINED) or "norm" in key.removeprefix("clip.") or key.endswith((".bias", "gate")) or ".lora_" in key
        for key in given.weights
    }
    inside = {key: tensor for key, tensor in given.weights.items() if is_trained[key] and not key.startswith("clip.")}
    file = replace(given, weights=inside).as_file(home / "BIAS-7B.pth")
    other = {key: tensor + 0.5 if "norm" in key and key.startswith("llama.") else tensor for key, tensor in given.weights.items()}
    folder = home / "rest"
    replace(given, weights=other).as_folder(folder, {"model_type": NAME, "v_norm_eps": NORMS, **given.config})
    zoo.tokenizer_of_ids(given.config["vocab_size"]).save_pretrained(folder)
    return file, folder


TRAINED = ("adapter_query", "visual_", "clip_proj")


def test_the_published_file_holds_what_was_trained_and_its_norms_win(tmp_path: Path):
    """Beside a language model in a folder of its own; what the tensors do not say of the visual blocks is told."""
    given = oracle(NAME)
    file, folder = trained_alone(given, tmp_path)
    case = next(iter(given.cases.values()))
    with opened(given, folder, nodes={"file": file, "heads": given.config["v_num_heads"]}) as pipeline:
        ids = case.inputs["ids"]
        found = pipeline.run(
            vision_pixels=case.inputs["pixels"], prompt=[zoo.text_of_ids(row.tolist()) for row in ids], outputs=["visual", "llm.logits"]
        )
    case.compare(visual_prompt=found["visual"])
    torch.testing.assert_close(found["llm.logits"], case.outputs["logits"][:, -1], rtol=0, atol=case.tolerances["logits"])


def test_with_closed_gates_and_no_biases_it_answers_as_the_language_model_alone(tmp_path: Path):
    """To the last bit: what is added is zero."""
    given = oracle(NAME)
    closed = {key: torch.zeros_like(tensor) if key.startswith("llama.") and key.endswith((".gate", ".bias", "_l2.weight")) else tensor
              for key, tensor in given.weights.items()}  # fmt: skip
    case = next(iter(given.cases.values()))
    texts = [zoo.text_of_ids(row.tolist()) for row in case.inputs["ids"]]
    with opened(replace(given, weights=closed), tmp_path / "closed") as pipeline:
        found = pipeline.run(vision_pixels=case.inputs["pixels"], prompt=texts, outputs=["llm.logits"])["llm.logits"]
    plain = tmp_path / "plain.yaml"
    plain.write_text(
        "# The language model alone.\nmodelgraft: 1\ninputs: {prompt: text}\nnodes:\n"
        "  llm: {use: llm/causal, from: './closed#language_model', with: {max_new_tokens: 0}, in: {prompt: inputs.prompt}}\n"
        "outputs: {logits: llm.logits}\n"
    )
    with mg.open(plain) as alone:
        torch.testing.assert_close(found, alone.run(prompt=texts)["logits"], rtol=0, atol=1e-6)


def whole_of(folder: Path, **more: Any) -> dict[str, Any]:
    """A folder that states more than its files say, as every source of the graph."""
    given = oracle(NAME)
    given.as_folder(folder, {"model_type": NAME, **given.config, **more})
    clip_pictures(given.config["clip"]["input_resolution"]).save_pretrained(folder)
    return {"checkpoint": str(folder), "vision": str(folder), "language": f"{folder}#language_model", "max_new_tokens": 1}


def test_a_word_of_its_config_that_nobody_knows_is_told(tmp_path: Path):
    solved = mg.check(mg.load("llama_adapter", params=whole_of(tmp_path / "odd", v_temperature=3)))
    assert any("v_temperature: 3, which is not known here" in remark.found for remark in solved.remarks)


def test_more_layers_that_look_than_there_are_are_told(tmp_path: Path):
    layers = oracle(NAME).config["n_layers"]
    with pytest.raises(mg.GraphError, match=f"is read by its last {layers + 1} layers, and it has {layers}"):
        mg.check(mg.load("llama_adapter", params=whole_of(tmp_path / "odd", query_layer=layers + 1)))


def test_the_visual_prompt_keeps_its_word():
    conform(VisualPrompt, {"in_features": 9, "language_size": 10, "width": 12, "depth": 2, "heads": 3, "inner_size": 7, "queries": 4})
