"""InternVL in the layout of transformers: tiles by the shape of a picture, in groups of patches (arXiv 2412.05271, 2504.10479)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import forward, linear
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_STD, PLAIN, picture_defaults


class InternSteps:
    """A class token before the patches; where all patches are averaged for a class, there is no norm at the end."""

    def enter(self, tower: Any, pixels: Any, *, interpolate: bool) -> Any:  # noqa: ARG002 the class interpolates where it has to
        """Class token and patches with their places."""
        return tower.embeddings(pixels)

    def layers(self, tower: Any) -> Sequence[Any]:
        """The blocks."""
        return tower.encoder.layer  # type: ignore[no-any-return]

    def layer(self, block: Any, hidden: Any) -> Any:
        """One of them."""
        return block(hidden)

    def finish(self, tower: Any, hidden: Any, _settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens; no vector for all."""
        return tower.layernorm(hidden), None


def _count(f: Mapping[str, Any]) -> int:
    width, patch, size = f["hidden_size"], f["patch_size"], f["image_size"]
    rows, columns = (side // patch for side in ((size, size) if isinstance(size, int) else size))
    norm = 2 * width if f["norm_type"] == "layer_norm" else width
    attention = 3 * linear(width, width, bias=f["attention_bias"]) + linear(width, width, bias=True)
    block = attention + (2 * width if f["use_qk_norm"] else 0) + forward(width, f["intermediate_size"]) + 2 * norm + 2 * width
    tokens = 1 + bool(f["use_mask_token"]) + (rows * columns + 1 if f["use_absolute_position_embeddings"] else 0)
    patches = (f["num_channels"] * patch * patch + 1) * width
    return int(patches + tokens * width + f["num_hidden_layers"] * block + (0 if f["use_mean_pooling"] else 2 * width))


EYE = TowerCard(
    "image",
    architecture="InternVLVisionModel",
    defaults={
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 448,
        "patch_size": 14, "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "attention_bias": False, "use_qk_norm": False,
        "norm_type": "layer_norm", "use_mask_token": False, "use_absolute_position_embeddings": True, "use_mean_pooling": True,
    },
    lead=1,
    pooled=False,
    count=_count,
    steps=InternSteps(),
)  # fmt: skip
GRAPH = """\
# Ask about pictures: each is cut into as many tiles as its shape wants, and groups of patches of each stand among the words.
modelgraft: 1
name: internvl
params:
  checkpoint: {default: OpenGVLab/InternVL3-1B-hf, doc: hub id or folder of an InternVL in the layout of transformers}
  max_new_tokens: {default: 64, doc: longest answer in tokens}
inputs:
  image:  {type: "list[image]", doc: "any number of pictures, each of any size; they stand before the prompt"}
  prompt: {type: text, doc: a question}
nodes:
  cut:     {use: tiles/preprocess, from: "${checkpoint}", in: {image: inputs.image}}
  vision:  {use: vision/encoder, from: "${checkpoint}#vision_tower", in: {pixels: cut.pixels}, frozen: true}          # a row for each tile
  groups:  {use: projector/pixel_shuffle, from: "${checkpoint}", in: {x: vision}}                                    # fewer, wider vectors
  project: {use: projector/mlp, from: "${checkpoint}#multi_modal_projector", in: {x: groups}}
  joined:  {use: tiles/join, from: "${checkpoint}", in: {tokens: project, counts: cut.counts, grids: cut.grids}}     # all tiles of a record
  llm:
    use: llm/causal
    from: "${checkpoint}#language_model"
    with: {prompt: "{image:ragged}{prompt}", chat: true, max_new_tokens: "${max_new_tokens}"}   # in the checkpoint's own chat template
    in: {image: joined.image, image_lengths: joined.lengths, image_words: joined.words, prompt: inputs.prompt}
outputs:
  text: llm.text
"""
CARD = FamilyCard(
    "internvl",
    "tiles by the shape of a picture stand in groups of patches among the words of a language model",
    wholes={
        "internvl": WholeCard(
            parts={
                "vision_tower": PartCard("vision_config", "internvl_vision"),
                "language_model": PartCard("text_config", "qwen2", also="text_model", language="always"),
                "multi_modal_projector": PLAIN,
            },
            layer=("vision_feature_layer", -1),
            select=("vision_feature_select_strategy", "default"),
            ends=True,
            tied=True,
            components={
                "tiles/preprocess": {
                    "processor": "GotOcr2", "cut": "shape", "always": {"crop_to_patches": True},
                    "defaults": {
                        **picture_defaults(384, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD),
                        "crop_to_patches": False, "min_patches": 1, "max_patches": 12,
                    },
                },
                "tiles/join": {"around": "<img>{image}</img>", "single": "<img>{image}</img>"},
                "projector/mlp": {"norm": True},
            },
        ),
    },
    towers={"internvl_vision": EYE},
    graphs={"internvl": GRAPH},
)  # fmt: skip
