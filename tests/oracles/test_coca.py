"""CoCa beside open_clip: vectors, what the decoder looks at, logits, labels, both losses, and captions written greedily."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import modelgraft as mg
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

NAME = "coca_openclip"
PREPARED = ("pixels", "tokens", "inputs.image", "inputs.text")
PIXELS, IDS = {"vision.pixels": "float[batch 3 height width]"}, {"words.ids": "int64[batch text_tokens]"}


def graphs(folder: Path) -> tuple[Path, Path]:
    """The graphs of training and of captions, fed with tensors."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    vectors = {"image_vector": "pool.vector", "text_vector": "words.vector", "seen": "pool.tokens", "labels": "targets"}
    train = fed(folder / "train", "coca/train", PIXELS | IDS, vectors, without=(*PREPARED, "nodes.words.in.mask", "nodes.targets.in.mask"))
    train.write_text(train.read_text() + "nodes.targets.in.ids: inputs.words_ids\n")
    without = (*PREPARED, "words", "inputs.prompt", "nodes.write.in.prompt", "outputs.text_vector", "outputs.text")
    return train, fed(folder, "coca", PIXELS, {"ids": "write.ids"}, without=without)


def run(given: Oracle, case: Case, folder: Path) -> Mapping[str, torch.Tensor]:
    """Through the shipped graphs, from a folder in the official layout."""
    checkpoint = {"checkpoint": str(given.as_folder(folder / "model", {"model_type": "coca", **given.config}))}
    train, write = graphs(folder)
    images, ids = case.inputs["image"], case.inputs["ids"]
    with mg.open(mg.load(train, params=checkpoint)) as pipeline:
        found = pipeline.run(vision_pixels=images, words_ids=ids)
        labels = found["labels"][:, :-1]
        got = {
            "image_features": found["image_vector"],
            "text_features": found["text_vector"],
            "image_tokens": found["seen"],
            "logits": found["logits"][:, :-1],  # the reference leaves out the last place, which has no label
            "labels": labels.where(labels >= 0, 0),
            "contrastive": found["contrastive"].mean(),
            "caption_times_2": 2 * found["caption"].mean(),
        }
    count = case.outputs["greedy_ids"].shape[1]
    settings = {"nodes.write.with.max_new_tokens": count - 1, "nodes.write.with.end_ids": [], "nodes.write.with.begin_id": int(ids[0, 0])}
    with mg.open(mg.load(write, params=checkpoint | settings)) as pipeline:
        got["greedy_ids"] = torch.cat([ids[:, :1], pipeline.run(vision_pixels=images, outputs=["write.ids"])["write.ids"]], dim=1)
    correct = mg.load(train, params=checkpoint | {"nodes.words.with.class_sees": "correct"})
    with mg.open(correct) as pipeline:
        got["text_features_correct_mask"] = pipeline.run(vision_pixels=images, words_ids=ids, outputs=["words.vector"])["words.vector"]
    return {name: got[name] for name in case.outputs}


@pytest.mark.parametrize("case", cases(NAME))
def test_it_equals_open_clip(case: Case, tmp_path: Path):
    """Every output, element by element, through the shipped graphs."""
    case.compare_all(run(oracle(NAME), case, tmp_path))


def test_a_weight_that_is_off_shows(tmp_path: Path):
    """One weight, drawn by a seed."""
    must_differ(NAME, lambda given, case: run(given, case, tmp_path))
