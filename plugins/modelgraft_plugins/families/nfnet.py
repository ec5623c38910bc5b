"""NFNet-F, the eye of Flamingo: a residual network without norms (arXiv 2102.06171), in the files of timm.

Source: `dm_nfnet_f0` to `dm_nfnet_f6` of timm 1.0, their `config.json` on the hub and the defaults of their `_cfg`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, LayoutCard, PartCard, TensorOrigin, WholeCard
from modelgraft_plugins.families import _vit_timm
from modelgraft_plugins.families._shared import IMAGENET_MEAN, IMAGENET_STD
from modelgraft_plugins.stated import ABOUT, REMARKS, Table

Shapes = Mapping[str, tuple[int, ...]]
NAME = re.compile(r"dm_nfnet_f([0-6])$")
SIDES = (192, 224, 256, 320, 384, 416, 448)  # pictures of F0 to F6
KEPT = (0.9, 0.91, 0.92, 0.94, 0.951, 0.954, 0.956)  # `crop_pct`: the share of a side that is looked at
DEPTHS, CHANNELS, STEM, GROUP, FEATURES = (1, 2, 6, 3), (256, 512, 1536, 1536), 128, 128, 3072  # of F0
MARKS = ("stem.conv4.gain", "stages.0.0.skipinit_gain", "stages.0.0.conv2b.weight", "final_conv.weight")
PLACED = re.compile(r"(stem\.conv[1-4]|stages\.\d+\.\d+\.(downsample\.conv|conv1|conv2|conv2b|conv3)|final_conv)\.(weight|bias|gain)")
OTHERS = re.compile(r"stages\.\d+\.\d+\.(skipinit_gain|attn_last\.fc[12]\.(weight|bias))|head\.fc\.(weight|bias)")
WORDS = Table(
    "config.json",
    frozenset({"architecture", "num_classes", "pretrained_cfg", "model_args", "label_names", "label_descriptions", "num_features"}),
    ABOUT | {"drop_rate", "drop_path_rate"},
    {"global_pool": ("avg",), "output_stride": (32,), "in_chans": (3,)},
)


def _knows(root: Mapping[str, Any], shapes: Shapes) -> bool:
    if NAME.match(str(root.get("architecture", ""))):
        return "model_type" not in root and (not shapes or MARKS[0] in shapes)
    known = root.get("model_type", "nfnet") == "nfnet" and all(key in shapes for key in MARKS)
    return known and all(PLACED.fullmatch(key) or OTHERS.fullmatch(key) for key in shapes)


def _config(root: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The sizes, by shapes where there are any, else by the name of the architecture."""
    words = {key: value for key, value in {**root, **root.get("model_args", {})}.items() if key != "model_type"}
    if refused := WORDS.over(words):
        raise ValueError(f"NFNet here has no {', '.join(f'{key}: {value!r}' for key, value in sorted(refused.items()))}")
    named = NAME.match(str(root.get("architecture", "")))
    found = _of_shapes(shapes) if shapes else _of_name(int(named[1])) if named else {}
    size = root.get("pretrained_cfg", {}).get("input_size", (3, SIDES[int(named[1])] if named else 0))[-1]
    remarks = {} if "pretrained_cfg" in root else {REMARKS: [list(_SILENT_PICTURES)]}
    classes = found.pop("classes", root.get("num_classes", 0))
    eye = {"model_type": "nfnet_vision_model", **found, "image_size": size or 224}
    return {"model_type": "nfnet", "vision_config": eye, **_vit_timm.labels(root, classes), **remarks}


_SILENT_PICTURES = (
    "nothing beside these tensors says how pictures are prepared, nor how large: 224 pixels, or those of the architecture that is named",
    "put timm's config.json beside them, or say it at vision/preprocess (size) and at the eye (image_size)",
)


def _of_name(size: int) -> dict[str, Any]:
    halves = [channels // 2 for channels in CHANNELS]
    depths = [depth * (size + 1) for depth in DEPTHS]
    return {
        "depths": depths, "channels": list(CHANNELS), "inner_channels": halves, "gate_channels": halves, "stem_channels": STEM,
        "group_size": GROUP, "features": FEATURES,
    }  # fmt: skip


def _of_shapes(shapes: Shapes) -> dict[str, Any]:
    stages = [{key.split(".")[2] for key in shapes if key.startswith(f"stages.{stage}.")} for stage in range(4)]
    if not all(stages) or any(key not in shapes for key in MARKS):
        raise ValueError(f"it has no four stages of blocks, or lacks one of {', '.join(MARKS)}")
    first = [f"stages.{stage}.0" for stage in range(4)]
    sizes = {
        "depths": [len(stage) for stage in stages], "channels": [shapes[f"{at}.conv3.weight"][0] for at in first],
        "inner_channels": [shapes[f"{at}.conv2.weight"][0] for at in first],
        "gate_channels": [shapes[f"{at}.attn_last.fc1.weight"][0] for at in first],
        "stem_channels": shapes["stem.conv4.weight"][0], "group_size": shapes["stages.0.0.conv2.weight"][1],
        "features": shapes["final_conv.weight"][0],
    }  # fmt: skip
    head = shapes.get("head.fc.weight")
    return {**sizes, **({"classes": head[0]} if head is not None else {})}


def _tensors(_config: Mapping[str, Any], shapes: Shapes) -> dict[str, TensorOrigin]:
    own = [key for key in shapes if PLACED.fullmatch(key) or OTHERS.fullmatch(key)]
    heads = {key: key.replace("head.fc.", "classifier.") for key in own if key.startswith("head.fc.")}
    return {heads.get(key, f"vision_model.{key}"): TensorOrigin(key) for key in own}


def _files(root: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """How timm prepares pictures for it: squashed to a square, of which the middle is taken."""
    named = NAME.match(str(root.get("architecture", "")))
    silent = {
        "crop_pct": KEPT[int(named[1])] if named else KEPT[0], "crop_mode": "squash", "interpolation": "bicubic", "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }  # fmt: skip
    return {"preprocessor_config.json": _vit_timm.prepared(root, config["vision_config"]["image_size"], silent)}


GRAPH = """\
# Say what is on a picture: one of the classes that an NFNet was trained on.
modelgraft: 1
name: nfnet
params:
  checkpoint: {default: "timm/dm_nfnet_f0.dm_in1k", doc: hub id or folder of an NFNet with a classification head}
inputs:
  image: image
nodes:
  pixels: {use: vision/preprocess, from: "${checkpoint}", in: {image: inputs.image}}
  vision: {use: vision/nfnet, from: "${checkpoint}#vision_model", in: {pixels: pixels}}   # pooled: the mean of the features, [batch 3072]
  head:   {use: projector/linear, from: "${checkpoint}#classifier", with: {over: vector}, in: {x: vision.pooled}}
  answer: {use: head/classifier, from: "${checkpoint}", in: {logits: head}}
outputs:
  label: answer.label
  probabilities: answer.probabilities
  logits: head
"""

CARD = FamilyCard(
    "nfnet",
    "a residual network without norms",
    wholes={"nfnet": WholeCard(parts={"vision_model": PartCard("vision_config", "nfnet_vision_model")}, pictures="ViT")},
    graphs={"nfnet": GRAPH},
    layouts=(LayoutCard("timm's NFNet", _knows, _config, _tensors, _files),),
)
