"""wav2vec 2.0 against fairseq: features, padded sounds and the losses of pre-training, with group and with layer norms; by its own keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from modelgraft_plugins.audio.waves import STEPS
from support.installed import registry
from support.open_part import open_part
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

REGISTRY = registry()
NAMES = ("wav2vec2_group", "wav2vec2_layer")
ABOUT_THE_CASES = ("samples", "padded_from")  # numbers of the recordings, which no config of a model has
ROWS = [pytest.param(name, *row.values, id=row.id) for name in NAMES for row in cases(name)]


def folder_of(given: Oracle, folder: Path) -> str:
    """A folder with fairseq's words and keys."""
    words = {key: value for key, value in given.config.items() if key not in ABOUT_THE_CASES}
    return str(given.as_folder(folder, {"model_type": "wav2vec2", **words}))


def places_of(case: Case) -> torch.Tensor:
    """Places of negatives in their row, int64[batch tokens negatives]; the reference counts among the masked frames of a row."""
    mask, negatives = case.inputs["mask"], case.inputs["negatives"]
    found = torch.zeros(*mask.shape, negatives.shape[-1], dtype=torch.int64)
    for row, masked in enumerate(mask):
        places = masked.nonzero()[:, 0]
        found[row, places] = places[negatives[row]]
    return found


def named(found: Any, case: Case) -> dict[str, torch.Tensor]:
    """Our outputs by the names of the reference, whose rows of logits go from masked frame to masked frame, in each from sound to sound."""
    if "mask" not in case.inputs:
        known = {"encoder": found["tokens"], "conv": found["conv_features"], "frame_padding": ~found["frame_mask"]}
        return {name: known[name] for name in case.outputs}
    mask = case.inputs["mask"]
    by_row = torch.stack([logits[masked] for logits, masked in zip(found["logits"], mask, strict=True)])
    return {
        "contrastive_logits": by_row.transpose(0, 1).flatten(0, 1), "contrastive_sum": found["contrastive"].mean(),
        "prob_perplexity": found["probability_perplexity"][0], "code_perplexity": found["code_perplexity"][0],
        "features_pen": found["mean_square"][0], "criterion_total": found["loss"].mean(),
    }  # fmt: skip


def by_parts(given: Oracle, case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """Each component by itself."""
    source = folder_of(given, folder)
    mask = ~case.inputs["padding"] if "padding" in case.inputs else None
    heard = open_part(REGISTRY, "audio/encoder", source, statistics="batch")(case.inputs["wave"], mask, case.inputs.get("mask"))
    if "mask" not in case.inputs:
        return named(heard, case)
    guess, shared = open_part(REGISTRY, "wav2vec2/predictor", source), given.config["final_dim"]
    assert guess.outputs["predictions"] == f"float[batch tokens {shared}]"
    quantised = open_part(REGISTRY, "wav2vec2/quantizer", source)(heard["normed"])
    compare = open_part(REGISTRY, "wav2vec2/criterion", source)
    spans, features = case.inputs["mask"], heard["conv_features"]
    codes = (quantised["code_ids"], quantised["probabilities"])
    return named(compare(guess(heard["tokens"]), quantised["targets"], spans, places_of(case), *codes, features, None), case)


def by_graph(given: Oracle, case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """The shipped graph, with tensors in place of a sound and of what is drawn."""
    wave, mask = "float[batch samples]", "bool[batch samples]"
    feeds = {"ear.samples": wave, "ear.mask": mask}
    values = {"ear_samples": case.inputs["wave"], "ear_mask": ~case.inputs.get("padding", torch.zeros_like(case.inputs["wave"]).bool())}
    outputs = {"tokens": "ear.tokens", "conv_features": "ear.conv_features", "frame_mask": "ear.frame_mask"}
    name, without = "wav2vec2/features", ["samples", "inputs.audio"]
    if "mask" in case.inputs:
        name, without = "wav2vec2/pretrain", [*without, "masked", "others", "outputs.spans"]
        feeds |= {
            "ear.spans": "bool[batch tokens]",
            "criterion.spans": "bool[batch tokens]",
            "criterion.negatives": "int64[batch tokens k]",
        }
        values |= {"ear_spans": case.inputs["mask"], "criterion_spans": case.inputs["mask"], "criterion_negatives": places_of(case)}
        figures = ("logits", "contrastive", "probability_perplexity", "code_perplexity", "mean_square", "loss")
        outputs = {figure: f"criterion.{figure}" for figure in figures}
    graph = fed(folder, name, feeds, outputs, without=tuple(without))
    graph.write_text(graph.read_text() + "nodes.ear.with.statistics: batch\n")
    with mg.open(graph, params={"checkpoint": folder_of(given, folder / "weights")}) as pipeline:
        return named(pipeline.run(**values), case)


@pytest.mark.parametrize(("name", "case"), ROWS)
def test_it_equals_fairseq(name: str, case: Case, tmp_path: Path):
    case.compare_all(by_parts(oracle(name), case, tmp_path))


@pytest.mark.parametrize(("name", "case"), ROWS)
def test_the_graphs_equal_fairseq(name: str, case: Case, tmp_path: Path):
    case.compare_all(by_graph(oracle(name), case, tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_that_is_off_shows(name: str, tmp_path: Path):
    must_differ(name, lambda given, case: by_parts(given, case, tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_alone_says_all_but_heads_and_strides(name: str, tmp_path: Path):
    """What no shape says is asked for by name."""
    given = oracle(name)
    file = str(given.as_file(tmp_path / "alone.safetensors"))
    case = next(case for case in given.cases.values() if set(case.inputs) == {"wave"})
    strides = tuple(row[2] for row in given.config["conv_layers"])
    if tuple(row[1] for row in given.config["conv_layers"]) not in STEPS:  # the published stack is known by its kernels
        with pytest.raises(ValueError, match=r"set `with: \{conv_stride:"):
            open_part(REGISTRY, "audio/encoder", file)
    with pytest.raises(ValueError, match=r"set `with: \{num_attention_heads:"):
        open_part(REGISTRY, "audio/encoder", file, conv_stride=strides)
    ear = open_part(REGISTRY, "audio/encoder", file, conv_stride=strides, num_attention_heads=given.config["encoder_attention_heads"])
    case.compare(encoder=ear(case.inputs["wave"], None, None)["tokens"])
    quantizer = open_part(REGISTRY, "wav2vec2/quantizer", file).node.config
    words = {"groups": "latent_groups", "entries": "latent_vars", "code_size": "latent_dim", "shared_size": "final_dim"}
    assert {ours: getattr(quantizer, ours) for ours in words} == {ours: given.config[theirs] for ours, theirs in words.items()}
