"""The two sides of every case of `onnx.py`: the same weights and inputs in a modelgraft graph and in transformers.

A side is called once per sample, does the work and gives seconds: `wall` and `cpu` of the whole, and for what writes text
also `writing_wall` and `writing_cpu`, from the first token to the last. It reads another prompt or picture at every call,
the same on both sides: what the last call left in a cache is of no use.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import checkpoints
from benchmarks.measuring import Sample, timed

PROMPTS = 8  # as many different ones come before the first comes again
PHOTOS = ("chelsea", "coffee", "astronaut", "rocket")  # of scikit-image
EYE = """
modelgraft: 1
name: {name}
params: {{checkpoint: null}}
inputs: {{{inputs}}}
nodes: {{eye: {{use: {use}, from: "${{checkpoint}}{part}", in: {{{wires}}}}}}}
outputs: {{tokens: eye.tokens}}
"""
TONGUE = """
modelgraft: 1
name: tongue
params: {checkpoint: null, max_new_tokens: 64}
inputs: {prompt: text}
nodes: {llm: {use: llm/causal, from: "${checkpoint}", with: {max_new_tokens: "${max_new_tokens}"}, in: {prompt: inputs.prompt}}}
outputs: {text: llm.text}
"""


@dataclass(slots=True)
class Side:
    """One alternative: what a sample does, and what the last one gave (texts, or a tensor)."""

    run: Callable[[], Sample]
    gave: Callable[[], Any]
    parity: Callable[[], float | None] = lambda: None  # relative to torch, as the gate measured it


def opened(graph: Any, backend: str, precision: str | None) -> Any:
    """A pipeline that keeps no results."""
    import modelgraft as mg

    return mg.open(graph, backend=backend, precision=precision, cache_bytes=0)


def gate(pipeline: Any) -> float:
    """The largest difference from torch that the parity gate found for any export of a pipeline, relative to its output."""
    return max(float(entry.manifest["parity"]["relative"]) for entry in pipeline.backend("onnx").exports.values())


# -- encoders -----------------------------------------------------------------------------------------------------------


def encoder_inputs(name: str) -> dict[str, Any]:
    """Random inputs by port, batch 1."""
    import torch

    shapes = {
        "vit": {"pixels": (1, 3, 224, 224)},
        "qformer": {"queries": (1, 32, 768), "memory": (1, 257, 768)},
        "audio": {"features": (1, 80, 500)},
    }
    generator = torch.Generator().manual_seed(5)
    return {port: torch.randn(shape, generator=generator) for port, shape in shapes[name].items()}


ENCODERS = {
    "vit": ("vit", "vision/encoder", ""),
    "qformer": ("blip2", "qformer/qformer", "#qformer"),
    "audio": ("whisper", "audio/encoder", "#encoder"),
}


def our_encoder(name: str, folder: Path, precision: str) -> Side:
    """One node on the onnx backend, called through the pipeline."""
    import modelgraft as mg

    inputs = encoder_inputs(name)
    ports = ", ".join(f'{port}: "float[{" ".join(["batch", *map(str, tensor.shape[1:])])}]"' for port, tensor in inputs.items())
    wires = ", ".join(f"{port}: inputs.{port}" for port in inputs)
    _, use, part = ENCODERS[name]
    path = folder.parent / f"{name}.yaml"
    path.write_text(EYE.format(name=name, inputs=ports, use=use, part=part, wires=wires), encoding="utf-8")
    pipeline = opened(mg.load(path, params={"checkpoint": str(folder)}), "onnx", precision)
    kept: list[Any] = [None]

    def run() -> None:
        kept[0] = pipeline.run(**inputs)["tokens"]

    return Side(lambda: timed(run), lambda: kept[0], lambda: gate(pipeline))


def their_encoder(name: str, folder: Path) -> Side:
    """The same part of the model of transformers."""
    import torch
    import transformers as hf

    inputs = encoder_inputs(name)
    if name == "vit":
        model = hf.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
        call = lambda: model(pixel_values=inputs["pixels"])  # noqa: E731
    elif name == "audio":
        heard = hf.WhisperModel.from_pretrained(folder).encoder.eval()
        call = lambda: heard(inputs["features"])  # noqa: E731
    else:
        reader = hf.Blip2ForConditionalGeneration.from_pretrained(folder).qformer.eval()
        call = lambda: reader(query_embeds=inputs["queries"], encoder_hidden_states=inputs["memory"])  # noqa: E731
    kept: list[Any] = [None]

    def run() -> None:
        with torch.no_grad():
            kept[0] = call().last_hidden_state

    return Side(lambda: timed(run), lambda: kept[0])


# -- what writes text ---------------------------------------------------------------------------------------------------


def our_writer(pipeline: Any, node: str, records: Iterator[dict[str, Any]]) -> Side:
    """A pipeline whose node `node` writes; the clock starts when that node does."""
    kept: list[Any] = [None]

    def run() -> Sample:
        clock = Clock()
        for event in pipeline.stream(**next(records)):
            if event.kind == "node-started" and event.node == node:
                clock = Clock()
            elif event.kind == "token":
                clock.first()
            elif event.kind == "node-finished" and event.node == node:
                clock.stop()
            elif event.kind == "result":
                kept[0] = event["result"]["text"]
        return clock.sample()

    return Side(run, lambda: kept[0], lambda: gate(pipeline))


def their_writer(model: Any, words: Any, prompts: Iterator[list[str]], tokens: int) -> Side:
    """`generate` of transformers on texts, with its tokenizer before and after."""
    kept: list[Any] = [None]

    def run() -> Sample:
        clock = Clock()
        given = words(next(prompts), return_tensors="pt", padding=True)
        ids = model.generate(
            **given, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, streamer=Ticks(clock), pad_token_id=words.pad_token_id
        )
        kept[0] = words.batch_decode(ids[:, -tokens:], skip_special_tokens=True)
        clock.stop()
        return clock.sample()

    return Side(run, lambda: kept[0])


class Clock:
    """Wall and CPU seconds from its making to `first`, the first token, and to `stop`."""

    def __init__(self) -> None:
        self.start, self.begun, self.end = self.now(), (0.0, 0.0), (0.0, 0.0)

    @staticmethod
    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def first(self) -> None:
        if not self.begun[0]:
            self.begun = self.now()

    def stop(self) -> None:
        self.end = self.now()

    def sample(self) -> Sample:
        wall, cpu = (end - start for end, start in zip(self.end, self.start, strict=True))
        writing_wall, writing_cpu = (end - begun for end, begun in zip(self.end, self.begun, strict=True))
        return {"wall": wall, "cpu": cpu, "writing_wall": writing_wall, "writing_cpu": writing_cpu}


class Ticks:
    """A streamer of transformers that notes when the first token came; the prompt comes before it."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.calls = clock, 0

    def put(self, _tokens: Any) -> None:
        self.calls += 1
        if self.calls == 2:
            self.clock.first()

    def end(self) -> None:
        """Nothing is held back."""


