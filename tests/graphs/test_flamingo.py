"""Flamingo, OpenFlamingo and IDEFICS as shipped graphs, against their reference implementations."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.tools.exporting import export_graph
from modelgraft.tools.importer import import_graph
from modelgraft_plugins.families import idefics
from support import checkpoints, openflamingo
from support.checkpoints import Checkpoint
from support.openflamingo import HEADS, REFERENCE, RESAMPLER_HEADS, text_of
from support.pictures import gallery, picture

pytestmark = [
    pytest.mark.usefixtures("untuned_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
PARTS = pytest.mark.whole(
    "tests/plugins/test_onnx_parts.py::test_a_part_gives_torchs_numbers",
    "tests/plugins/test_gated.py::test_on_onnx_the_answers_are_those_of_torch",
)
NEW_TOKENS = 9
PICTURES = [gallery()[name] for name in ("landscape", "portrait", "grey", "rgba")]
PROMPTS = ["Question: how many cats are there? Answer:", "a photo of", "the", "what do you see in the picture"]
OPEN = ("<fake_token_around_image>", "<image>", "<fake_token_around_image>")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A tiny IDEFICS."""
    return checkpoints.idefics(tmp_path_factory.mktemp("idefics"))


def written(theirs: Checkpoint, pictures: list[Any], prompts: list[str]) -> dict[str, torch.Tensor]:
    """What IDEFICS' own processor makes of one picture and one text per record."""
    return theirs.processor(images=pictures, text=prompts, return_tensors="pt")  # a flat list: pictures stand before their texts


def generated(theirs: Checkpoint, inputs: dict[str, torch.Tensor], **options: Any) -> tuple[list[str], torch.Tensor]:
    """The new texts, and the logits of the first new token, of transformers' own `generate`."""
    found = theirs.model.generate(
        **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True, **options
    )
    new = found.sequences[:, inputs["input_ids"].shape[1] :]
    return [theirs.processor.tokenizer.decode(row, skip_special_tokens=True) for row in new], found.logits[0]


def ours(theirs: Checkpoint, **params: Any) -> mg.Graph:
    """The shipped graph over the same checkpoint."""
    return mg.load("idefics", params={"checkpoint": str(theirs.folder), "max_new_tokens": NEW_TOKENS, **params})


@pytest.mark.parametrize("index", range(4), ids=["landscape", "portrait", "grey", "rgba"])
def test_idefics_answers_as_transformers(theirs: Checkpoint, index: int):
    """Greedy tokens are identical; pixels equal; tokens, latents and first logits within 1e-5."""
    inputs = written(theirs, [PICTURES[index]], [PROMPTS[index]])
    texts, logits = generated(theirs, inputs)
    with mg.open(ours(theirs)) as pipeline:
        outputs = ["text", "llm.logits", "pixels.pixels", "vision.tokens", "resampler.latents"]
        result = pipeline.run(outputs=outputs, image=PICTURES[index], prompt=PROMPTS[index])
    with torch.no_grad():
        tokens = theirs.model.model.vision_model(inputs["pixel_values"][:, 0]).last_hidden_state
        latents = theirs.model.model.perceiver_resampler(tokens)
    assert torch.equal(result["pixels.pixels"], inputs["pixel_values"][:, 0])
    torch.testing.assert_close(result["vision.tokens"], tokens, **CLOSE)
    torch.testing.assert_close(result["resampler.latents"], latents, **CLOSE)
    torch.testing.assert_close(result["llm.logits"], logits, **CLOSE)
    assert result["text"] == texts[0]


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnx", marks=[pytest.mark.slow, PARTS])])
def test_a_batch_of_unlike_prompts_and_beams_answer_as_transformers(theirs: Checkpoint, backend: str):
    """Padding and the rows that beams move change nothing, on either backend."""
    inputs = written(theirs, PICTURES, PROMPTS)
    texts, logits = generated(theirs, inputs)
    with mg.open(ours(theirs), backend=backend) as pipeline:
        result = pipeline.run(outputs=["text", "llm.logits"], image=PICTURES, prompt=PROMPTS)
    assert (result["llm.logits"] - logits).abs().max() <= (1e-5 if backend == "torch" else 1e-4 * logits.abs().max())
    assert result["text"] == texts
    texts, _ = generated(theirs, inputs, num_beams=3)
    with mg.open(ours(theirs, **{"nodes.llm.with.beams": 3}), backend=backend) as pipeline:
        assert pipeline.run(image=PICTURES, prompt=PROMPTS)["text"] == texts


