"""What a user sees where the library is not installed, or a folder is none that can be drawn with."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

import modelgraft as mg
from modelgraft.plugin import InputError, resolve

WHOLE = """modelgraft: 1
inputs: {prompt: text}
nodes: {draw: {use: diffusion/text-to-image, from: ./model, in: {prompt: inputs.prompt}}}
outputs: {image: draw.image}
"""


@pytest.mark.parametrize("module", ["building", "schedulers"])
def test_without_the_library_the_extra_is_named(module, monkeypatch):
    """And no traceback of an import."""
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, f"modelgraft_plugins.diffusion.{module}", raising=False)
    with pytest.raises(InputError, match=r"diffusion needs the package diffusers: pip install 'modelgraft\[diffusion\]'"):
        importlib.import_module(f"modelgraft_plugins.diffusion.{module}")


def test_a_node_without_the_library_is_no_defect_of_the_plugin(monkeypatch):
    """One sentence with the extra, at the component that needs it."""
    (component,) = (one for one in mg.components() if one.id == "diffusion/denoise")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    for module in ("unet", "building"):
        monkeypatch.delitem(sys.modules, f"modelgraft_plugins.diffusion.{module}", raising=False)
    with pytest.raises(mg.PluginError) as told:
        resolve(component.module or "", component)
    assert str(told.value) == (
        "component 'diffusion/denoise' cannot be loaded: diffusion needs the package diffusers: pip install 'modelgraft[diffusion]'"
    )
    assert isinstance(told.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"_class_name": "KandinskyPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}, "is no whole Stable Diffusion"),
        ({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}, "unet"),
    ],
)
def test_a_folder_that_is_no_generator_is_told_by_the_check(tmp_path, index, said):
    """With what is wanted in place of it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "whole.yaml").write_text(WHOLE)
    with pytest.raises(mg.ModelgraftError, match=said):
        mg.check(mg.load(tmp_path / "whole.yaml"))


def test_a_text_encoder_of_another_kind_is_told_by_the_check(tmp_path):
    """Before anything is loaded."""
    (tmp_path / "model" / "text_encoder").mkdir(parents=True)
    (tmp_path / "model" / "text_encoder" / "config.json").write_text('{"model_type": "bert"}')
    index = {"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "BertModel"]}
    (tmp_path / "model" / "model_index.json").write_text(json.dumps(index))
    text = WHOLE.replace("diffusion/text-to-image", "diffusion/prompt").replace("prompt: inputs.prompt", "text: inputs.prompt")
    (tmp_path / "read.yaml").write_text(text.replace("draw.image", "draw.prompt_embeds").replace("{image:", "{states:"))
    with pytest.raises(mg.GraphError, match=r"text_encoder is of class 'BertModel', and CLIPTextModel, .* are what is served"):
        mg.check(mg.load(tmp_path / "read.yaml"))
