"""OmniMAE equals the published code on pictures and clips: what it rebuilds, its loss, its classes, from official files and folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import modelgraft as mg
from support.installed import registry
from support.open_part import open_part
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

REGISTRY = registry()


def facts(given: Oracle) -> dict[str, Any]:
    """The config.json of a folder with the weights of an oracle."""
    return {"model_type": "omnimae", **given.config}


def medium(pixels: torch.Tensor) -> str:
    return "image" if pixels.ndim == 4 else "video"


def places(mask: torch.Tensor) -> torch.Tensor:
    """The places of the patches that are seen."""
    return torch.stack([torch.tensor([place for place, hidden in enumerate(row) if not hidden]) for row in mask.flatten(1).tolist()])


@pytest.fixture
def run(tmp_path: Path):
    """Run the parts of an oracle, each through its own loader with the official keys."""

    def parts(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
        folder = str(given.as_folder(tmp_path / f"{id(given)}", facts(given)))
        pixels = case.inputs["pixels"]
        of = {"medium": medium(pixels)}
        if "mask" not in case.inputs:
            pooled = open_part(REGISTRY, "omnimae/encoder", folder, **of)(pixels)["pooled"]
            return {"logits": open_part(REGISTRY, "projector/linear", f"{folder}#head", over="vector")(pooled)}
        kept = places(case.inputs["mask"])
        tokens = open_part(REGISTRY, "omnimae/encoder", folder, masked=True, **of)(pixels, kept)
        features = open_part(REGISTRY, "omnimae/decoder", folder, **of)(tokens, kept)
        prediction = open_part(REGISTRY, "projector/linear", f"{folder}#head")(features)
        wanted = open_part(REGISTRY, "omnimae/targets", folder, **of)(pixels)["targets"]
        loss = open_part(REGISTRY, "omnimae/loss", "preset:omnimae-base")(prediction, wanted, case.inputs["mask"])
        return {"prediction": prediction, "loss": loss.mean()}

    return parts


@pytest.mark.parametrize("case", [*cases("omnimae_pretrain")])
def test_what_is_rebuilt_and_its_loss_equal_the_reference(case, run):
    """Every number of every patch, hidden or not; the loss is the mean over the records."""
    case.compare_all(run(oracle("omnimae_pretrain"), case))


@pytest.mark.parametrize("case", [*cases("omnimae_finetune")])
def test_classes_equal_the_reference(case, run):
    """The mean of the patches, then the norm, then the head."""
    case.compare_all(run(oracle("omnimae_finetune"), case))


@pytest.mark.parametrize("name", ["omnimae_pretrain", "omnimae_finetune"])
def test_a_weight_that_is_off_shows(name, run):
    """Fixed positions are read from the file as well."""
    must_differ(name, run)


def ratio(mask: torch.Tensor) -> float:
    """A share that hides as many patches as a mask."""
    row = mask[0].flatten()
    return (int(row.sum()) + 0.5) / row.numel()


def rebuilding(given: Oracle, case: Case, folder: Path) -> mg.Result:
    """The graph that rebuilds, with pixels and a mask in place of those that it prepares and draws."""
    pixels, mask = case.inputs["pixels"], case.inputs["mask"]
    is_still = pixels.ndim == 4
    name = "omnimae/rebuild" if is_still else "omnimae/rebuild_video"
    type_ = f"float[batch 3 {'' if is_still else 'frames '}height width]"
    takers = {f"{node}.pixels": type_ for node in ("hide", "see", "wanted", "beside")}
    outputs = {"prediction": "head.y", "loss": "loss.loss"}
    graph = fed(folder, name, {**takers, "hide.mask": f"bool[batch {'' if is_still else 'slices '}rows columns]"}, outputs, without=(
        "pixels", "inputs.image" if is_still else "inputs.video"
    ))  # fmt: skip
    checkpoint = given.as_folder(folder / "weights", facts(given))
    params = {"checkpoint": str(checkpoint), "size": given.config["image_size"], "ratio": ratio(mask)}
    loaded = mg.load(graph, params=params if is_still else {**params, "frames": given.config["num_frames"]})
    with mg.open(loaded) as pipeline:
        return pipeline.run(hide_mask=mask, **{name.replace(".", "_"): pixels for name in takers})


@pytest.mark.parametrize("case", [*cases("omnimae_pretrain")])
def test_the_graph_that_rebuilds_equals_the_reference(case, tmp_path):
    """The shipped graphs, picture and clip."""
    given = oracle("omnimae_pretrain")
    result = rebuilding(given, case, tmp_path)
    case.compare_all({"prediction": result["prediction"], "loss": result["loss"].mean()})


@pytest.mark.parametrize("ending", ["folder", ".pth", ".safetensors"])
@pytest.mark.parametrize("case", [*cases("omnimae_finetune")])
def test_the_graph_that_names_classes_equals_the_reference(case, ending, tmp_path):
    """From a folder with a config, and from an official file, whose shapes say all but heads and frames."""
    given, config = oracle("omnimae_finetune"), oracle("omnimae_finetune").config
    is_still = case.inputs["pixels"].ndim == 4
    type_ = f"float[batch {'' if is_still else 'clips '}3 {'' if is_still else 'frames '}height width]"
    name = "omnimae/classify" if is_still else "omnimae/classify_video"
    graph = fed(
        tmp_path,
        name,
        {"see.pixels": type_},
        {"logits": "head.y" if is_still else "scores.y"},
        without=("pixels", "inputs.image" if is_still else "inputs.video"),
    )
    if ending == "folder":
        checkpoint = given.as_folder(tmp_path / "weights", facts(given))
    else:
        checkpoint = given.as_file(tmp_path / f"weights{ending}")
        told = f"{{num_heads: {config['num_heads']}, num_frames: {config['num_frames']}}}"
        graph.write_text(graph.read_text() + f"nodes.see.with: {told}\n")
    with mg.open(mg.load(graph, params={"checkpoint": str(checkpoint), "size": config["image_size"]})) as pipeline:
        pixels = case.inputs["pixels"]
        result = pipeline.run(see_pixels=pixels if is_still else pixels[:, None].expand(-1, 2, -1, -1, -1, -1))  # the mean of equal clips
        case.compare_all({"logits": result["logits"]})