def test_several_pictures_stand_where_their_tokens_do(theirs: Checkpoint, tmp_path: Path):
    """Each word sees the last picture before it, and none behind an end of text: the attention matrix of IDEFICS' processor."""
    spoken = [PICTURES[0], "a cat", PICTURES[1], "and a dog</s>the end"]
    inputs = theirs.processor(images=None, text=[spoken], return_tensors="pt")
    with torch.no_grad():
        logits = theirs.model(**inputs).logits[:, -1]
    path = tmp_path / "several.yaml"
    path.write_text(SEVERAL)
    prompt = "".join([*OPEN, "a cat", *OPEN, "and a dog</s>the end"])
    with mg.open(mg.load(path, params={"checkpoint": str(theirs.folder)})) as pipeline:
        with torch.no_grad():
            tokens = theirs.model.model.vision_model(inputs["pixel_values"][0]).last_hidden_state
        found = pipeline.run(tokens=tokens[None], prompt=prompt)["logits"]
    assert inputs["image_attention_mask"][0, -1].tolist() == [0, 0], "the last word sees nothing"
    torch.testing.assert_close(found, logits, **CLOSE)


SEVERAL = """
modelgraft: 1
params: {checkpoint: none}
inputs: {tokens: "float[batch images 10 24]", prompt: text}
nodes:
  resampler: {use: resampler/perceiver, from: "${checkpoint}#perceiver_resampler", with: {many: true}, in: {media: inputs.tokens}}
  llm:
    use: llm/causal
    from: "${checkpoint}"
    with: {max_new_tokens: 0}
    in: {prompt: inputs.prompt}
    adapters: [{use: adapter/gated_cross_attention, from: "${checkpoint}", in: {media: resampler}}]
outputs: {logits: llm.logits}
"""


def test_records_may_show_several_pictures_and_unlike_numbers_of_them(theirs: Checkpoint, tmp_path: Path):
    """Three, one and two pictures: the tokens and logits of transformers, whose processor fills up with empty pictures too."""
    spoken = [[PICTURES[0], "a cat", PICTURES[1], "a dog", PICTURES[2], "a"], [PICTURES[3], "what is it?"], ["the", *PICTURES[:2], "two"]]
    inputs = theirs.processor(images=None, text=spoken, return_tensors="pt")
    texts, logits = generated(theirs, inputs)
    shown = "".join(OPEN)
    prompts = [f"{shown}a cat{shown}a dog{shown}a", f"{shown}what is it?", f"the{shown}<image><fake_token_around_image>two"]
    path = tmp_path / "several.yaml"
    path.write_text(MANY)
    with mg.open(mg.load(path, params={"checkpoint": str(theirs.folder), "max_new_tokens": NEW_TOKENS})) as pipeline:
        pictures = [PICTURES[:3], [PICTURES[3]], PICTURES[:2]]
        result = pipeline.run(outputs=["text", "llm.logits", "pixels.pixels"], image=pictures, prompt=prompts)
    assert torch.equal(result["pixels.pixels"], inputs["pixel_values"])
    torch.testing.assert_close(result["llm.logits"], logits, **CLOSE)
    assert result["text"] == texts


MANY = """
modelgraft: 1
extends: idefics
inputs.image: "list[image]"
nodes.pixels.with.many: true
nodes.vision.with.many: true
nodes.resampler.with.many: true
"""


def test_one_example_before_a_question_is_what_the_graph_for_one_picture_answers(tmp_path: Path):
    """`fewshot` with a list of one picture and `openflamingo` with that picture, from picture to text, with new parts between."""
    found = openflamingo.parts(tmp_path)
    checkpoints.clip(tmp_path / "clip")
    params = {"vision": str(tmp_path / "clip"), "language": str(found.language), "every": 2, "tokens": [], "max_new_tokens": 4}
    answers = []
    for name, image in (("openflamingo", PICTURES[0]), ("fewshot", [PICTURES[0]])):
        given = {**params, "nodes.resampler.from": None, "nodes.llm.adapters": [FRESH]}
        with mg.open(mg.load(name, params=given), seed=3) as pipeline:
            answers.append(pipeline.run(outputs=["text", "resampler.latents"], image=image, prompt="<image> w5 w9"))
    assert torch.equal(answers[1]["resampler.latents"][:, 0], answers[0]["resampler.latents"])
    assert answers[0]["text"] == answers[1]["text"]


