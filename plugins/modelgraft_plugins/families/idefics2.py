"""Idefics 2: pictures in their own shapes, of each 64 vectors among the words of a Mistral (arXiv 2405.02246)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, WholeCard
from modelgraft_plugins.families import idefics3
from modelgraft_plugins.families._shared import BILINEAR, HALF, PLAIN, eye_sizes, picture_defaults

# Files state no `model_type` of its own here: Idefics2VisionConfig. Its pictures are filled up to one size.
EYE = replace(
    idefics3.EYE,
    style="idefics2",
    defaults={**eye_sizes(768, 3072, 12, 12, 32), "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    any_size=True,
    more={"shapes": True},
)
_MARK = "<fake_token_around_image>"
_AROUND = f"{_MARK}{{image}}{_MARK}"
_RESAMPLER: Mapping[str, Any] = {
    "depth": ("perceiver_config.resampler_depth", 3), "num_heads": ("perceiver_config.resampler_n_heads", 16),
    "head_dim": ("perceiver_config.resampler_head_dim", 96), "num_latents": ("perceiver_config.resampler_n_latents", 64),
    "num_key_value_heads": ("perceiver_config.num_key_value_heads", 4), "hidden_act": ("perceiver_config.hidden_act", "silu"),
    "rms_norm_eps": ("perceiver_config.rms_norm_eps", 1e-6),
}  # fmt: skip
GRAPH = """\
# Ask about pictures: an eye looks at each in its own shape, and at its quarters; a resampler makes few vectors of each for a Mistral.
modelgraft: 1
name: idefics2
params:
  checkpoint: {default: HuggingFaceM4/idefics2-8b, doc: hub id or folder of an Idefics 2}
  max_new_tokens: {default: 64, doc: longest answer in tokens}
inputs:
  image:  {type: "list[image]", doc: "any number of pictures, each of any size; they stand before the prompt"}
  prompt: {type: text, doc: a question}
nodes:
  cut:    {use: tiles/preprocess, from: "${checkpoint}", in: {image: inputs.image}}
  vision:                                          # a row for each picture and quarter, filled up to one size
    use: vision/encoder
    from: "${checkpoint}#vision_model"
    in: {pixels: cut.pixels, shapes: cut.shapes}
    frozen: true
  wide:   {use: projector/gated, from: "${checkpoint}#connector.modality_projection", in: {x: vision.tokens}}
  few:    {use: resampler/grouped, from: "${checkpoint}#connector.perceiver_resampler", in: {media: wide, there: vision.there}}
  joined: {use: tiles/join, from: "${checkpoint}", in: {tokens: few, counts: cut.counts, grids: cut.grids}}   # all of a record
  llm:
    use: llm/causal
    from: "${checkpoint}#text_model"
    with: {prompt: "{image:ragged}{prompt}", chat: true, max_new_tokens: "${max_new_tokens}"}   # in the checkpoint's own chat template
    in: {image: joined.image, image_lengths: joined.lengths, image_words: joined.words, prompt: inputs.prompt}
outputs:
  text: llm.text
"""
CARD = FamilyCard(
    "idefics2",
    "pictures in their own shapes, few vectors of each among the words of a Mistral",
    wholes={
        "idefics2": WholeCard(
            parts={
                "vision_model": PartCard("vision_config", "idefics2_vision"),
                "text_model": PartCard("text_config", "mistral", language="nested"),
                "perceiver_resampler": PartCard("perceiver_config"),
                **dict.fromkeys(("connector", "modality_projection"), PLAIN),
            },
            tied=False,
            components={
                "tiles/preprocess": {
                    "processor": "Idefics2", "cut": "native", "patch": 32,
                    "always": {"do_convert_rgb": False},  # Idefics2Processor hands on pictures in red, green and blue, without transparency
                    "defaults": {
                        **picture_defaults(378, resample=BILINEAR, mean=HALF, std=HALF),
                        "size": {"shortest_edge": 378, "longest_edge": 980}, "do_image_splitting": False,
                    },
                },
                "tiles/join": {"tile": _AROUND, "rest": _AROUND, "single": _AROUND},
                "resampler/grouped": {
                    "fields": _RESAMPLER, "width": ("perceiver_config.hidden_size", 4096),
                    "width_around": ("text_config.hidden_size", 4096), "eps_around": ("text_config.rms_norm_eps", 1e-5),
                },
                "llm/causal": {"media_edge": _MARK},
            },
        ),
    },
    towers={"idefics2_vision": EYE},
    graphs={"idefics2": GRAPH},
)  # fmt: skip
