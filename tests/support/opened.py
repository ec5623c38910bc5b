"""Where what the shipped recipes train is run: the graphs, and their nodes that are given the trained files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft.installed.discovery import discover
from support.open_part import open_part
from support.recipes import every_tensor

LORA, GATED = {"use": "adapter/lora"}, {"use": "adapter/gated_cross_attention", "in": {"media": "resampler"}}
RET = {"use": "fromage/ret"}
TONGUE = {"project": "project", "llm": "llm"}
QUERIES = {"queries": "queries", "qformer": "qformer", "project": "project"}
REBUILD = {"see": "see", "guess": "guess", "head": "head"}
# recipe -> graph that runs it -> its node -> the trained node, or (an adapter of its node, the trained node)
RUNS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "beit3/pretrain": {"beit3": {"fuse": "both"}},
    "blip2/stage1": {
        "blip2/match": {"see": "see", "image": "image_out", "texts": "text_out", "match": "match"},
        "blip2/stage2": {"queries": "see", "qformer": "see"},
    },
    "blip2/stage2": {"blip2/stage2_ask": QUERIES},
    "blip2/train": {"blip2": QUERIES},
    "blip2/train_prefix": {"blip2": QUERIES},
    "clip/train": {
        "clip": {"vision": "vision", "vision_proj": "vision_proj", "text": "text", "text_proj": "text_proj", "similarity": "contrast"},
        "clip/embed": {"vision": "vision", "vision_proj": "vision_proj", "reader": "text", "text_proj": "text_proj"},
    },
    "coca/train": {"coca/zero_shot": {"vision": "vision", "pool": "pool", "words": "words", "similarity": "contrast"}},
    "flamingo/train": {"flamingo": {"resampler": "resampler", "llm": (GATED, "llm")}},
    "fromage/train": {
        "fromage/embed": {"key": "key", "query": "query", "read": (RET, "read")},
        "fromage/caption": {"prefix": "prefix", "llm": (RET, "read")},
    },
    "grafted/draw_train": {"draw": {"flow": "draw"}},
    "grafted/say": {"glimpse": {"recall": "recall"}},
    "hubert/pretrain": {"hubert": {"encoder": "encoder"}},
    "idefics/train": {"idefics": {"resampler": "resampler", "llm": (GATED, "llm")}},
    "imagebind/align": {"imagebind": {"hear": "hear", "reach": "reach", "warm": "warm", "move": "move"}},
    "kosmos2/train": {"kosmos2": {"vision": "vision", "latents": "latents", "llm": "llm"}},
    "llava/train": {"llava": TONGUE},
    "llava/train_dialogues": {"llava": TONGUE},
    "nextgpt/train_decoding": {"nextgpt": {"image_words": "words"}},
    "nextgpt/train_decoding_video": {"nextgpt": {"video_words": "words"}},
    "nextgpt/train_encoding": {"nextgpt/text": {"seen": "seen"}},
    "nextgpt/train_instruct": {
        "nextgpt/text": {"seen": "seen", "llm": (LORA, "llm")},
        "nextgpt": {f"{medium}_words": f"{medium}_words" for medium in ("image", "video", "audio")},
    },
    "omnimae/pretrain": {"omnimae": {"see": "see"}, "omnimae/rebuild": REBUILD, "omnimae/rebuild_video": REBUILD},
    "omnimae/rebuild": {"omnimae/rebuild": REBUILD},
    "pali/train": {"pali": TONGUE},
    "pali/train_decoder_only": {"pali/decoder_only": {"project": "project", "read": "read", "llm": "llm"}},
    "simvlm/pretrain": {
        "simvlm": {"stem": "stem", "read": "read", "write": "write"},
        "simvlm/text": {"read": "read", "write": "write"},
    },
    "speechgpt/train": {"speechgpt": {"llm": "llm"}},
    "speechgpt/train_chain": {"speechgpt": {"llm": (LORA, "llm")}},
    "wav2vec2/pretrain": {"wav2vec2/features": {"ear": "ear"}},
}
NOT_RUN: Mapping[str, Mapping[str, str]] = {  # what is trained, and no shipped graph runs
    "beit3/pretrain": dict.fromkeys(("see_guess", "read_guess"), "it names what was hidden"),
    "blip2/stage1": {"itc": "a temperature, by which losses are told", "words": "blip2/stage1_caption reads it out of a whole file"},
    "coca/train": {"decode": "coca reads both halves of what writes out of a whole file"},
    "fromage/train": {"contrast": "a temperature, by which losses are told"},
    "grafted/gaze": dict.fromkeys(("look", "llm", *(f"at_{place}" for place in range(8))), "a trial beside glimpse"),
    "grafted/tell": dict.fromkeys(("look", *(f"at_{place}" for place in range(8))), "a trial beside glimpse"),
    "grafted/tell_lora": dict.fromkeys(("look", "llm", *(f"at_{place}" for place in range(8))), "a trial beside glimpse"),
    "hubert/pretrain": {"codes": "it names what was hidden"},
    "wav2vec2/pretrain": dict.fromkeys(("guess", "quantizer"), "they make and name what was hidden"),
}
OF_TINY: Mapping[str, Mapping[str, Any]] = {  # what tiny weights need: a value, or "=" and a param of the recipe
    "blip2/match": {"checkpoint": "=eye"},
    "blip2/stage2": {"checkpoint": "=eye"},
    "draw": {"nodes.flow.with.height": 8, "nodes.flow.with.width": 8},
    "nextgpt/text": {"max_new_tokens": 8},
    "speechgpt": {"nodes.llm.adapters": []},
}
# (graph, node) that takes a part of its file -> how keys of the file begin -> how they begin there
TAKEN: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("blip2/stage2", "queries"): {"reader.query_tokens": "weight"},
    ("blip2/stage2", "qformer"): {"reader.ln_vision.": "norm.", "reader.qformer.": "model."},
}
OF_WORDS = re.compile(r"reader\.qformer\.encoder\.layer\.\d\.(intermediate|output)\.")  # what no picture is read by
ALONE = ("nextgpt",)  # their generators are larger than those of the recipes: a node is opened by itself


def opens(graph: str, wanted: Mapping[str, Any], params: Mapping[str, Any], folder: Path) -> list[str]:
    """What is wrong with a graph whose nodes are given trained files, where there are some: each has to hold the tensors of its file."""
    given, files = dict[str, Any](), dict[str, Path]()
    for node, trained in wanted.items():
        adapter, name = trained if isinstance(trained, tuple) else (None, trained)
        if (file := folder / f"{name}.safetensors").is_file():
            files[node] = file
            given |= {f"nodes.{node}.from": str(file)} if adapter is None else {f"nodes.{node}.adapters": [{**adapter, "from": str(file)}]}
    found = _alone(graph, files) if graph in ALONE else _within(graph, files, {**_tiny(graph, params), **given})
    told = list[str]()
    for node, file in files.items():
        begins, tensors = TAKEN.get((graph, node)), load_file(file)
        wanted_of_it = tensors if begins is None else _taken(tensors, begins)
        lost = [key for key, tensor in wanted_of_it.items() if not _has(found[node], key, tensor)]
        lost += sorted({*found[node]} - {*wanted_of_it}) if begins is not None else []
        told += [f"{node} holds other numbers than {file.name}: {', '.join(lost[:3])}"] if lost else []
    return told


def run_of(recipe: str) -> set[str]:
    """The nodes that a recipe trains and a graph runs."""
    return {one[1] if isinstance(one, tuple) else one for nodes in RUNS.get(recipe, {}).values() for one in nodes.values()}


def _taken(tensors: Mapping[str, torch.Tensor], begins: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """What a node takes of a file, by its names there."""
    of_pictures = {key: tensor for key, tensor in tensors.items() if not OF_WORDS.match(key)}
    return {new + key.removeprefix(old): one for key, one in of_pictures.items() for old, new in begins.items() if key.startswith(old)}


def _has(held: Mapping[str, torch.Tensor], key: str, tensor: torch.Tensor) -> bool:
    """By its name, or by the same within a part of what runs it."""
    return any(torch.equal(other, tensor) for name, other in held.items() if name == key or name.endswith(f".{key}"))


def _tiny(graph: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe was given, as far as the graph has it, and what tiny weights need."""
    spec = mg.load(graph)
    nodes = {key for key in params if key.startswith("nodes.") and key.split(".")[1] in spec.nodes}
    mine = {key: value for key, value in params.items() if key in spec.params or key in nodes}
    more = {key: params.get(value[1:]) if str(value).startswith("=") else value for key, value in OF_TINY.get(graph, {}).items()}
    return {**mine, **more}


def _within(graph: str, files: Mapping[str, Path], params: Mapping[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    loaded = mg.load(graph, params=params)
    assert not [one for one in mg.check(loaded).warnings if one.node in files and one.code == "unheeded"]
    with mg.open(loaded, init="random") as pipeline:
        return {step.node.name: every_tensor(pipeline._loader.load(step).state) for step in pipeline.plan.steps if step.node.name in files}


def _alone(graph: str, files: Mapping[str, Path]) -> dict[str, dict[str, torch.Tensor]]:
    nodes = mg.load(graph).nodes
    return {node: every_tensor(open_part(discover(), nodes[node].use.value, str(file)).module) for node, file in files.items()}