FRESH = {"use": "adapter/gated_cross_attention", "with": {"every": 2}, "in": {"media": "resampler"}}


def test_idefics_is_planned_to_the_unit(theirs: Checkpoint):
    """The tiny one as built by transformers, and the published one with its two extra tokens."""
    count = sum(parameter.numel() for parameter in theirs.model.parameters())
    assert mg.plan(ours(theirs)).totals.parameters == count
    assert mg.plan(ours(theirs), exact=True).totals.parameters == count
    assert mg.plan(mg.load("idefics")).totals.parameters == 8_929_679_632


def test_an_idefics_is_imported_as_a_graph_of_its_own(theirs: Checkpoint, tmp_path: Path):
    """`modelgraft import` knows the family."""
    path = tmp_path / "mine.yaml"
    path.write_text(import_graph(str(theirs.folder), folder=tmp_path))
    with mg.open(path) as mine, mg.open("idefics", params={"checkpoint": str(theirs.folder)}) as shipped:
        given = {"image": picture(31, 17), "prompt": "what is it?"}
        assert mine.run(**given)["text"] == shipped.run(**given)["text"]


@pytest.mark.whole("tests/core/test_exporting.py::test_an_exported_language_model_writes_without_modelgraft")
@pytest.mark.slow
def test_an_exported_idefics_writes_without_modelgraft(theirs: Checkpoint, tmp_path: Path):
    """From prepared pixels and token ids, with onnxruntime and numpy alone: the tokens that transformers writes."""
    export_graph(ours(theirs), tmp_path / "out", backend="onnx", open_pipeline=lambda graph: mg.open(graph, backend="onnx"))
    inputs = written(theirs, PICTURES[:1], PROMPTS[:1])
    found = theirs.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1)
    numpy.save(tmp_path / "ids.npy", inputs["input_ids"][0].numpy())
    numpy.save(tmp_path / "pixels.npy", inputs["pixel_values"][:, 0].numpy())
    marker = theirs.processor.tokenizer.convert_tokens_to_ids("<image>")
    words = ["llm=ids.npy", "pixels.pixels=pixels.npy", "--medium", str(marker), "--new", str(NEW_TOKENS)]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "out" / "run.py"), *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert numpy.load(tmp_path / "llm.ids.npy").tolist() == found[0, inputs["input_ids"].shape[1] :].tolist()


def test_a_graph_that_extends_a_shipped_one_names_its_own_files_for_adapters(theirs: Checkpoint, tmp_path: Path):
    """They lie beside it, not beside the shipped graph; those of a shipped graph are given from outside."""
    (tmp_path / "model").symlink_to(theirs.folder)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "modelgraft: 1\nextends: idefics\nparams.checkpoint.default: ./model\n"
        "nodes.llm.adapters: [{use: adapter/gated_cross_attention, from: ./model, in: {media: resampler}}]\n"
    )
    with pytest.raises(mg.GraphError, match=r"outside-folder"):
        mg.check(path)
    (tmp_path / "model").unlink()
    shutil.copytree(theirs.folder, tmp_path / "model")
    assert mg.check(path).nodes["llm"].adapters[0].source.folder == tmp_path / "model"


def test_silent_configs_mean_what_transformers_means():
    """The tongue of a config that says nothing."""
    config = hf.IdeficsConfig()
    assert {name: getattr(config, name) for name in idefics.SILENT} == dict(idefics.SILENT)