def prompts_of(length: int, batch: int) -> Iterator[list[str]]:
    """Batches of texts of so many tokens."""
    return itertools.cycle([[checkpoints.text_of(length, (number + 3 * row) % 26) for row in range(batch)] for number in range(PROMPTS)])


def our_tongue(folder: Path, precision: str | None, *, length: int, batch: int, tokens: int, backend: str = "onnx") -> Side:
    """A graph of a language model alone."""
    import modelgraft as mg

    path = folder.parent / "tongue.yaml"
    path.write_text(TONGUE, encoding="utf-8")
    pipeline = opened(mg.load(path, params={"checkpoint": str(folder), "max_new_tokens": tokens}), backend, precision)
    return our_writer(pipeline, "llm", ({"prompt": texts} for texts in prompts_of(length, batch)))


def their_tongue(folder: Path, *, length: int, batch: int, tokens: int) -> Side:
    """The same language model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return their_writer(model, AutoTokenizer.from_pretrained(folder), prompts_of(length, batch), tokens)


# -- describe: real weights ---------------------------------------------------------------------------------------------


def _describing(tokens: int) -> Any:
    import modelgraft as mg

    exactly = {"nodes.sentence.with.min_new_tokens": tokens, "max_new_tokens": tokens}
    return mg.load("describe", params=exactly)


def _photographs() -> list[Any]:
    from PIL import Image
    from skimage import data

    return [Image.fromarray(getattr(data, name)()) for name in PHOTOS]


def our_describe(precision: str, tokens: int) -> Side:
    """The shipped graph, eye included; the clock is that of the node that writes."""
    shown = itertools.cycle(_photographs())
    return our_writer(opened(_describing(tokens), "onnx", precision), "sentence", ({"image": photo} for photo in shown))


def their_describe(tokens: int) -> Side:
    """The same weights in transformers, on the prompts that the graph writes for the same photographs."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import modelgraft as mg

    with opened(_describing(tokens), "torch", None) as pipeline:
        labels = [pipeline.run(outputs=["labels"], image=photo)["labels"] for photo in _photographs()]
        pipeline.run(image=_photographs()[0])  # fetches and converts the language model, if this is the first time
    graph = mg.check(_describing(tokens))  # once more: now its source is what was fetched
    folder, template = checkpoint_of(graph, "sentence"), graph.nodes["sentence"].config.prompt
    words = AutoTokenizer.from_pretrained(folder)
    words.pad_token = words.pad_token or words.eos_token
    prompts = itertools.cycle([[template.replace("{labels}", str(label))] for label in labels])
    return their_writer(AutoModelForCausalLM.from_pretrained(folder).eval(), words, prompts, tokens)


def checkpoint_of(graph: Any, node: str) -> Path:
    """The folder with the very weights that a node of a checked graph names, in Hugging Face layout.

    Ends the benchmark where they are not on this machine: whatever else lies in the cache is no baseline.
    """
    source = graph.nodes[node].source
    folder = source.path() if source is not None else None
    if folder is None or not (folder / "config.json").is_file() or not source.has_weights:
        named = source.text if source is not None else "nothing"
        raise SystemExit(f"{graph.name}: node {node} is from {named}, which is not on this machine as a checkpoint of Hugging Face")
    return folder
