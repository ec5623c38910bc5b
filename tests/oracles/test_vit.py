"""ViT in the layouts of timm and of the Google code, and the three ways to another size, equal to who published them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft_plugins import projectors, vision
from modelgraft_plugins.vision.positions import resampled
from support.open_part import open_part
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

REGISTRY = assemble({"vision": vision, "projectors": projectors})
WAYS = {"google": "official", "transformers": "hf", "timm": "timm"}  # name of an output -> way
LEFT_OUT = ("pixels", "answer", "inputs.image", "outputs.label", "outputs.probabilities")
PIXELS = {"vision.pixels": "float[batch 3 height width]"}


def by_parts(source: str, pixels: torch.Tensor, **config: object) -> dict[str, torch.Tensor]:
    """Tokens and logits of the two components, each on its part of a source."""
    eye = open_part(REGISTRY, "vision/encoder", f"{source}#vit", interpolate=True, **config)
    seen = eye(pixels)
    head = open_part(REGISTRY, "projector/linear", f"{source}#classifier", over="vector")
    return {"tokens": seen["tokens"], "logits": head(seen["pooled"])}


def timm(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
    """A folder with timm's words and keys."""
    with TemporaryDirectory() as folder:
        return by_parts(str(given.as_folder(Path(folder) / "timm", given.config)), case.inputs["image"])


