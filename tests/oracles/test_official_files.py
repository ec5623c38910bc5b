"""The file that the authors publish, alone, goes through the shipped graph: its tensors say the sizes, and the heads are said here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import modelgraft as mg
from support.oracles import Case, Oracle, fed, oracle

PIXELS, IDS, MASK, WAVE = "float[batch 3 height width]", "int64[batch text_tokens]", "bool[batch text_tokens]", "float[batch samples]"
Words = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """How a fixture goes through a graph from its file alone.

    file     name of the file; the ending says how it is written
    held     the tensors as they lie in the published file
    takes    whether a case has what this graph takes
    said     keys of nodes that no tensor says, from the config of the fixture
    feeds    "node.port" -> (type, the tensor of a case)
    gives    output of a case -> "node.port", and what is left out of the graph
    """

    oracle: str
    graph: str
    file: str
    held: Callable[[Oracle], Any]
    takes: Callable[[Case], bool]
    said: Callable[[Words], Words]
    feeds: Mapping[str, tuple[str, Callable[[Case], torch.Tensor]]]
    gives: Mapping[str, str]
    without: tuple[str, ...]


def plain(given: Oracle) -> Any:
    return dict(given.weights)


def inside(given: Oracle) -> Any:
    """As trainings of BEiT-3 and of VQ-KD save it."""
    return {"model": dict(given.weights), "epoch": 3}


def fairseq(given: Oracle) -> Any:
    """With the settings of the training, which say heads and strides."""
    words = {key: value for key, value in given.config.items() if key not in ("samples", "padded_from", "codes", "conv_layers")}
    kind = "hubert" if "codes" in given.config else "wav2vec2"
    layers = str([tuple(row) for row in given.config["conv_layers"]])
    mode = "layer_norm" if given.config["layer_norm_first"] else "default"
    model = {"_name": kind, **words, "conv_feature_layers": layers, "extractor_mode": mode}
    settings = {"model": model, "task": {"_name": "audio_pretraining", "normalize": False}}
    return {"args": None, "cfg": settings, "model": dict(given.weights), "optimizer_history": [], "extra_state": {"epoch": 1}}


def of(name: str) -> Callable[[Case], torch.Tensor]:
    return lambda case: case.inputs[name]


def text(case: Case) -> torch.Tensor:
    """True where the text has a token."""
    return ~case.inputs["padding"].bool()


def always(_case: Case) -> bool:
    return True


def beit3(name: str, graph: str, feeds: Words, gives: Words, without: tuple[str, ...], *nodes: str) -> Row:
    """A use of BEiT-3: the heads are those of its trunk, whichever nodes have one."""
    return Row(name, graph, f"{name}.pth", inside, always, heads_of(nodes), feeds, gives, without)


def heads_of(nodes: tuple[str, ...]) -> Callable[[Words], Words]:
    return lambda config: {node: {"num_attention_heads": config["encoder_attention_heads"]} for node in nodes}


def read(node: str, image: str = "image") -> dict[str, tuple[str, Callable[[Case], torch.Tensor]]]:
    """A picture and a text for a node."""
    return {f"{node}.pixels": (PIXELS, of(image)), f"{node}.ids": (IDS, of("ids")), f"{node}.mask": (MASK, text)}


def tower(medium: str, axes: str) -> Row:
    """A tower of ImageBind, of what is no clips; the heads of all are said, since the graph has all."""
    node = TOWERS[medium]

    def said(config: Words) -> Words:
        heads = {each: {"num_attention_heads": config[f"{name}_num_heads"]} for name, each in TOWERS.items()}
        sides = {"height": config["audio_num_mel_bins"], "width": config["audio_target_len"], "stride": config["audio_stride"]}
        heads["watch"] = {**heads["see"], "clips": True}
        heads["hear"] |= {"clips": medium != "audio", **sides}
        return heads

    def takes(case: Case) -> bool:
        return medium in case.inputs and case.inputs[medium].ndim == len(axes.split()) + 1

    port = f"{'int64' if medium == 'text' else 'float'}[batch {axes}]"
    feeds = {f"{node}.x": (port, of(medium))}
    return Row("imagebind", "imagebind/prepared", "imagebind.pth", plain, takes, said, feeds, {"embedding": f"{node}.embedding"}, ())


def nothing(_config: Words) -> Words:
    return {}


TOWERS = {"vision": "see", "text": "read", "audio": "hear", "depth": "reach", "thermal": "warm", "imu": "move"}  # of a medium: the node
ROWS = (
    Row(
        "vit_timm", "vit/any_size", "vit.pth", plain, always,
        lambda config: {"vision": {"num_attention_heads": config["num_heads"], "interpolate": True}},
        {"vision.pixels": (PIXELS, of("image"))}, {"tokens": "vision.tokens", "logits": "outputs.logits"},
        ("pixels", "answer", "inputs.image", "outputs.label", "outputs.probabilities"),
    ),
    Row(
        "coca_openclip", "coca/train", "open_clip_pytorch_model.bin", plain, always,
        lambda config: {
            "vision": {"vision_heads": config["vision_cfg"]["width"] // config["vision_cfg"]["head_width"]},
            "pool": {"pooler_heads": config["vision_cfg"]["attn_pooler_heads"]},
            "words": {"text_heads": config["text_cfg"]["heads"]}, "decode": {"decoder_heads": config["multimodal_cfg"]["heads"]},
        },
        {"vision.pixels": (PIXELS, of("image")), "words.ids": (IDS, of("ids")), "targets.ids": (IDS, of("ids"))},
        {"image_features": "pool.vector", "text_features": "words.vector", "image_tokens": "pool.tokens"},
        ("pixels", "tokens", "inputs.image", "inputs.text", "nodes.words.in.mask", "nodes.targets.in.mask"),
    ),
    beit3(
        "beit3_retrieval", "beit3/contrast", {"see.pixels": (PIXELS, of("image")), "read.ids": (IDS, of("ids")), "read.mask": (MASK, text)},
        {"image_vec": "outputs.image_vec", "text_vec": "outputs.text_vec", "vision_tokens": "see.tokens"},
        ("pixels", "words", "inputs.image", "inputs.text"), "see", "read",
    ),
    beit3(
        "beit3_vqa", "beit3/vqa", read("fuse"), {"logits": "outputs.logits"}, ("pixels", "words", "inputs.image", "inputs.question"),
        "fuse",
    ),
    beit3(
        "beit3_nlvr2", "beit3/nlvr2", read("one") | read("other", "image_b"), {"logits": "outputs.logits"},
        ("left", "right", "words", "inputs.first", "inputs.second", "inputs.text"), "one", "other",
    ),
    beit3(
        "beit3_in1k", "beit3/classify", {"see.pixels": (PIXELS, of("image"))}, {"logits": "outputs.logits"}, ("pixels", "inputs.image"),
        "see",
    ),
    Row(
        "beit2_vqkd", "beit3/tokenize", "vqkd.pth", inside, lambda case: "image01" in case.inputs,
        lambda config: {"codes": {"num_attention_heads": config["num_heads"]}},
        {"codes.pixels": (PIXELS, lambda case: case.inputs["image01"] * 2 - 1)},
        {"features": "codes.features", "ids": "codes.ids", "quantized": "codes.codes"},
        ("pixels", "paint", "outputs.picture", "inputs.image"),
    ),
    Row(
        "hubert", "hubert", "hubert.pt", fairseq, lambda case: "final" in case.outputs, nothing,
        {"encoder.samples": (WAVE, of("wave"))}, {"final": "encoder.tokens"},
        ("samples", "inputs.audio", "nodes.encoder.in.mask", "outputs.mask"),
    ),
    *(
        Row(
            name, "wav2vec2/features", f"{name}.pt", fairseq, lambda case: set(case.inputs) == {"wave"}, nothing,
            {"ear.samples": (WAVE, of("wave"))}, {"encoder": "ear.tokens", "conv": "ear.conv_features"},
            ("samples", "inputs.audio", "nodes.ear.in.mask", "outputs.mask"),
        )
        for name in ("wav2vec2_group", "wav2vec2_layer")
    ),
    tower("vision", "3 rows columns"), tower("text", "text_tokens"), tower("audio", "1 bands time"),
    tower("depth", "1 rows columns"), tower("thermal", "1 rows columns"), tower("imu", "6 steps"),
)  # fmt: skip


def asked(row: Row, given: Oracle, folder: Path) -> Path:
    """The shipped graph, fed with tensors, and with what no tensor says."""
    feeds = {place: type_ for place, (type_, _) in row.feeds.items()}
    outputs = {f"case_{name}": place for name, place in row.gives.items() if not place.startswith("outputs.")}
    path = fed(folder, row.graph, feeds, outputs, without=row.without)
    more = {f"nodes.{node}.with": dict(words) for node, words in row.said(given.config).items()}
    path.write_text(path.read_text() + yaml.safe_dump(more) if more else path.read_text())
    return path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.oracle}-{next(iter(row.feeds))}")
def test_the_published_file_alone_goes_through_the_graph(row: Row, tmp_path: Path):
    given = oracle(row.oracle)
    torch.save(row.held(given), tmp_path / row.file)
    took = [case for case in given.cases.values() if row.takes(case)]
    assert took
    graph = mg.load(asked(row, given, tmp_path), params={"checkpoint": str(tmp_path / row.file)}, allow=["unused"])
    wanted = {name: place.removeprefix("outputs.") if place.startswith("outputs.") else f"case_{name}" for name, place in row.gives.items()}
    with mg.open(graph) as pipeline:
        for case in took:
            inputs = {place.replace(".", "_"): tensor(case) for place, (_, tensor) in row.feeds.items()}
            found = pipeline.run(outputs=list(wanted.values()), **inputs)
            case.compare(**{name: found[place] for name, place in wanted.items()})
