"""wav2vec 2.0 against fairseq: group and layer norms, features, padded sounds, through the loader of each part with fairseq's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from modelgraft.installed.discovery import discover
from support.open_part import open_part
from support.oracles import Case, Oracle, oracle

REGISTRY = discover()
NAMES = ("wav2vec2_group", "wav2vec2_layer")
ABOUT_THE_CASES = ("samples", "padded_from")  # numbers of the recordings, which no config of a model has


def folder_of(given: Oracle, folder: Path) -> str:
    """A folder with fairseq's words and keys."""
    words = {key: value for key, value in given.config.items() if key not in ABOUT_THE_CASES}
    return str(given.as_folder(folder, {"model_type": "wav2vec2", **words}))


def heard(given: Oracle, case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """The outputs of a case that the encoder gives."""
    ear = open_part(REGISTRY, "audio/encoder", folder_of(given, folder), statistics="batch")
    mask = ~case.inputs["padding"] if "padding" in case.inputs else None
    with torch.no_grad():
        found: dict[str, Any] = ear(case.inputs["wave"], mask, None)
    named = {"encoder": found["tokens"], "conv": found["conv_features"], "frame_padding": ~found["frame_mask"]}
    return {name: tensor for name, tensor in named.items() if name in case.outputs}


@pytest.mark.parametrize("name", NAMES)
def test_features_and_padding_equal_fairseq(name: str, tmp_path: Path):
    for case in oracle(name).cases.values():
        if "mask" not in case.inputs:
            case.compare_all(heard(oracle(name), case, tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_alone_says_all_but_heads_and_strides(name: str, tmp_path: Path):
    """What no shape says is asked for by name."""
    given = oracle(name)
    file, case = str(given.as_file(tmp_path / "alone.safetensors")), given.cases["features"]
    strides = tuple(row[2] for row in given.config["conv_layers"])
    with pytest.raises(ValueError, match=r"set `with: \{conv_stride:"):
        open_part(REGISTRY, "audio/encoder", file)
    with pytest.raises(ValueError, match=r"set `with: \{num_attention_heads:"):
        open_part(REGISTRY, "audio/encoder", file, conv_stride=strides)
    ear = open_part(REGISTRY, "audio/encoder", file, conv_stride=strides, num_attention_heads=given.config["encoder_attention_heads"])
    case.compare(encoder=ear(case.inputs["wave"], None, None)["tokens"])
