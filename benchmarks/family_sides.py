"""The two sides of every family: the library that knows it whole, and a graph of parts; the same weights, records and answers.

A side is called once per sample and answers about the next record, the same on both sides; what it gives is compared before
anything is timed. The clock is around all of it: the reading of the picture, sound or text, the model, and the text of the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import checkpoints, composed, onnx_sides

Side = Callable[[], Any]
Pair = tuple[Side, Side]  # theirs, ours
NEW = 16  # tokens of an answer
STEPS = 4  # of a picture out of noise
CHOICES = ["a photo of a cat", "a photo of a dog", "a red car", "a house near the sea"]
READER = """
modelgraft: 1
name: reader
params: {checkpoint: null}
inputs: {text: text}
nodes:
  words: {use: text/tokenizer, from: "${checkpoint}", in: {text: inputs.text}}
  read: {use: text/encoder, from: "${checkpoint}", in: {ids: words.ids, mask: words.mask}}
outputs: {tokens: read.tokens}
"""
HEARER = """
modelgraft: 1
name: hearer
params: {checkpoint: null, max_new_tokens: 16}
inputs: {audio: audio}
nodes:
  features: {use: audio/preprocess, from: "${checkpoint}", in: {audio: inputs.audio}}
  ear: {use: audio/encoder, from: "${checkpoint}#encoder", in: {features: features}}
  written:
    use: llm/seq2seq
    from: "${checkpoint}"
    with: {max_new_tokens: "${max_new_tokens}", min_new_tokens: "${max_new_tokens}"}
    in: {memory: ear}
