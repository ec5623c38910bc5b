"""Programs that run language models, each opened and asked the way its own manual shows, on the same prompts.

    PYTHON -m benchmarks.peers.programs PROGRAM WEIGHTS THREADS [--once]

A worker, run by the Python of its program's environment, where there may be neither modelgraft nor torch. It reads requests as
lines of JSON on stdin, {"prompts": [{"text", "ids"}, ...], "new": tokens}, and answers each with a line: seconds to the first token
(`prefill`) and from there to the last (`decode`), what it wrote (`ids` or `texts`), and MB of memory. All choose the likeliest
token, and none stops before it has written as many as it was asked for. Each is asked by a text, as people ask, and cuts it into tokens by
the tokenizer that it has; mobius and OpenVINO are given the tokens.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.packages import Package
from benchmarks.peers.serving import Answer, serve

Prompt = Mapping[str, Any]  # {"text": str, "ids": list[int]}
Write = Callable[[Sequence[Prompt], int], Answer]
MOST = 4  # prompts in a batch
CONTEXT = 512  # tokens of a prompt and its answer
TONGUE = """
modelgraft: 1
name: tongue
params: {source: null, new: 32}
inputs: {prompt: text}
nodes: {llm: {use: llm/causal, from: "${source}", with: {max_new_tokens: "${new}", min_new_tokens: "${new}"}, in: {prompt: inputs.prompt}}}
outputs: {text: llm.text}
"""


@dataclass(frozen=True, slots=True)
class Program(Package):
    """A program, and how it is opened: weights, threads -> what writes."""

    open: Callable[[str, int], Write]


def _answer(start: float, first: float, end: float, *, ids: Sequence[Sequence[int]]) -> Answer:
    return {"prefill": first - start, "decode": end - first, "ids": [[int(token) for token in row] for row in ids]}


def _cut(prompts: Sequence[Prompt], encode: Callable[[str], Sequence[int]]) -> list[list[int]]:
    """The tokens of the prompts by a program's own tokenizer. Raises RuntimeError where they are not those of the others."""
    rows = [[int(token) for token in encode(prompt["text"])] for prompt in prompts]
    if rows != [prompt["ids"] for prompt in prompts]:
        raise RuntimeError("its tokenizer cuts the prompts into other tokens")
    return rows


def modelgraft_onnx(weights: str, threads: int) -> Write:
    """Weights are a source and a precision, parted by a bar; "w4, anew": brought to blocks where the file has its own."""
    return _modelgraft(weights, "onnx", threads)


def modelgraft_torch(weights: str, threads: int) -> Write:
    """The same graph on torch."""
    return _modelgraft(weights, "torch", threads)


def modelgraft_llamacpp(weights: str, threads: int) -> Write:
    """The same graph on llama.cpp. Weights are a file, and the folder of packages that holds the bindings, parted by a bar."""
    file, _, packages = weights.rpartition("|")
    sys.path.append(packages)
    return _modelgraft(f"{file}|", "llamacpp", threads)


def _modelgraft(weights: str, backend: str, threads: int) -> Write:
    """A graph of one node; the clock is that of the node."""
    import modelgraft as mg

    source, _, precision = weights.rpartition("|")
    precision, _, anew = precision.partition(", ")
    if anew:
        os.environ["MODELGRAFT_BLOCKS"] = "32"  # no blocks of the file are kept
    pipelines: dict[int, Any] = {}
    place = Path(os.environ["MODELGRAFT_CACHE"]) / f"tongue-{os.getpid()}.yaml"

    def opened(new: int) -> Any:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(TONGUE, encoding="utf-8")
        graph = mg.load(place, params={"source": source, "new": new})
        place.unlink()
        return mg.open(graph, backend=backend, precision=precision or None, threads=threads, cache_bytes=0)

    def write(prompts: Sequence[Prompt], new: int) -> Answer:
        if new not in pipelines:
            pipelines.clear()  # one model at a time
            pipelines[new] = opened(new)
        texts, moments = [prompt["text"] for prompt in prompts], dict[str, float]()
        written: Any = None
        for event in pipelines[new].stream(prompt=texts if len(texts) > 1 else texts[0]):
            if getattr(event, "node", "") == "llm":
                moments.setdefault(event.kind, time.perf_counter())  # of tokens the first
            elif event.kind == "result":
                written = event["result"]["text"]
        start, first, end = moments["node-started"], moments["token"], moments["node-finished"]
        return {"prefill": first - start, "decode": end - first, "texts": written if isinstance(written, list) else [written]}

    return write


