"""Which file of a folder holds its weights: the one that transformers takes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import views, weights

FORMS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
SIZES = {"hidden_size": 6, "intermediate_size": 5, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 4, "patch_size": 2}


def opened(folder: Path) -> weights.Weights:
    view = views.find(str(folder), registry=assemble({}), folder=None, trusted=True, offline=True)
    return weights.open(view, offline=True)


def refused(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        opened(folder)
    return str(caught.value)


def write(folder: Path, form: str, value: float) -> None:
    """Weights whose class token says which form they were written in."""
    state = {name: torch.full_like(tensor, value) for name, tensor in hf.ViTModel(hf.ViTConfig(**SIZES)).state_dict().items()}
    if form.endswith(".index.json"):
        shard = f"shard-of-{form.removesuffix('.index.json')}"
        (folder / form).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(state, shard)}))
        form = shard
    save_file(state, folder / form, metadata={"format": "pt"}) if form.endswith(".safetensors") else torch.save(state, folder / form)


@pytest.mark.parametrize("forms", [pair for size in (1, 2) for pair in itertools.combinations(FORMS, size)], ids="+".join)
def test_of_several_forms_the_one_is_read_that_transformers_reads(tmp_path: Path, forms: tuple[str, ...]):
    """A folder that was saved again in another form keeps the older files."""
    hf.ViTConfig(**SIZES).save_pretrained(tmp_path)
    for form in forms:
        write(tmp_path, form, float(FORMS.index(form)))
    reference = hf.ViTModel.from_pretrained(tmp_path)
    assert torch.equal(opened(tmp_path).tensor("embeddings.cls_token"), reference.embeddings.cls_token)


def test_an_index_whose_shards_are_gone_is_not_looked_at_beside_the_one_file(tmp_path: Path):
    hf.ViTModel(hf.ViTConfig(**SIZES)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    assert [path.name for path in opened(tmp_path).view.weight_files] == ["model.safetensors"]


def test_the_file_that_a_config_names_goes_over_all_others(tmp_path: Path):
    """`transformers_weights`, as in transformers."""
    (tmp_path / "config.json").write_text(json.dumps({**hf.ViTConfig(**SIZES).to_dict(), "transformers_weights": "other.safetensors"}))
    write(tmp_path, "model.safetensors", 1.0)
    write(tmp_path, "other.safetensors", 2.0)
    reference = hf.ViTModel.from_pretrained(tmp_path)
    assert torch.equal(opened(tmp_path).tensor("embeddings.cls_token"), reference.embeddings.cls_token)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", 3, ["a"], "absent.safetensors", "absent.safetensors.index.json"])
def test_a_config_that_names_no_file_of_its_folder_is_refused(tmp_path: Path, name: object):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "transformers_weights": name}))
    said = refused(tmp_path)
    assert said.startswith("source-damaged")
    assert "transformers_weights" in said


def test_of_several_files_by_other_names_none_is_chosen_and_all_are_named(tmp_path: Path):
    """transformers takes `model.fp16.safetensors` only when its variant is asked for."""
    (tmp_path / "config.json").write_text("{}")
    for name in ("model.bf16.safetensors", "model.fp16.safetensors"):
        save_file({"a": torch.zeros(2)}, tmp_path / name)
    assert "it has model.bf16.safetensors, model.fp16.safetensors" in refused(tmp_path)