def flax(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
    """A file of numpy, as it is published."""
    with TemporaryDirectory() as folder:
        np.savez(Path(folder) / "vit.npz", **{key: tensor.numpy() for key, tensor in given.weights.items()})
        found = by_parts(f"{folder}/vit.npz", case.inputs["image"].permute(0, 3, 1, 2))
    return {"logits": found["logits"]}


@pytest.mark.parametrize("case", cases("vit_timm"))
def test_timm_is_equalled_at_its_size_and_at_others(case: Case):
    case.compare_all(timm(oracle("vit_timm"), case))


@pytest.mark.parametrize("case", cases("vit_flax"))
def test_the_google_code_is_equalled_from_its_own_file(case: Case):
    case.compare_all(flax(oracle("vit_flax"), case))


@pytest.mark.parametrize("case", cases("vit_timm"))
def test_a_folder_of_timm_goes_through_the_graph(case: Case, tmp_path: Path):
    given = oracle("vit_timm")
    source = given.as_folder(tmp_path / "timm", given.config)
    path = fed(tmp_path, "vit/any_size", PIXELS, {"tokens": "vision.tokens"}, without=LEFT_OUT)
    with mg.open(path, params={"checkpoint": str(source)}) as pipeline:
        result = pipeline.run(vision_pixels=case.inputs["image"])
    case.compare(tokens=result["tokens"], logits=result["logits"])


@pytest.mark.parametrize("case", cases("vit_flax"))
@pytest.mark.parametrize("layout", ["folder", "npz", "safetensors", "older names", "inside a training state"])
def test_the_google_names_go_through_the_graph(case: Case, layout: str, tmp_path: Path):
    """In every file that holds them: both generations of names have the same tensors, but for the place of the class token."""
    source = as_published(oracle("vit_flax"), layout, tmp_path)
    path = fed(tmp_path, "vit", PIXELS, {}, without=LEFT_OUT)
    with mg.open(path, params={"checkpoint": str(source)}) as pipeline:
        case.compare_all({"logits": pipeline.run(vision_pixels=case.inputs["image"].permute(0, 3, 1, 2))["logits"]})


def as_published(given: Oracle, layout: str, folder: Path) -> Path:
    """The same tensors in another file."""
    if layout == "folder":
        return given.as_folder(folder / "vit", {**given.config, "model_type": "vit"})
    if layout == "safetensors":
        return given.as_file(folder / "vit.safetensors")
    state = {key: tensor.numpy() for key, tensor in given.weights.items()}
    if layout == "older names":
        state = {key.replace("Attention_0", "Attention_1").replace("MlpBlock_0", "MlpBlock_3"): value for key, value in state.items()}
        state = {key.replace("LayerNorm_1", "LayerNorm_2"): value for key, value in state.items()}
        places = state.pop("pos_embedding")
        place = np.random.default_rng(1).normal(size=places[:, :1].shape).astype(np.float32)
        state["Transformer/posembed_input/pos_embedding"] = np.concatenate([place, places], 1)
        state["cls"] = state["cls"] - place
    if layout == "inside a training state":
        state = {f"opt/target/{key}": value for key, value in state.items()} | {"opt/state/step": np.ones(3, np.float32)}
    np.savez(folder / "vit.npz", **state)
    return folder / "vit.npz"


def test_a_weight_of_timm_that_is_off_shows():
    must_differ("vit_timm", timm)


def test_a_weight_of_the_google_code_that_is_off_shows():
    must_differ("vit_flax", flax)


def test_the_first_layer_before_the_classifier_is_a_part_of_the_eye(tmp_path: Path):
    """Checkpoints of the pre-training have it: against the formula, tanh of a linear layer."""
    given, generator = oracle("vit_flax"), torch.Generator().manual_seed(7)
    width, classes = given.config["width"], given.config["num_classes"]
    kernel, bias = torch.randn(width, width + 1, generator=generator), torch.randn(width + 1, generator=generator)
    head = torch.randn(width + 1, classes, generator=generator)
    state = {**given.weights, "pre_logits/kernel": kernel, "pre_logits/bias": bias, "head/kernel": head}
    np.savez(tmp_path / "vit.npz", **{key: tensor.numpy() for key, tensor in state.items()})
    pixels = next(iter(given.cases.values())).inputs["image"].permute(0, 3, 1, 2)
    found = by_parts(str(tmp_path / "vit.npz"), pixels)
    expected = torch.tanh(found["tokens"][:, 0] @ kernel + bias) @ head + given.weights["head/bias"]
    torch.testing.assert_close(found["logits"], expected, rtol=0.0, atol=1e-5)


# -- places --------------------------------------------------------------------------------------------------------------------


def grids(case: Case) -> tuple[tuple[int, int], tuple[int, int]]:
    """The square that a table is of, and the wanted (rows, columns)."""
    side = int((case.inputs["table"].shape[1] - 1) ** 0.5)
    rows, columns = case.inputs["target"].tolist()
    return (side, side), (rows, columns)


@pytest.mark.parametrize("case", cases("vit_position_interpolation"))
def test_places_are_brought_to_another_grid_in_three_ways(case: Case):
    stored, wanted = grids(case)
    case.compare_all({name: resampled(case.inputs["table"], wanted, stored=stored, lead=1, way=way) for name, way in WAYS.items()})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", cases("vit_position_interpolation"))
def test_an_eye_without_anything_else_shows_its_places(case: Case, way: str, tmp_path: Path):
    """Through the graph: with patches and a class token of nothing, what enters the first layer is the table."""
    _, (rows, columns) = grids(case)
    source = eye_of(case, tmp_path / "eye")
    path = fed(tmp_path, "vit/patches", PIXELS, {}, without=("pixels", "map", "outputs.map", "inputs.image"))
    how = f"nodes.vision.with: {{positions: {WAYS[way]}, select: all, interpolate: true}}\n"
    path.write_text(path.read_text() + how + "params.layer.default: 0\n")
    with mg.open(path, params={"checkpoint": str(source)}) as pipeline:
        tokens = pipeline.run(vision_pixels=torch.ones(1, 3, 2 * rows, 2 * columns))["tokens"]
    case.compare(**{way: tokens})


def test_a_place_that_is_off_shows():
    """Every place a little, this way or that: a single one may lie where a much smaller grid never looks."""
    generator = torch.Generator().manual_seed(int(os.environ.get("MODELGRAFT_ORACLES_SEED", "0")))
    for case in oracle("vit_position_interpolation").cases.values():
        table = case.inputs["table"] + 0.1 * torch.randn(case.inputs["table"].shape, generator=generator).sign()
        stored, wanted = grids(case)
        off = replace(case, inputs={**case.inputs, "table": table})
        for name, way in WAYS.items():
            with pytest.raises(AssertionError):
                off.compare(**{name: resampled(table, wanted, stored=stored, lead=1, way=way)})


def eye_of(case: Case, folder: Path) -> Path:
    """A ViT of patches of 2 with the table of a case, and nothing else that is not 0."""
    (side, _), _ = grids(case)
    config = hf.ViTConfig(
        hidden_size=case.inputs["table"].shape[-1], num_hidden_layers=1, num_attention_heads=1, intermediate_size=3, image_size=2 * side,
        patch_size=2,
    )  # fmt: skip
    model = hf.ViTModel(config, add_pooling_layer=False)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    model.embeddings.position_embeddings.data.copy_(case.inputs["table"])
    model.save_pretrained(folder)
    return folder
