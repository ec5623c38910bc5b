"""Programs that read pictures, each opened and asked the way its own manual shows: ViT-B/16, and LLaVA from the picture to its text.

    PYTHON -m benchmarks.peers.seeing MODEL PROGRAM WEIGHTS THREADS

A worker, run by the Python of its program's environment, where there may be neither modelgraft nor torch. It is asked for vectors with
{"given": file of pixels, "into": file for what comes out, or ""}, and for texts with {"picture": file, "prompt": text, "new": tokens};
files are numpy's. It answers with the seconds of the call (`wall`), and `texts`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.packages import Package
from benchmarks.peers.serving import Answer, serve

Look = Callable[[Mapping[str, Any]], Answer]
EYE = """
modelgraft: 1
name: eye
params: {checkpoint: null}
inputs: {pixels: "float[batch 3 224 224]"}
nodes: {eye: {use: vision/encoder, from: "${checkpoint}", in: {pixels: inputs.pixels}}}
outputs: {tokens: eye.tokens}
"""
QUESTION = "Question: what do you see in the picture? Answer:"
WHOLE = "USER: <image>\n{} ASSISTANT:"  # what the graph's own template makes of a prompt
LATENCY = {"NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}


@dataclass(frozen=True, slots=True)
class Seer(Package):
    """A program, and how it is opened: weights, threads -> what answers."""

    open: Callable[[str, int], Look]


def _encoding(encode: Callable[[Any], Any], *, taken: Callable[[Any], Any] = lambda array: array) -> Look:
    """Answers of a function of pixels; `taken` makes what it takes of a float32 array, before the clock starts."""
    import numpy as np

    kept: dict[str, Any] = {}

    def look(asked: Mapping[str, Any]) -> Answer:
        if asked["given"] not in kept:
            kept[asked["given"]] = taken(np.load(asked["given"]))
        start = time.perf_counter()
        found = encode(kept[asked["given"]])
        wall = time.perf_counter() - start
        if asked["into"]:
            np.save(asked["into"], np.asarray(found))
        return {"wall": wall}

    return look


def _telling(tell: Callable[[Any, str, int], str]) -> Look:
    """Answers of a function of a picture (uint8[height width 3]), a prompt, and how many tokens it shall write."""
    import numpy as np

    def look(asked: Mapping[str, Any]) -> Answer:
        picture = np.load(asked["picture"])
        start = time.perf_counter()
        text = tell(picture, asked["prompt"], asked["new"])
        return {"wall": time.perf_counter() - start, "texts": [text]}

    return look


def _graph(text_or_name: str, weights: str, threads: int, **params: Any) -> Any:
    """A pipeline on onnx; weights are a checkpoint and a precision, parted by a bar."""
    import modelgraft as mg

    checkpoint, _, precision = weights.rpartition("|")
    graph: Any = text_or_name
    if "\n" in text_or_name:
        graph = Path(os.environ["MODELGRAFT_CACHE"]) / f"eye-{os.getpid()}.yaml"
        graph.parent.mkdir(parents=True, exist_ok=True)
        graph.write_text(text_or_name, encoding="utf-8")
    found = mg.load(graph, params={"checkpoint": checkpoint, **params})
    return mg.open(found, backend="onnx", precision=precision, threads=threads, cache_bytes=0)


def modelgraft_encoder(weights: str, threads: int) -> Look:
    """A graph of one node."""
    import torch

    pipeline = _graph(EYE, weights, threads)
    return _encoding(lambda pixels: pipeline.run(pixels=pixels)["tokens"], taken=torch.from_numpy)


def transformers_encoder(weights: str, threads: int, *, is_compiled: bool = False) -> Look:
    """The model's own call, as it is or compiled for each size."""
    import torch
    from transformers import ViTModel

    torch.set_num_threads(threads)
    model = ViTModel.from_pretrained(weights, add_pooling_layer=False).eval()
    call = torch.compile(model, dynamic=False) if is_compiled else model

    def encode(pixels: Any) -> Any:
        with torch.no_grad():
            return call(pixel_values=pixels).last_hidden_state

    return _encoding(encode, taken=torch.from_numpy)