@pytest.mark.parametrize("layout", ["safetensors", "pt"])
def test_openflamingo_answers_as_its_reference(tmp_path: Path, layout: str):
    """From prepared pixels on: the tokens of the eye, the latents, and the logits after the prompt; from a file as it was published too."""
    found, case = openflamingo.parts(tmp_path), REFERENCE.cases["one_row"]
    trained = found.trained if layout == "safetensors" else openflamingo.as_published(found.trained)
    params = {
        "checkpoint": str(trained), "language": str(found.language), "nodes.vision.from": str(found.vision), "every": 2,
        "tokens": [], "max_new_tokens": 0, **{f"nodes.resampler.with.{name}": value for name, value in RESAMPLER_HEADS.items()},
    }  # fmt: skip
    if layout == "pt":  # its tensors say no sizes before they are read
        sizes = {"depth": "resampler_depth", "num_latents": "resampler_latents"}
        params |= {f"nodes.resampler.with.{name}": REFERENCE.config[theirs] for name, theirs in sizes.items()}
    path = tmp_path / "prepared.yaml"
    path.write_text(PREPARED.format(**HEADS))
    with mg.open(mg.load(path, params=params)) as pipeline:
        outputs = ["vision.tokens", "resampler.latents", "llm.logits"]
        prompt = text_of(case.inputs["lang_x"][0].tolist())
        result = pipeline.run(outputs=outputs, pixels=case.inputs["vision_x"][:, 0, 0], prompt=prompt)
    tokens, latents, logits = (result[name] for name in outputs)
    case.compare(vision_tokens=tokens[:, None, None], latents=latents[:, None])
    assert (logits - case.outputs["logits"][:, -1]).abs().max() <= case.tolerances["logits"]


PREPARED = """
modelgraft: 1
extends: openflamingo
inputs.image: null
inputs.pixels: "float[batch 3 32 32]"
nodes.pixels: null
nodes.vision.in.pixels: inputs.pixels
nodes.llm.adapters:
  - use: adapter/gated_cross_attention
    from: "${{checkpoint}}#lang_encoder"
    with: {{every: "${{every}}", num_heads: {num_heads}, head_dim: {head_dim}}}
    in: {{media: resampler}}
"""


def test_an_untouched_tongue_gets_the_tokens_and_embeddings_that_were_trained(tmp_path: Path):
    """The tokens are added in their order, their embeddings are those of the file, and the prompt is read as the reference reads it."""
    found, case = openflamingo.parts(tmp_path), REFERENCE.cases["one_row"]
    openflamingo.untouched_language(tmp_path / "untouched")
    added = [openflamingo.word(index) for index in range(openflamingo.IMAGE, REFERENCE.config["vocab_size"])]
    params = {
        "checkpoint": str(found.trained), "language": str(tmp_path / "untouched"), "nodes.vision.from": str(found.vision), "every": 2,
        "tokens": added, "max_new_tokens": 0, **{f"nodes.resampler.with.{name}": value for name, value in RESAMPLER_HEADS.items()},
    }  # fmt: skip
    path = tmp_path / "prepared.yaml"
    path.write_text(PREPARED.format(**HEADS))
    given = {"pixels": case.inputs["vision_x"][:, 0, 0], "prompt": text_of(case.inputs["lang_x"][0].tolist())}
    with mg.open(mg.load(path, params=params)) as pipeline:
        logits = pipeline.run(outputs=["llm.logits"], **given)["llm.logits"]
    known = openflamingo.IMAGE  # the head of the added tokens is not in such files: it starts as the mean of the others
    expected = case.outputs["logits"][:, -1, :known]
    assert (logits[:, :known] - expected).abs().max() <= case.tolerances["logits"]
    torch.testing.assert_close(logits[:, known:], expected.mean(1, keepdim=True).expand(-1, 6), rtol=0.0, atol=2e-5)


def test_too_few_tokens_are_told_with_both_numbers(tmp_path: Path):
    """A file of more tokens than the tongue has."""
    found = openflamingo.parts(tmp_path)
    openflamingo.untouched_language(tmp_path / "untouched")
    params = {
        "checkpoint": str(found.trained), "language": str(tmp_path / "untouched"), "nodes.vision.from": str(found.vision), "every": 2,
        "max_new_tokens": 0, **{f"nodes.resampler.with.{name}": value for name, value in RESAMPLER_HEADS.items()},
    }  # fmt: skip
    path = tmp_path / "prepared.yaml"
    path.write_text(PREPARED.format(**HEADS))
    wanted = r"holds embeddings of 67 tokens, 32 wide; llm has 64, 32 wide\n *name the tokens that were added in llm\.extra_tokens"
    with mg.open(mg.load(path, params=params)) as pipeline, pytest.raises(mg.SourceError, match=wanted):
        pipeline.run(pixels=REFERENCE.cases["one_row"].inputs["vision_x"][:, 0, 0], prompt="<image> w5")


