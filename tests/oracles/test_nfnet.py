"""NFNet, the eye of Flamingo, in the layout of timm: equal to timm, counted, and prepared as timm prepares pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform, run_node
from modelgraft_plugins import projectors, vision
from modelgraft_plugins.vision.nfnets import NFNet
from support.open_part import configured, counts, open_part
from support.oracles import Case, Oracle, cases, must_differ, oracle
from support.pictures import picture

REGISTRY = assemble({"vision": vision, "projectors": projectors})
SMALL = {
    "depths": (1, 2, 1, 1), "channels": (8, 12, 16, 20), "inner_channels": (4, 6, 8, 10), "gate_channels": (3, 5, 7, 9),
    "stem_channels": 8, "group_size": 2, "features": 14, "image_size": 32,
}  # fmt: skip


def words(given: Oracle, side: int) -> dict[str, object]:
    """What timm's config.json says of a model of its own sizes."""
    return {"architecture": "dm_nfnet_f0", "num_classes": given.config["classes"], "pretrained_cfg": {"input_size": [3, side, side]}}


def by_parts(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
    """From a folder of timm: the vectors of the last stage, what the last convolution makes of them, and the classifier."""
    image = case.inputs["image"]
    with TemporaryDirectory() as folder:
        source = str(given.as_folder(Path(folder), words(given, image.shape[-1])))
        seen = open_part(REGISTRY, "vision/nfnet", f"{source}#vision_model", layer=-1)(image)
        features = open_part(REGISTRY, "vision/nfnet", f"{source}#vision_model")(image)["tokens"]
        logits = open_part(REGISTRY, "projector/linear", f"{source}#classifier", over="vector")(seen["pooled"])
    return {"stage": seen["tokens"], "features": features, "pooled": seen["pooled"], "logits": logits}


@pytest.mark.parametrize("case", cases("nfnet_timm"))
def test_timm_is_equalled_at_several_sizes(case: Case):
    case.compare_all(by_parts(oracle("nfnet_timm"), case))


def test_a_weight_that_is_off_shows():
    must_differ("nfnet_timm", by_parts)


@pytest.mark.parametrize("case", cases("nfnet_timm"))
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_file_of_tensors_alone_says_its_sizes(tmp_path: Path, case: Case, ending: str):
    """All but the size of the pictures, which `with` says."""
    file = oracle("nfnet_timm").as_file(tmp_path / f"eye.{ending}")
    image, eye = case.inputs["image"], f"{file}#vision_model"
    found = open_part(REGISTRY, "vision/nfnet", eye, layer=-1, image_size=image.shape[-1])(image)
    case.compare(stage=found["tokens"], pooled=found["pooled"])


def test_it_is_counted_to_the_unit(tmp_path: Path):
    """By its formula, as built, and in the file, without the classifier."""
    given = oracle("nfnet_timm")
    held = sum(tensor.numel() for key, tensor in given.weights.items() if not key.startswith("head."))
    assert counts(configured(REGISTRY, "vision/nfnet", f"{given.as_folder(tmp_path, words(given, 64))}#vision_model")) == (held, held)


@pytest.mark.parametrize(("size", "count"), [("f0", 71_489_284), ("f3", 254_924_200), ("f6", 438_359_116)])
def test_published_sizes_are_those_of_timm(size: str, count: int):
    """As timm counts them, with the classifier of 1,000 classes; Flamingo's paper counts F6 without it, 435M."""
    assert configured(REGISTRY, "vision/nfnet", f"preset:nfnet-{size}#vision_model").config.parameters() == count - 3072 * 1000 - 1000


def test_pictures_are_prepared_as_timm_prepares_them(tmp_path: Path):
    """A card of the hub says how; squashed to a square that is a little larger, of which the middle is taken."""
    given = oracle("nfnet_timm")
    source = str(given.as_folder(tmp_path, words(given, 64)))
    config = configured(REGISTRY, "vision/preprocess", source).config
    assert (dict(config.size), dict(config.crop_size or {})) == ({"height": 71, "width": 71}, {"height": 64, "width": 64})
    graph = tmp_path / "eye.yaml"
    graph.write_text(
        "modelgraft: 1\ninputs: {image: image}\nnodes:\n"
        "  pixels: {use: vision/preprocess, from: ., in: {image: inputs.image}}\n"
        "  vision: {use: vision/nfnet, from: '.#vision_model', with: {layer: -1}, in: {pixels: pixels}}\noutputs: {tokens: vision.tokens}\n"
    )
    with mg.open(graph) as pipeline:
        assert pipeline.run(image=picture(45, 30))["tokens"].shape == (1, 4, given.config["channels"][-1])


def test_what_its_config_states_and_is_not_built_is_refused(tmp_path: Path):
    """Another network, and a word that would make another one of it."""
    given = oracle("nfnet_timm")
    source = str(given.as_folder(tmp_path, {**words(given, 64), "model_args": {"act_layer": "silu"}}))
    with pytest.raises(mg.SourceError, match="NFNet here has no act_layer: 'silu'"):
        configured(REGISTRY, "vision/nfnet", source)
    whole = str(given.as_folder(tmp_path / "whole", words(given, 64)))
    with pytest.raises(ValueError, match="not model_type 'nfnet': write #vision_model behind the source"):
        configured(REGISTRY, "vision/nfnet", whole)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises((ValueError, mg.SourceError), match="nfnet"):
        configured(REGISTRY, "vision/nfnet", source)


@pytest.mark.parametrize("more", [{}, {"layer": -1}, {"many": True}], ids=str)
def test_it_keeps_its_declaration(more: dict[str, object]):
    """Ports, repeatability, batches, count and saved state."""
    conform(NFNet, {**SMALL, **more})


def test_several_pictures_of_a_record_are_seen_as_alone():
    """What fills a record up gives zeros."""
    pictures = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    pictures[1, 2] = 0
    together = run_node(NFNet, {**SMALL, "many": True}, pixels=pictures, seed=4)
    for record, index in [(0, 0), (0, 2), (1, 1)]:
        alone = run_node(NFNet, SMALL, pixels=pictures[record, index][None], seed=4)
        for name, value in alone.items():
            torch.testing.assert_close(together[name][record, index], value[0], rtol=0.0, atol=1e-5)
    assert together["tokens"][1, 2].abs().max() == together["pooled"][1, 2].abs().max() == 0