class _Watch:
    """A streamer of transformers that notes when the first token came; the prompt comes before it."""

    def __init__(self) -> None:
        self.calls, self.first = 0, 0.0

    def put(self, _tokens: Any) -> None:
        self.calls += 1
        if self.calls == 2:
            self.first = time.perf_counter()

    def end(self) -> None:
        """Nothing is held back."""


def transformers_eager(weights: str, threads: int) -> Write:
    """`generate` with its own cache."""
    return _transformers(weights, threads)


def transformers_compiled(weights: str, threads: int) -> Write:
    """`generate` with a cache of fixed length, whose steps torch compiles. Building them takes minutes."""
    return _transformers(weights, threads, cache_implementation="static")


def _transformers(weights: str, threads: int, **settings: Any) -> Write:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    words = AutoTokenizer.from_pretrained(weights)
    model = AutoModelForCausalLM.from_pretrained(weights).eval()
    if settings:
        from transformers import CompileConfig

        model.generation_config.compile_config = CompileConfig(mode="default", dynamic=False)
        model.generation_config.compile_config._compile_all_devices = True  # by itself it compiles for accelerators alone

    def write(prompts: Sequence[Prompt], new: int) -> Answer:
        watch, start = _Watch(), time.perf_counter()
        ids = torch.tensor(_cut(prompts, lambda text: words(text).input_ids))
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False, streamer=watch,
            pad_token_id=model.config.eos_token_id or 0, **settings,
        )  # fmt: skip
        return _answer(start, watch.first, time.perf_counter(), ids=found[:, ids.shape[1] :].tolist())

    return write


def llama_cpp(weights: str, threads: int) -> Write:
    """llama.cpp by its own functions: a batch is decoded as sequences side by side, as its server does it."""
    import ctypes

    import llama_cpp as native
    import numpy as np

    silent = native.llama_log_callback(lambda *_: None)
    native.llama_log_set(silent, ctypes.c_void_p(0))
    if built := os.environ.get("LLAMA_CPP_LIB_PATH"):  # elsewhere: for every kind of processor, and taken when it is asked for
        ctypes.CDLL(str(Path(built) / "libggml.so")).ggml_backend_load_all_from_path(built.encode())
    native.llama_backend_init()
    model = native.llama_model_load_from_file(weights.encode(), native.llama_model_default_params())
    settings = native.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_seq_max = MOST * CONTEXT, MOST * CONTEXT, MOST
    settings.n_threads = settings.n_threads_batch = threads
    context = native.llama_init_from_model(model, settings)
    vocabulary = native.llama_model_get_vocab(model)
    words = native.llama_vocab_n_tokens(vocabulary)
    batch = native.llama_batch_init(MOST * CONTEXT, 0, 1)

    def decode(items: Sequence[tuple[int, int, int, bool]]) -> None:
        """Items are token, position, sequence, and whether its logits are wanted."""
        batch.n_tokens = len(items)
        for index, (token, position, sequence, is_wanted) in enumerate(items):
            batch.token[index], batch.pos[index], batch.logits[index] = token, position, is_wanted
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
        if native.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")

    def encode(text: str) -> Sequence[int]:
        content, room = text.encode(), (native.llama_token * CONTEXT)()
        return room[: native.llama_tokenize(vocabulary, content, len(content), room, CONTEXT, True, False)]

    def likeliest(index: int) -> int:
        return int(np.ctypeslib.as_array(native.llama_get_logits_ith(context, index), (words,)).argmax())

    def write(prompts: Sequence[Prompt], new: int) -> Answer:
        start = time.perf_counter()
        rows = _cut(prompts, encode)
        native.llama_memory_clear(native.llama_get_memory(context), True)
        items = [(token, at, number, at == len(row) - 1) for number, row in enumerate(rows) for at, token in enumerate(row)]
        decode(items)
        found = [[likeliest(index)] for index, item in enumerate(items) if item[3]]
        first = time.perf_counter()
        for step in range(new - 1):
            decode([(answer[-1], len(row) + step, number, True) for number, (row, answer) in enumerate(zip(rows, found, strict=True))])
            for number, answer in enumerate(found):
                answer.append(likeliest(number))
        return _answer(start, first, time.perf_counter(), ids=found)

    write.kept = (silent, model)  # type: ignore[attr-defined] the library calls it as long as it lives
    return write


