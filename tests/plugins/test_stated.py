"""Every key that the library may write into a config is obeyed, changes nothing, or is told: readers of towers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.models.idefics.configuration_idefics import IdeficsVisionConfig
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import SourceError
from modelgraft.sources import views
from modelgraft_plugins import audio, efficientnet, formats, heads, llm, projectors, qformer, resampler, stated, text, vision
from modelgraft_plugins.families import idefics
from modelgraft_plugins.formats.published import PUBLISHED
from support import checkpoints
from support.open_part import open_part

REGISTRY = assemble({
    "audio": audio, "efficientnet": efficientnet, "formats": formats, "heads": heads, "llm": llm, "projectors": projectors,
    "qformer": qformer,
    "resampler": resampler, "text": text, "vision": vision,
})  # fmt: skip
WHOLE = idefics.CARD.wholes["idefics"]
IDEFICS = stated.tower_table(WHOLE.obeyed, WHOLE.idle)
TOWERS = {
    "vision/encoder": (hf.CLIPVisionConfig, hf.SiglipVisionConfig, hf.ViTConfig, hf.Blip2VisionConfig, hf.InstructBlipVisionConfig,
                       IdeficsVisionConfig),
    "text/encoder": (hf.CLIPTextConfig, hf.SiglipTextConfig, hf.BertConfig),
    "qformer/qformer": (hf.Blip2QFormerConfig, hf.InstructBlipQFormerConfig),
    "audio/encoder": (hf.WhisperConfig,),
}  # fmt: skip


def view_of(folder: Path, config: dict[str, Any], part: str = "") -> views.SourceView:
    """A source with this config."""
    (folder / "config.json").write_text(json.dumps(config))
    return views.view(views.parse(f"{folder}{part}"), registry=REGISTRY, folder=None, trusted=True, offline=True)


@pytest.mark.parametrize(("component", "kind"), [(name, kind) for name, kinds in TOWERS.items() for kind in kinds])
def test_every_key_of_the_library_is_known_and_its_defaults_are_not_told(tmp_path, component, kind):
    """A key that is new in the class fails here; a config as the library saves it is quiet."""
    table = {"vision/encoder": vision.table(), "text/encoder": text.table(), "qformer/qformer": qformer.table(),
             "audio/encoder": audio.table()}[component]  # fmt: skip
    saved = kind().to_dict()
    assert ({field.name for field in dataclasses.fields(kind)} | set(saved)) - table.known == set()
    assert list(REGISTRY.components[component].config.unheeded(view_of(tmp_path, saved))) == []


@pytest.mark.parametrize(
    "stated",
    [
        {"model_type": "clip_vision_model", "projection_dim": 768, "vocab_size": 32000},
        {"model_type": "siglip_vision_model", "num_image_tokens": 256, "projector_hidden_act": "gelu_fast", "projection_dim": 2048},
        {"model_type": "clip_vision_model", "is_composition": True},
    ],
    ids=["llava", "paligemma", "former"],
)
def test_keys_of_others_that_published_eyes_state_are_not_told(tmp_path, stated):
    """LLaVA's eye states a vocabulary, PaliGemma's what stands behind it."""
    assert list(REGISTRY.components["vision/encoder"].config.unheeded(view_of(tmp_path, stated))) == []


@pytest.mark.parametrize(
    ("component", "whole", "section", "kind"),
    [
        ("qformer/pair", "blip-2", "qformer_config", hf.Blip2QFormerConfig),
        ("resampler/grouped", "idefics2", "perceiver_config", Idefics2PerceiverConfig),
    ],
)
def test_the_config_of_a_part_that_its_whole_holds_is_known(tmp_path, component, whole, section, kind):
    """Quiet as the library saves it; what is not known is told."""
    saved = kind().to_dict()
    remarks = REGISTRY.components[component].config.unheeded
    assert list(remarks(view_of(tmp_path, {"model_type": whole, section: saved}))) == []
    ((sentence, _),) = remarks(view_of(tmp_path, {"model_type": whole, section: {**saved, "temper": "hot"}}))
    assert f"({section}) states temper" in sentence


@pytest.mark.parametrize("component", TOWERS)
@pytest.mark.parametrize(
    ("key", "value"), [("temper", "hot"), ("is_decoder", True), ("pruned_heads", {"0": [1]}), ("position_embedding_type", "relative_key")]
)
def test_a_key_that_could_change_the_answer_is_told(tmp_path, component, key, value):
    (remark,) = REGISTRY.components[component].config.unheeded(view_of(tmp_path, {key: value}))
    assert f"states {key}: {json.dumps(value)}" in remark[0]


@pytest.mark.parametrize("source", sorted(source for source in PUBLISHED if ":" in source or "/" in source))
def test_published_checkpoints_are_quiet(source):
    """What is told of the checkpoints that everybody uses would soon be read by nobody."""
    view = views.view(views.parse(source), registry=REGISTRY, folder=None, trusted=False, offline=True)
    for part in ("", "#vision_model", "#vision_tower", "#text_model", "#language_model", "#qformer", "#encoder"):
        try:
            seen = view.at(part.removeprefix("#"))
        except SourceError:
            continue
        for component in REGISTRY.components.values():
            try:
                component.config.from_source(seen)
            except ValueError:
                continue
            assert list(component.config.unheeded(seen)) == [], (part, component.id)


def test_the_config_of_an_idefics_is_known(tmp_path):
    """Its language model, its gated blocks and its parts together."""
    saved = hf.IdeficsConfig().to_dict()
    assert ({field.name for field in dataclasses.fields(hf.IdeficsConfig)} | set(saved)) - IDEFICS.known == set()
    assert list(llm.CausalConfig.unheeded(view_of(tmp_path, saved))) == []
    (remark,) = llm.CausalConfig.unheeded(view_of(tmp_path, {**saved, "temper": "hot"}))
    assert "states temper" in remark[0]


FORMER = [
    {"rope_theta": 500.0},
    {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
    {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    {"hidden_act": "gelu", "rms_norm_eps": 0.1},
]


@pytest.mark.parametrize("stated", FORMER)
def test_a_language_model_is_built_of_all_that_its_config_states(tmp_path, stated):
    """Keys of former times as well: the logits of `from_pretrained`."""
    made = checkpoints.llama(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps({**{key: value for key, value in json.loads(file.read_text()).items() if key != "rope_parameters"}, **stated})
    )
    prompt = "Question: how many cats are there? Answer"
    with torch.no_grad():
        model = hf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
        wanted = model(made.processor(prompt, return_tensors="pt").input_ids).logits[:, -1]
    got = open_part(REGISTRY, "llm/causal", str(tmp_path), max_new_tokens=0)([prompt])["logits"]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_weights_that_are_stored_quantised_are_refused_by_name(tmp_path):
    view = view_of(tmp_path, {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}})
    with pytest.raises(ValueError, match=r"stored by gptq \(quantization_config\), which is not read: name the checkpoint"):
        llm.CausalConfig.from_source(view)


def test_a_table_tells_the_value_and_a_way_out():
    table = stated.Table("x.json", frozenset({"a"}), frozenset({"b"}), {"c": (1,)}, {"c": "make it 1"})
    assert table.unheeded({"a": 5, "b": 5, "c": 1, "d": None}, "m") == []
    assert table.unheeded({"c": 2, "d": [7] * 40}, "m") == [
        ("the x.json of m states c: 2, which is not done here, so that answers may differ", "make it 1"),
        (f"the x.json of m states d: {str([7] * 40)[:57]}..., which is not known here, so that answers may differ",
         "take d out of the file where it does not matter to you"),
    ]  # fmt: skip
