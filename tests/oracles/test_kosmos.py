"""Kosmos-1 against torchscale: xPos, and a decoder of norms within layers, as a module, in the token loop, and through the graph."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modelgraft as mg
from modelgraft_plugins.llm.kosmos import XPos
from support.installed import registry
from support.kosmos import words
from support.open_part import configured, counts, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle

XPOS, DECODER = "xpos_rotation", "kosmos1_decoder"
REGISTRY = registry()


def rotated(given: Oracle, case: Case) -> dict[str, Tensor]:
    """Queries and keys turned as by torchscale, whose sizes are counted from the middle of what there is."""
    module = XPos(given.config["head_dim"], scale_base=given.config["scale_base"])
    module.load_state_dict(dict(given.weights))
    x, offset = case.inputs["x"], int(case.inputs["offset"])
    length = x.shape[1] + offset
    places = torch.arange(offset, length)
    offsets = places - (length + 1) // 2
    return {"query": module(x, places, offsets), "key": module(x, places, -offsets)}


@pytest.mark.parametrize("case", cases(XPOS))
def test_xpos_turns_as_torchscale(case):
    """Of even and odd lengths, and behind what was read already."""
    case.compare_all(rotated(oracle(XPOS), case))


def test_another_scale_shows():
    must_differ(XPOS, rotated)


def saved(folder: Path, given: Oracle) -> Path:
    """The decoder under its own keys, its config in the words of torchscale, and a tokenizer of a word for each id."""
    given.as_folder(folder, {**given.config, "model_type": "kosmos-1", "max_target_positions": 64})
    words(folder, given.config["vocab_size"])
    return folder


def embedded(module: Any, case: Case) -> Tensor:
    """What the decoder reads: tokens, and vectors of a picture in the place of some."""
    found: Tensor = module.embed(case.inputs["ids"].flatten()).view(*case.inputs["ids"].shape, -1).clone()
    if (latents := case.inputs.get("image_latents")) is not None:
        start = int(case.inputs["splice_start"])
        found[:, start : start + latents.shape[1]] = latents
    return found


def answered(given: Oracle, case: Case) -> dict[str, Tensor]:
    """Logits and the states behind the first layer, of a module that its own loader filled."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        module = open_part(REGISTRY, "llm/causal", str(saved(Path(folder), given))).module
        there = ~case.inputs["padding"] if "padding" in case.inputs else None
        made = module.model(inputs_embeds=embedded(module, case), attention_mask=there, output_hidden_states=True)
        kept = torch.ones(()) if there is None else there[..., None]
        return {"logits": made.logits * kept, "hidden_after_layer_0": made.hidden_states[1] * kept}


@pytest.mark.parametrize("case", cases(DECODER))
def test_the_decoder_equals_torchscale(case):
    """Alone, with a picture among its words, and padded."""
    case.compare_all(answered(oracle(DECODER), case))


def test_a_weight_of_the_decoder_that_is_off_shows():
    must_differ(DECODER, answered)


@pytest.mark.parametrize("case", cases(DECODER))
@pytest.mark.parametrize("read", [1, 3])
def test_token_by_token_it_says_the_same(case, read, tmp_path):
    """What was read is kept turned, and each further token is read alone; rows of unequal length together."""
    module = open_part(REGISTRY, "llm/causal", str(saved(tmp_path, oracle(DECODER)))).module
    whole, ids, expected = embedded(module, case), case.inputs["ids"], case.outputs["logits"]
    if (latents := case.inputs.get("image_latents")) is not None:  # what follows a prompt are tokens
        read += int(case.inputs["splice_start"]) + latents.shape[1]
    lengths = (~case.inputs["padding"]).sum(1) if "padding" in case.inputs else torch.full(ids.shape[:1], ids.shape[1])
    starts, rows = lengths - lengths.min() + read, torch.arange(len(ids))
    with torch.no_grad():
        prompts = [row[:start] for row, start in zip(whole, starts, strict=True)]
        session = module.torch_decoder().start(prompts, room=whole.shape[1])
        for step in range(int(lengths.min()) - read + 1):
            if step:
                session.step(ids[rows, starts + step - 1])
            torch.testing.assert_close(session.logits, expected[rows, starts + step - 1], rtol=0, atol=case.tolerances["logits"])


def spelt(ids: Tensor) -> str:
    """Ids as the text that has them."""
    return " ".join(f"w{token}" for token in ids.tolist())


GRAPH = """\
modelgraft: 1
extends: kosmos1
inputs: {image: null, prompt: null, before: text, behind: text}
nodes.pixels: null
nodes.vision: null
nodes.latents: null
"""