def onnxruntime_genai(weights: str, threads: int) -> Write:
    """onnxruntime-genai: a generator for each request, as its examples show."""
    import numpy as np
    import onnxruntime_genai as genai

    config = genai.Config(weights)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    model = genai.Model(config)
    words = genai.Tokenizer(model) if (Path(weights) / "tokenizer.json").is_file() else None  # that of mobius has none

    def write(prompts: Sequence[Prompt], new: int) -> Answer:
        start = time.perf_counter()
        rows = _cut(prompts, words.encode) if words is not None else [prompt["ids"] for prompt in prompts]
        ids = np.array(rows, dtype=np.int32)
        length = ids.shape[1]
        settings = genai.GeneratorParams(model)
        settings.set_search_options(max_length=length + new, min_length=length + new, batch_size=len(ids), do_sample=False)
        generator = genai.Generator(model, settings)
        generator.append_tokens(ids if len(ids) > 1 else ids[0])
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(new - 1):
            generator.generate_next_token()
        end = time.perf_counter()
        return _answer(start, first, end, ids=[generator.get_sequence(row)[length:] for row in range(len(ids))])

    return write


def openvino_genai(weights: str, threads: int) -> Write:
    """The pipeline of OpenVINO GenAI, tuned for latency; it reads GGUF itself."""
    import numpy as np
    import openvino
    import openvino_genai as genai

    pipeline = genai.LLMPipeline(weights, "CPU", INFERENCE_NUM_THREADS=threads, NUM_STREAMS=1, PERFORMANCE_HINT="LATENCY")

    def write(prompts: Sequence[Prompt], new: int) -> Answer:
        settings = genai.GenerationConfig()
        settings.max_new_tokens = settings.min_new_tokens = new
        settings.ignore_eos, settings.do_sample, settings.apply_chat_template = True, False, False
        ids = openvino.Tensor(np.array([prompt["ids"] for prompt in prompts], dtype=np.int64))
        given = genai.TokenizedInputs(ids, openvino.Tensor(np.ones(tuple(ids.shape), dtype=np.int64)))
        start = time.perf_counter()
        found = pipeline.generate(given, settings)
        end = time.perf_counter()
        return _answer(start, start + found.perf_metrics.get_ttft().mean / 1000, end, ids=found.tokens)

    return write


def ctranslate2(weights: str, threads: int) -> Write:
    """A generator of CTranslate2; weights are a folder and a type of numbers, parted by a bar. It takes tokens as texts."""
    import ctranslate2 as native
    from tokenizers import Tokenizer

    folder, _, kind = weights.rpartition("|")
    words = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    model = native.Generator(folder, compute_type=kind, intra_threads=threads, inter_threads=1)

    def write(prompts: Sequence[Prompt], new: int) -> Answer:
        rows = [[words.id_to_token(token) for token in prompt["ids"]] for prompt in prompts]
        settings = {"sampling_topk": 1, "beam_size": 1, "include_prompt_in_result": False, "end_token": []}
        start = time.perf_counter()
        model.generate_batch(rows, max_length=1, min_length=1, **settings)  # of a batch it does not tell when a token comes
        first = time.perf_counter()
        found = model.generate_batch(rows, max_length=new, min_length=new, **settings)
        end = time.perf_counter() - (first - start)
        return _answer(start, first, max(end, first), ids=[one.sequences_ids[0] for one in found])

    return write


PROGRAMS: Mapping[str, Program] = {
    "modelgraft, onnx": Program("", "modelgraft", "modelgraft", "", modelgraft_onnx),
    "modelgraft, torch": Program("", "modelgraft", "modelgraft", "", modelgraft_torch),
    "modelgraft, llamacpp": Program("", "modelgraft", "modelgraft", "llama.cpp as its backend", modelgraft_llamacpp),
    "transformers": Program("", "transformers", "transformers", "generate", transformers_eager),
    "transformers, compiled": Program("", "transformers", "transformers", "generate, static cache, torch.compile", transformers_compiled),
    "llama.cpp": Program("llama", "llama-cpp-python", "llama_cpp", "llama-cpp-python, llama_decode", llama_cpp),
    "onnxruntime-genai": Program("genai", "onnxruntime-genai", "onnxruntime_genai", "its model builder, Generator", onnxruntime_genai),
    "mobius": Program("genai", "mobius-onnx", "onnxruntime_genai", "its graph, run by onnxruntime-genai", onnxruntime_genai),
    "OpenVINO": Program("openvino", "openvino-genai", "openvino_genai", "LLMPipeline, GGUF", openvino_genai),
    "CTranslate2": Program("ctranslate2", "ctranslate2", "ctranslate2", "Generator", ctranslate2),
}


def main(name: str, weights: str, threads: int) -> None:
    """Answer requests for texts."""

    def opened() -> Callable[[Mapping[str, Any]], Answer]:
        write = PROGRAMS[name].open(weights, threads)
        return lambda asked: write(asked["prompts"], asked["new"])

    serve(opened)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