def test_a_new_flamingo_answers_as_its_tongue_alone(tmp_path: Path):
    """With a real picture, end to end: the gates are closed, and that random numbers start is said."""
    found = openflamingo.parts(tmp_path)
    checkpoints.clip(tmp_path / "clip")
    params = {"vision": str(tmp_path / "clip"), "language": str(found.language), "every": 2, "tokens": [], "max_new_tokens": 4}
    with mg.open("flamingo", params=params) as pipeline:
        result = pipeline.run(outputs=["text", "llm.logits"], image=picture(31, 17), prompt="w5 w9")
    tongue = openflamingo.language_model()
    with torch.no_grad():
        logits = tongue(torch.tensor([[openflamingo.IMAGE, 5, 9]])).logits[:, -1]
    torch.testing.assert_close(result["llm.logits"], logits, **CLOSE)
    assert any("start from random numbers" in text and "resampler" in text for text in result.warnings)
    assert any("start from random numbers" in text and "gated_cross_attention" in text for text in result.warnings)


def test_sizes_alone_start_from_random_numbers_when_that_is_asked_for(tmp_path: Path):
    """A preset names no weights for host or adapter: `init="random"` gives both, and says so; without it that is an error."""
    found = openflamingo.parts(tmp_path)
    params = {
        "language": str(found.language), "nodes.vision.from": str(found.vision), "every": 2, "tokens": [], "max_new_tokens": 0,
        **{f"nodes.resampler.with.{name}": value for name, value in {**RESAMPLER_HEADS, "hidden_size": 36}.items()},
    }  # fmt: skip
    path = tmp_path / "prepared.yaml"
    path.write_text(PREPARED.format(**HEADS).replace("{every:", "{media_size: 36, every:"))
    given = {"pixels": REFERENCE.cases["one_row"].inputs["vision_x"][:, 0, 0], "prompt": "<image> w5"}
    with mg.open(mg.load(path, params=params)) as pipeline, pytest.raises(mg.SourceError, match="no-weights"):
        pipeline.run(**given)
    with mg.open(mg.load(path, params=params), init="random") as pipeline:
        result = pipeline.run(**given)
    said = [text.partition(":")[0] for text in result.warnings if "start from random numbers" in text]
    assert said == ["resampler", "llm"]


def test_published_sizes_of_openflamingo():
    """LLaMA-7B with the tokens that are added, CLIP ViT-L/14 without its projection, and what is trained between them."""
    totals = mg.plan(mg.load("openflamingo")).totals
    between, embeddings = 63_019_008 + 1_115_815_952, (32_000 + 3) * 4096  # the input embeddings are trained too
    assert totals.trainable == between + embeddings
    assert totals.parameters == 6_738_415_616 + 3 * 2 * 4096 + 303_179_776 + between
    assert totals.parameters + 1024 * 768 == 8_221_241_360, "as published, with CLIP's projection"


def test_sizes_of_flamingo_in_the_wiring_of_the_paper():
    """NFNet-F6 as timm counts it without its classifier, and what is trained beside a LLaMA-7B, number by number."""
    nodes = mg.plan(mg.load("flamingo")).nodes
    assert nodes["vision"].parameters.total == 438_359_116 - 3072 * 1000 - 1000
    wide, text, inner = 1536, 4096, 32 * 128
    attention, feed_forward, norm = 4 * wide * 16 * 96, 8 * wide * wide, 2 * wide
    assert nodes["resampler"].parameters.total == 6 * (attention + feed_forward + 3 * norm) + norm + (64 + 8) * wide
    block = 2 * text + text * inner + 2 * wide * inner + inner * text + 1 + 2 * text + 8 * text * text + 1
    assert nodes["llm"].parameters.trainable == 8 * block
    for every, blocks in ((1, 32), (7, 4)):
        plan = mg.plan(mg.load("flamingo", params={"every": every}))
        assert plan.nodes["llm"].parameters.trainable == blocks * block