outputs: {text: written.text}
"""
BEGUN = """
modelgraft: 1
extends: stable_diffusion
inputs.noise: "float[batch 4 16 16]"
nodes.denoise.in.latents: inputs.noise
"""


def opened(graph: Any, **params: Any) -> Any:
    """A pipeline on torch that keeps no results."""
    import modelgraft as mg

    return mg.open(mg.load(graph, params=params), backend="torch", cache_bytes=0, offline=True)


def beside(folder: Path, name: str, text: str) -> Path:
    """A graph as a file beside the checkpoint."""
    path = folder.parent / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def imported(folder: Path) -> Path:
    """The graph that `modelgraft import` writes for a checkpoint."""
    from modelgraft.tools.importer import import_graph

    return beside(folder, "imported", import_graph(str(folder), folder=folder.parent))


def pictures() -> Iterator[Any]:
    """Three pictures in turn."""
    return composed.pictures()


# -- what looks and writes ----------------------------------------------------------------------------------------------


def asked(graph: str, kind: str, template: str = "{}", *, is_imported: bool = False, is_listed: bool = False) -> Callable[[Path], Pair]:
    """A picture and a question: processor and `generate`, and the graph; is_listed: it takes any number of pictures."""

    def sides(folder: Path) -> Pair:
        import transformers

        whole = getattr(transformers, kind).from_pretrained(folder).eval()
        processor, shown, others = transformers.AutoProcessor.from_pretrained(folder), pictures(), pictures()
        pipeline = opened(imported(folder) if is_imported else graph, **_params(graph, folder))

        def theirs() -> str:
            given = processor(images=next(shown), text=template.format(composed.ASKED), return_tensors="pt")
            given.pop("labels", None)
            ids = whole.generate(**given, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
            return processor.batch_decode(ids[:, -NEW:], skip_special_tokens=True)[0]

        def ours() -> Any:
            picture = next(others)
            return pipeline.run(image=[picture] if is_listed else picture, prompt=composed.ASKED)["text"]

        return theirs, ours

    return sides


def native(kind: str, pictures_by: str, write: Callable[[dict[str, Any]], str]) -> Callable[[Path], Pair]:
    """A picture at its own size and a question; `write`: the prompt of what is prepared, in place of a processor that wants torchvision."""

    def sides(folder: Path) -> Pair:
        import importlib

        import transformers

        whole = getattr(transformers, kind).from_pretrained(folder).eval()
        module, name = pictures_by.split(":")
        pictures_of = getattr(importlib.import_module(f"transformers.models.{module}"), name).from_pretrained(folder)
        words, shown, others = transformers.AutoTokenizer.from_pretrained(folder), pictures(), pictures()
        pipeline = opened(imported(folder), max_new_tokens=NEW)

        def theirs() -> str:
            seen = dict(pictures_of(next(shown), return_tensors="pt"))
            given = words(write(seen), return_tensors="pt", return_token_type_ids=False)
            types = {"mm_token_type_ids": (given["input_ids"] == whole.config.image_token_id).int()} if "image_grid_thw" in seen else {}
            ids = whole.generate(**given, **seen, **types, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
            return words.batch_decode(ids[:, -NEW:], skip_special_tokens=True)[0]

        return theirs, lambda: pipeline.run(image=[next(others)], prompt=composed.ASKED)["text"]

    return sides


def as_qwen(seen: dict[str, Any]) -> str:
    """A prompt of Qwen2-VL."""
    return f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{as_qwen3(seen)}"


def as_qwen3(seen: dict[str, Any]) -> str:
    """A prompt of Qwen3-VL, which is told nothing first."""
    tokens = "<|image_pad|>" * (int(seen["image_grid_thw"].prod()) // 4)
    asked = f"<|vision_start|>{tokens}<|vision_end|>{composed.ASKED}"
    return f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"


def as_mistral(seen: dict[str, Any]) -> str:
    """A prompt of Mistral 3."""
    rows, columns = (int(side) // 28 for side in seen["image_sizes"][0])
    return f"[INST]{'[IMG_BREAK]'.join(['[IMG]' * columns] * rows)}[IMG_END]{composed.ASKED}[/INST]"


def _params(graph: str, folder: Path) -> dict[str, Any]:
    """An imported graph names its checkpoint itself."""
    return {"max_new_tokens": NEW} if graph == "" else {"checkpoint": str(folder), "max_new_tokens": NEW}


def chosen(graph: str, kind: str, padding: Any) -> Callable[[Path], Pair]:
    """A picture and texts to choose from: the scores."""

    def sides(folder: Path) -> Pair:
        import torch
        import transformers

        whole = getattr(transformers, kind).from_pretrained(folder).eval()
        processor, shown, others = transformers.AutoProcessor.from_pretrained(folder), pictures(), pictures()
        pipeline = opened(graph, checkpoint=str(folder))

        def theirs() -> Any:
            given = processor(images=next(shown), text=CHOICES, return_tensors="pt", padding=padding)
            if padding == "max_length":
                given.pop("attention_mask", None)  # SigLIP reads its padding: its own tokenizer gives no mask
            with torch.no_grad():
                return whole(**given).logits_per_image[0]

        return theirs, lambda: pipeline.run(image=next(others), labels=CHOICES)["logits"][0]

    return sides


def labelled(folder: Path) -> Pair:
    """A picture: the scores of its classes."""
    import torch
    import transformers

    whole = transformers.ViTForImageClassification.from_pretrained(folder).eval()
    processor, shown, others = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False), pictures(), pictures()
    pipeline = opened("vit", checkpoint=str(folder))

    def theirs() -> Any:
        with torch.no_grad():
            return whole(**processor(images=next(shown), return_tensors="pt")).logits[0]

    return theirs, lambda: pipeline.run(image=next(others))["logits"][0]


def seen(kind: str, pictures_by: str, output: str = "last_hidden_state", port: str = "tokens") -> Callable[[Path], Pair]:
    """A picture: its vectors, through the graph that `modelgraft import` writes."""

    def sides(folder: Path) -> Pair:
        import importlib

        import torch
        import transformers

        whole = getattr(transformers, kind).from_pretrained(folder).eval()
        module, name = pictures_by.split(":")
        processor = getattr(importlib.import_module(f"transformers.models.{module}"), name).from_pretrained(folder)
        shown, others, pipeline = pictures(), pictures(), opened(imported(folder))

        def theirs() -> Any:
            with torch.no_grad():
                return getattr(whole(**processor(images=next(shown), return_tensors="pt")), output)[0]

        return theirs, lambda: pipeline.run(image=next(others), outputs=[port])[port][0]

    return sides


# -- texts --------------------------------------------------------------------------------------------------------------


def texts() -> Iterator[str]:
    """Texts of 64 tokens."""
    return itertools.cycle([checkpoints.text_of(64, number) for number in range(8)])


def written(kind: str, use: str = "llm/causal") -> Callable[[Path], Pair]:
    """A text goes on: tokenizer and `generate`, and a graph of one node."""

    def sides(folder: Path) -> Pair:
        import transformers

        whole = getattr(transformers, kind).from_pretrained(folder).eval()
        words, given, others = transformers.AutoTokenizer.from_pretrained(folder), texts(), texts()
        path = beside(folder, "tongue", onnx_sides.TONGUE.replace("llm/causal", use))
        pipeline = opened(path, checkpoint=str(folder), max_new_tokens=NEW)

        def theirs() -> str:
            told = words(next(given), return_tensors="pt", return_token_type_ids=False)
            ids = whole.generate(**told, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=words.pad_token_id)
            return words.batch_decode(ids[:, -NEW:], skip_special_tokens=True)[0]

        return theirs, lambda: pipeline.run(prompt=next(others))["text"]

    return sides


def read(folder: Path) -> Pair:
    """A text: its vectors."""
    import torch
    import transformers

    whole = transformers.BertModel.from_pretrained(folder).eval()
    words, given, others = transformers.AutoTokenizer.from_pretrained(folder), texts(), texts()
    pipeline = opened(beside(folder, "reader", READER), checkpoint=str(folder))

    def theirs() -> Any:
        with torch.no_grad():
            return whole(**words(next(given), return_tensors="pt")).last_hidden_state[0]

    return theirs, lambda: pipeline.run(text=next(others))["tokens"][0]


# -- sounds, and pictures out of noise ----------------------------------------------------------------------------------


def heard(folder: Path) -> Pair:
    """Four seconds of a sound: what is written of it."""
    import transformers

    import modelgraft as mg

    whole = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    ear, words = transformers.WhisperFeatureExtractor.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    rate = ear.sampling_rate
    sounds = _noises(rate)
    given, others = itertools.cycle(sounds), itertools.cycle(sounds)
    pipeline = opened(beside(folder, "hearer", HEARER), checkpoint=str(folder), max_new_tokens=NEW)

    def theirs() -> str:
        features = ear(next(given), sampling_rate=rate, return_tensors="pt").input_features
        ids = whole.generate(features, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
        return words.batch_decode(ids[:, -NEW:], skip_special_tokens=True)[0]

    return theirs, lambda: pipeline.run(audio=mg.Audio(next(others)[None], rate))["text"]


def asked_of_sounds(folder: Path) -> Pair:
    """Four seconds of a sound and a question: processor and `generate`, and the graph that `modelgraft import` writes."""
    import transformers

    import modelgraft as mg

    whole = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    rate = processor.feature_extractor.sampling_rate
    sounds = _noises(rate)
    given, others = itertools.cycle(sounds), itertools.cycle(sounds)
    pipeline = opened(imported(folder), max_new_tokens=NEW)
    talk = [{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": composed.ASKED}]}]
    text = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)

    def theirs() -> str:
        told = processor(text=[text], audio=[next(given)], sampling_rate=rate, return_tensors="pt")
        ids = whole.generate(**told, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
        return processor.batch_decode(ids[:, -NEW:], skip_special_tokens=True)[0]

    return theirs, lambda: pipeline.run(audio=[mg.Audio(next(others)[None], rate)], prompt=composed.ASKED)["text"]


def _noises(rate: int) -> list[Any]:
    """Three sounds of four seconds, float32 samples each."""
    import numpy

    return [numpy.random.default_rng(number).standard_normal(4 * rate).astype("float32") * 0.1 for number in range(3)]


def painted(folder: Path) -> Pair:
    """A text: four steps from noise to a picture of 32 pixels."""
    import diffusers
    import torch

    whole = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    whole.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    given, others = itertools.cycle(CHOICES), itertools.cycle(CHOICES)
    pipeline = opened(beside(folder, "begun", BEGUN), checkpoint=str(folder), steps=STEPS)

    def theirs() -> Any:
        with torch.no_grad():
            return _pixels(whole(prompt=next(given), negative_prompt="", latents=noise, num_inference_steps=STEPS).images[0])

    return theirs, lambda: _pixels(pipeline.run(prompt=next(others), negative="", noise=noise)["image"])


def _pixels(picture: Any) -> Any:
    """0 to 1, as a tensor that can be compared."""
    import numpy
    import torch

    return torch.from_numpy(numpy.asarray(picture, dtype="float32") / 255)