def onnxruntime_encoder(weights: str, threads: int) -> Look:
    """A session with its own defaults: nothing is said to it but how many threads it has."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(weights, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return _encoding(lambda pixels: session.run(None, {name: pixels})[0])


def openvino_encoder(weights: str, threads: int) -> Look:
    """A compiled model, tuned for latency."""
    import openvino

    compiled = openvino.Core().compile_model(weights, "CPU", {**LATENCY, "INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    return _encoding(lambda pixels: request.infer([pixels], share_inputs=True)[0].copy())


def modelgraft_whole(weights: str, threads: int) -> Look:
    """The graph `llava`."""
    from PIL import Image

    pipelines: dict[int, Any] = {}

    def tell(picture: Any, prompt: str, new: int) -> str:
        if new not in pipelines:
            pipelines[new] = _graph("llava", weights, threads, max_new_tokens=new)
        return str(pipelines[new].run(image=Image.fromarray(picture), prompt=prompt)["text"])

    return _telling(tell)


def transformers_whole(weights: str, threads: int, **settings: Any) -> Look:
    """Its processor, and `generate`; with a cache of fixed length torch compiles its steps."""
    import torch
    import transformers
    from PIL import Image

    torch.set_num_threads(threads)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(weights).eval()
    processor = transformers.AutoProcessor.from_pretrained(weights)
    if settings:
        model.generation_config.compile_config = transformers.CompileConfig(mode="default", dynamic=False)
        model.generation_config.compile_config._compile_all_devices = True  # by itself it compiles for accelerators alone

    def tell(picture: Any, prompt: str, new: int) -> str:
        given = processor(images=Image.fromarray(picture), text=WHOLE.format(prompt), return_tensors="pt")
        ids = model.generate(**given, max_new_tokens=new, min_new_tokens=new, do_sample=False, **settings)
        return str(processor.batch_decode(ids[:, -new:], skip_special_tokens=True)[0])

    return _telling(tell)


def openvino_whole(weights: str, threads: int) -> Look:
    """The pipeline of OpenVINO GenAI for models that see, tuned for latency."""
    import openvino
    import openvino_genai as genai

    pipeline = genai.VLMPipeline(weights, "CPU", INFERENCE_NUM_THREADS=threads, **LATENCY)

    def tell(picture: Any, prompt: str, new: int) -> str:
        settings = genai.GenerationConfig()
        settings.max_new_tokens = settings.min_new_tokens = new
        settings.ignore_eos, settings.do_sample, settings.apply_chat_template = True, False, False
        images = [openvino.Tensor(picture[None].copy())]
        asked = WHOLE.format(prompt).replace("<image>\n", "<image>")  # it adds the line's end
        return str(pipeline.generate(asked, images=images, generation_config=settings).texts[0])

    return _telling(tell)


ENCODERS: Mapping[str, Seer] = {
    "modelgraft, onnx": Seer("", "modelgraft", "modelgraft", "", modelgraft_encoder),
    "transformers": Seer("", "transformers", "transformers", "", transformers_encoder),
    "transformers, compiled": Seer(
        "", "transformers", "transformers", "torch.compile", partial(transformers_encoder, is_compiled=True)
    ),
    "onnxruntime": Seer("genai", "onnxruntime", "onnxruntime", "torch's own export, its defaults", onnxruntime_encoder),
    "OpenVINO": Seer("openvino", "openvino", "openvino", "from torch, latency", openvino_encoder),
}  # fmt: skip
WHOLES: Mapping[str, Seer] = {
    "modelgraft, onnx": Seer("", "modelgraft", "modelgraft", "", modelgraft_whole),
    "transformers": Seer("", "transformers", "transformers", "generate", transformers_whole),
    "transformers, compiled": Seer(
        "", "transformers", "transformers", "static cache, torch.compile", partial(transformers_whole, cache_implementation="static")
    ),
    "OpenVINO": Seer("openvino", "openvino-genai", "openvino_genai", "optimum-intel, VLMPipeline", openvino_whole),
}  # fmt: skip
SEERS: Mapping[str, Mapping[str, Seer]] = {"ViT-B/16": ENCODERS, "LLaVA": WHOLES}
BUILDERS: Mapping[str, Package] = {"optimum-intel": Package("optimum", "optimum-intel", "optimum.version", "makes OpenVINO's models")}


if __name__ == "__main__":
    _, model_, program, weights_, threads_ = sys.argv
    serve(lambda: SEERS[model_][program].open(weights_, int(threads_)))
