"""The graphs whose connector was trained here: what ships is small, is what the graphs use, and knows no name that judges it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft_plugins.drawings.listing import held_out
from modelgraft_plugins.drawings.vendors import VENDORS

DRAWINGS = Path(__file__).parents[2] / "benchmarks" / "sweeps" / "drawings"
PRESETS = Path(str(files("modelgraft_plugins.drawings") / "presets"))
GRAPH = """
modelgraft: 1
inputs: {seen: "float[batch 1280]"}
nodes:
  look:   {use: projector/mlp, from: "preset:drawings-look", with: {over: vector}, in: {x: inputs.seen}}
  recall: {use: projector/memory, from: "preset:drawings-memory", with: {scale: 300}, in: {x: look}}
  kinds:  {use: projector/memory, from: "preset:drawings-kinds", with: {scale: 30}, in: {x: look}}
outputs: {vector: look, tokens: recall, kinds: kinds}
"""


def test_what_was_trained_runs_from_what_ships(tmp_path: Path):
    """The head and both memories behind it, against their formulas on the tensors of the files."""
    path = tmp_path / "part.yaml"
    path.write_text(GRAPH)
    seen = torch.rand(3, 1280, generator=torch.Generator().manual_seed(0))
    with mg.open(path) as pipeline:
        found = pipeline.run(seen=seen)
    head, memory, kinds = (
        {k: v.float() for k, v in load_file(PRESETS / f"drawings-{name}" / "model.safetensors").items()}
        for name in ("look", "memory", "kinds")
    )
    x = torch.nn.functional.layer_norm(seen, (1280,), head["layer_norm.weight"], head["layer_norm.bias"])
    x = torch.nn.functional.gelu(x @ head["linear_1.weight"].T + head["linear_1.bias"]) @ head["linear_2.weight"].T + head["linear_2.bias"]
    torch.testing.assert_close(found["vector"], x, rtol=0, atol=1e-4)
    for one, scale, name in ((memory, 300, "tokens"), (kinds, 30, "kinds")):
        shares = (scale * (torch.nn.functional.cosine_similarity(x[:, None], one["keys"][None], dim=-1) + one["priors"])).softmax(-1)
        wanted = torch.einsum("bs,skd->bkd", shares, one["rows"][one["places"].long()])
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=1e-3)  # cosines are 300 times as large in the softmax


def test_what_find_knows_of_kinds_are_the_names_of_the_memory():
    """Both hold the same names in the same order, as many with a lift."""
    names, kinds = (load_file(PRESETS / f"drawings-{name}" / "model.safetensors") for name in ("memory", "kinds"))
    torch.testing.assert_close(kinds["keys"].float(), names["keys"].float(), rtol=0, atol=1e-3)
    assert torch.equal(kinds["priors"], names["priors"])


@pytest.mark.parametrize("graph", ["glimpse", "grafted/embed"])
def test_trained_parts_are_counted_as_they_ship(graph: str):
    plan = mg.plan(graph)
    assert plan.nodes["look"].parameters.total == sum(
        tensor.numel() for tensor in load_file(PRESETS / "drawings-look" / "model.safetensors").values()
    )


def test_what_ships_is_small():
    assert sum(path.stat().st_size for path in PRESETS.rglob("*.safetensors")) < 25e6


def test_the_examples_of_the_prompt_are_no_names_that_judge():
    names = set(held_out().values())
    prompt = mg.load("glimpse").nodes["say"].config["prompt"].value
    examples = [line.partition(" -> ")[2] for line in prompt.splitlines() if " -> " in line]
    assert len(examples) == 10
    assert not names & set(examples)


def test_what_ships_was_trained_under_licences_that_let_it():
    """No drawing under a licence that would bind what is made of it is among those that train."""
    assert {vendor.licence for vendor in VENDORS.values() if vendor.use == "train"} == {"CC-BY-4.0", "Apache-2.0", "MIT"}


def test_the_drawings_of_the_demo_are_by_hands_that_train_nothing_and_may_be_given_away():
    lines = [json.loads(line) for line in (DRAWINGS.parent / "drawings.jsonl").read_text(encoding="utf-8").splitlines()]
    there = {path.relative_to(DRAWINGS.parent).as_posix() for path in DRAWINGS.rglob("*.png")}
    assert {line["image"] for line in lines} == there
    assert sum(path.stat().st_size for path in DRAWINGS.rglob("*")) < 200e3
    for line in lines:
        vendor = VENDORS[line["vendor"]]
        assert (vendor.use, vendor.licence in {"MIT", "Apache-2.0"}) == ("test", True)
        assert (line["split"] == "held_out") is (line["concept"] in held_out())


@pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_llm_onnx.py::test_one_graph_with_its_cache_in_place_gives_torchs_logits",
)
@pytest.mark.slow  # it exports real models
@pytest.mark.network
@pytest.mark.timeout(300)
def test_what_was_trained_gives_on_onnx_what_it_gives_on_torch():
    """Of drawings: the vector of the head, the soft tokens for the language model, and what they are found by; and that of a text."""
    pictures = sorted(map(str, DRAWINGS.rglob("*.png")))[:3]
    with mg.open("glimpse") as torchs, mg.open("glimpse", backend="onnx") as theirs:
        found, wanted = (one.run(image=pictures, outputs=["vector", "recall.y"]) for one in (theirs, torchs))
        with torchs.stream(image=pictures[0], outputs=["text"]) as events:
            told = list(events)
    for name in ("vector", "recall.y"):
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-3)
    pieces, said = [event["text"] for event in told if event.kind == "token"], told[-1]["result"]["text"]
    assert said == "".join(pieces) == said.strip()  # its tokens begin with a space, which is left out of its answer
    with mg.open("grafted/embed") as torchs, mg.open("grafted/embed", backend="onnx") as theirs:
        found, wanted = (one.run(image=pictures, text=["a smiling cat"] * 3) for one in (theirs, torchs))
    for name in ("picture", "words"):
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=1e-4)
