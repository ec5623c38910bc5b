"""Folders of models: one source with a part for each folder that the list names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import views, weights
from support.running import registry_of


def written(folder: Path, *, shards: bool = False) -> Path:
    """A list of a painter and a reader, with a scheduler and a tokenizer beside them."""
    index = {"_class_name": "Pair", "painter": ["lib", "Painter"], "reader": ["lib", "Reader"], "scheduler": ["lib", "Steps"]}
    texts = {
        "model_index.json": {**index, "tokenizer": ["lib", "Words"], "checker": [None, None]},
        "painter/config.json": {"_class_name": "Painter", "size": 5},
        "reader/config.json": {"model_type": "reads", "hidden_size": 3},
        "scheduler/scheduler_config.json": {"_class_name": "Steps", "steps": 7},
        "tokenizer/words.json": {"a": 1},
    }
    for name, value in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    if shards:
        save_file({"w": torch.ones(2, 5)}, folder / "painter" / "one.safetensors")
        save_file({"b": torch.zeros(2)}, folder / "painter" / "two.safetensors")
        listed = {"weight_map": {"w": "one.safetensors", "b": "two.safetensors"}}
        (folder / "painter" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(listed))
    else:
        save_file({"w": torch.ones(2, 5), "b": torch.zeros(2)}, folder / "painter" / "diffusion_pytorch_model.safetensors")
    save_file({"w": torch.full((3,), 2.0)}, folder / "reader" / "model.safetensors")
    return folder


def found(folder: Path, part: str = "", **more):
    text = f"{folder}#{part}" if part else str(folder)
    return views.find(text, registry=registry_of(), folder=None, trusted=True, offline=True, **more)


@pytest.mark.parametrize("shards", [False, True])
def test_each_folder_is_a_part(tmp_path, shards):
    """With its config, its tensors under their own names, and its files."""
    painter, reader = (found(written(tmp_path / "m", shards=shards), part) for part in ("painter", "reader"))
    assert painter.config["size"] == 5
    assert reader.config["hidden_size"] == 3
    assert painter.root["scheduler_config"]["steps"] == 7
    assert painter.tensor_shapes() == {"w": (2, 5), "b": (2,)}
    assert reader.tensor_shapes() == {"w": (3,)}
    assert reader.json("config.json") == reader.config
    opened = weights.open(reader, offline=True)
    assert opened.state()["w"].tolist() == [2.0] * 3
    assert opened.folder == tmp_path / "m" / "reader"


def test_the_whole_holds_all_of_them(tmp_path):
    """Keys stand behind the names of their folders, files are seen from the list's folder."""
    whole = found(written(tmp_path / "m"))
    assert whole.tensor_shapes() == {"painter.w": (2, 5), "painter.b": (2,), "reader.w": (3,)}
    assert whole.json("tokenizer/words.json") == {"a": 1}
    assert weights.open(whole, offline=True).tensor("painter.w").tolist() == torch.ones(2, 5).tolist()


def test_a_part_that_the_list_does_not_have_is_told(tmp_path):
    with pytest.raises(SourceError, match="has no part 'eye'; it has: painter, reader"):
        found(written(tmp_path / "m"), "eye")


def test_any_changed_file_is_another_content(tmp_path):
    """Results and exports that were kept are for others."""
    folder = written(tmp_path / "m")
    before = found(folder, "painter").identity()
    save_file({"w": torch.ones(3, 5), "b": torch.zeros(3)}, folder / "painter" / "diffusion_pytorch_model.safetensors")
    assert found(folder, "painter").identity() != before


def test_a_config_of_the_folder_itself_goes_first(tmp_path):
    """A list beside it is a file like others."""
    folder = written(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps({"model_type": "whole"}))
    assert found(folder).config == {"model_type": "whole"}


def test_a_list_leads_nowhere_else(tmp_path):
    """Folders by names that are words, and configs that stay below the document's folder."""
    folder = written(tmp_path / "in" / "m")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "../out": ["lib", "Other"], "x/y": ["lib", "Other"]}))
    assert "../out_config" not in found(folder).root
    (tmp_path / "out.json").write_text(json.dumps({"secret": 1}))
    (folder / "painter" / "config.json").unlink()
    (folder / "painter" / "config.json").symlink_to(tmp_path / "out.json")
    with pytest.raises(SourceError, match="leads outside"):
        views.find("./m", registry=registry_of(), folder=tmp_path / "in", trusted=False, offline=True)


@pytest.mark.parametrize("text", ["[]", "{", "\x00"])
def test_a_list_that_cannot_be_read_is_one_error(tmp_path, text):
    folder = written(tmp_path / "m")
    (folder / "model_index.json").write_text(text)
    with pytest.raises(SourceError, match=r"model_index\.json"):
        found(folder)