def through_the_graph(given: Oracle, case: Case, folder: Path) -> tuple[Tensor, Tensor]:
    """The logits behind each prompt, and the states behind the first layer at its tokens: the shipped graph with the vectors put in."""
    latents, ids = case.inputs.get("image_latents"), case.inputs["ids"]
    start = int(case.inputs["splice_start"]) if latents is not None else 1
    end = start + (latents.shape[1] if latents is not None else 0)
    template, wire = ("{before} {image} {behind}", "inputs.image") if latents is not None else ("{before} {behind}", "null")
    text = GRAPH + (f'inputs.image: "float[batch {latents.shape[1]} {latents.shape[2]}]"\n' if latents is not None else "")
    text += f'nodes.llm.with: {{prompt: "{template}", max_new_tokens: 0, known_tokens: [], states: {{layers: [1]}}}}\n'
    text += f"nodes.llm.in: {{image: {wire}, prompt: null, before: inputs.before, behind: inputs.behind}}\n"
    path = folder / "fed.yaml"
    path.write_text(text)
    padding = case.inputs.get("padding", torch.zeros(ids.shape, dtype=torch.bool))
    rows = [row[~hidden] for row, hidden in zip(ids, padding, strict=True)]
    feeds: dict[str, Any] = {"before": [spelt(row[:start]) for row in rows], "behind": [spelt(row[end:]) for row in rows]}
    feeds |= {"image": latents} if latents is not None else {}
    with mg.open(path, params={"language": str(saved(folder / "model", given))}) as pipeline:
        result = pipeline.run(**feeds, outputs=["llm.logits", "llm.prompt_states"])
    return result["llm.logits"], result["llm.prompt_states"][:, 0]


@pytest.mark.parametrize("case", cases(DECODER))
def test_the_graph_equals_torchscale(case, tmp_path):
    """At the end of each prompt, and the states of all of its tokens."""
    logits, states = through_the_graph(oracle(DECODER), case, tmp_path)
    ids = case.inputs["ids"]
    padding = case.inputs.get("padding", torch.zeros(ids.shape, dtype=torch.bool))
    picture = torch.zeros(ids.shape[1], dtype=torch.bool)
    if (latents := case.inputs.get("image_latents")) is not None:
        start = int(case.inputs["splice_start"])
        picture[start : start + latents.shape[1]] = True
    for row, hidden in enumerate(padding):
        last = int((~hidden).sum()) - 1
        torch.testing.assert_close(logits[row], case.outputs["logits"][row, last], rtol=0, atol=case.tolerances["logits"])
        wanted = case.outputs["hidden_after_layer_0"][row, ~hidden & ~picture]
        torch.testing.assert_close(states[row, : len(wanted)], wanted, rtol=0, atol=case.tolerances["hidden_after_layer_0"])


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "no norms within layers": ({"subln": False}, r"the decoder of Kosmos-1 has no subln: False"),
    "other positions": ({"xpos_rel_pos": False}, r"has no xpos_rel_pos: False"),
    "a word that nobody knows": ({"decoder_experts": 8}, r"has no decoder_experts: 8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_decoder_is_refused(name, tmp_path):
    """Whatever would make another model of it, by its word."""
    changes, said = REFUSED[name]
    given = oracle(DECODER)
    given.as_folder(tmp_path / "model", {**given.config, "model_type": "kosmos-1", **changes})
    with pytest.raises((mg.GraphError, mg.SourceError), match=said):
        mg.plan(mg.load("kosmos1", params={"language": str(tmp_path / "model")}))


def test_a_word_that_is_missing_is_named(tmp_path):
    """Sizes are not guessed."""
    given = oracle(DECODER)
    config = {key: value for key, value in given.config.items() if key != "decoder_attention_heads"}
    given.as_folder(tmp_path / "model", {**config, "model_type": "kosmos-1"})
    with pytest.raises((mg.GraphError, mg.SourceError), match=r"has no decoder_attention_heads"):
        mg.plan(mg.load("kosmos1", params={"language": str(tmp_path / "model")}))


def test_it_is_counted_to_the_unit(tmp_path):
    """By formula, by building it, and by the tensors of the file: every shared one once, buffers not at all."""
    given = oracle(DECODER)
    node = configured(REGISTRY, "llm/causal", str(saved(tmp_path, given)))
    shared = {"output_projection.weight"} if given.config["share_decoder_input_output_embed"] else set()
    own = sum(tensor.numel() for key, tensor in given.weights.items() if key not in shared and not key.endswith("xpos.scale"))
    assert counts(node) == (own, own)
    assert json.loads((tmp_path / "config.json").read_text())["decoder_layers"] == node.config.num_hidden_layers
