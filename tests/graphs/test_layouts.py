"""The same checkpoint under the names of other versions gives the same answer: names changed over the years."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import modelgraft as mg
from support import checkpoints
from support.pictures import picture

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise; tensors lie elsewhere in the other file, which may round otherwise


def renamed(folder: Path, copy: Path, rename: Callable[[str], str], *, extra: dict[str, torch.Tensor] | None = None) -> Path:
    """A copy of a checkpoint whose tensors have other names, and tensors that old files hold beside them."""
    shutil.copytree(folder, copy)
    state = {rename(key): tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file({**state, **(extra or {})}, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def before_five(key: str) -> str:
    """LLaVA as files of transformers 4 name it."""
    return key.replace("vision_tower.", "vision_tower.vision_model.", 1)


def in_memory(key: str) -> str:
    """LLaVA as transformers 5 names it in memory."""
    if key == "language_model.lm_head.weight":
        return "lm_head.weight"
    return "model." + key.replace("language_model.model.", "language_model.", 1)


@pytest.mark.parametrize("rename", [before_five, in_memory])
def test_llava_under_other_names_answers_the_same(tmp_path: Path, rename: Callable[[str], str]):
    """Files of transformers 4 with a buffer that is computed now, and names as in memory."""
    checkpoints.llava(tmp_path / "saved")
    places = {"vision_tower.vision_model.embeddings.position_ids": torch.arange(10)[None]} if rename is before_five else None
    other = renamed(tmp_path / "saved", tmp_path / "other", rename, extra=places)
    answers = []
    for folder in (tmp_path / "saved", other):
        with mg.open("llava", params={"checkpoint": str(folder), "max_new_tokens": 8}) as pipeline:
            answers.append(pipeline.run(image=picture(31, 17), prompt="what is it?")["text"])
    assert answers[0] == answers[1]


def test_clip_with_the_buffers_of_old_files_is_read(tmp_path: Path):
    """position_ids of both towers are computed now, and no left-over tensors."""
    checkpoints.clip(tmp_path / "saved")
    places = {"vision_model.embeddings.position_ids": torch.arange(10)[None], "text_model.embeddings.position_ids": torch.arange(19)[None]}
    other = renamed(tmp_path / "saved", tmp_path / "other", lambda key: key, extra=places)
    logits = []
    for folder in (tmp_path / "saved", other):
        with mg.open("clip", params={"checkpoint": str(folder)}) as pipeline:
            logits.append(pipeline.run(image=picture(31, 17), labels=["a photo of a cat", "dog"])["logits"])
    torch.testing.assert_close(logits[0], logits[1], **CLOSE)


def test_a_checkpoint_in_shards_or_as_a_pickle_of_tensors_is_read(tmp_path: Path):
    """ViT cut into files with an index, and as pytorch_model.bin."""
    made = checkpoints.vit(tmp_path / "saved")
    made.model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    (tmp_path / "pickle").mkdir()
    torch.save(load_file(tmp_path / "saved" / "model.safetensors"), tmp_path / "pickle" / "pytorch_model.bin")
    shutil.copy(tmp_path / "saved" / "config.json", tmp_path / "pickle")
    logits = []
    for name in ("saved", "shards", "pickle"):
        shutil.copy(tmp_path / "saved" / "preprocessor_config.json", tmp_path / name) if name != "saved" else None
        with mg.open("vit", params={"checkpoint": str(tmp_path / name)}) as pipeline:
            logits.append(pipeline.run(image=picture(31, 17))["logits"])
    torch.testing.assert_close(logits[0], logits[1], **CLOSE)
    torch.testing.assert_close(logits[0], logits[2], **CLOSE)


def test_a_tensor_that_is_missing_or_left_over_is_named(tmp_path: Path):
    """Only what a graph needs is read: a fault of the tongue does not show while the eye alone runs."""
    checkpoints.llava(tmp_path / "saved")
    faulty = renamed(tmp_path / "saved", tmp_path / "other", lambda key: key.replace("layers.1.mlp.up_proj", "layers.1.mlp.up_proi"))
    with mg.open("llava", params={"checkpoint": str(faulty), "max_new_tokens": 8}) as pipeline:
        seen = pipeline.run(outputs=["project.y"], image=picture(31, 17), prompt="what is it?")["project.y"]
        assert torch.isfinite(torch.as_tensor(seen)).all()
        with pytest.raises(
            mg.SourceError, match=r"1 missing: .*layers\.1\.mlp\.up_proj\.weight.*1 left over: .*layers\.1\.mlp\.up_proi\.weight"
        ):
            pipeline.run(image=picture(31, 17), prompt="what is it?")
