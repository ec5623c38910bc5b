"""Gemma 3: the patches of SigLIP, averaged sixteen at a time, among the words of a decoder with windows (arXiv 2503.19786).

A picture is 256 vectors, whatever its size, which see each other in both directions; words see what stands before them. Of a wide or a
high picture crops may stand beside it (`cut: crops`, "pan and scan"), which its processor leaves out unless it is asked.
"""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, LanguageCard, PartCard, WholeCard
from modelgraft_plugins.families._formulas import gated
from modelgraft_plugins.families._shared import BILINEAR, HALF, PLAIN, picture_defaults
from modelgraft_plugins.families.llama import DEFAULTS

GRAPH = """\
# Ask about pictures: the patches of SigLIP, averaged and projected, stand among the words of a Gemma 3.
modelgraft: 1
name: gemma3
params:
  checkpoint: {default: google/gemma-3-4b-it, doc: hub id or folder of a Gemma 3 that sees}
  max_new_tokens: {default: 64, doc: longest answer in tokens}
inputs:
  image:  {type: "list[image]", doc: any number of pictures; they stand before the prompt}
  prompt: {type: text, doc: a question}
nodes:
  cut:     {use: tiles/preprocess, from: "${checkpoint}", in: {image: inputs.image}}                             # {cut: crops}: crops too
  vision:  {use: vision/encoder, from: "${checkpoint}#vision_tower", in: {pixels: cut.pixels}, frozen: true}       # [4096 1152] each
  project: {use: projector/normed_pool, from: "${checkpoint}#multi_modal_projector", in: {x: vision.tokens}}       # [256 2560] each
  joined:  {use: tiles/join, from: "${checkpoint}", in: {tokens: project, counts: cut.counts, grids: cut.grids}}   # all of a record
  llm:
    use: llm/causal
    from: "${checkpoint}#language_model"
    with: {prompt: "{image:ragged}{prompt}", chat: true, max_new_tokens: "${max_new_tokens}"}   # in the checkpoint's own chat template
    in: {image: joined.image, image_lengths: joined.lengths, image_words: joined.words, prompt: inputs.prompt}
outputs:
  text: llm.text
"""
# What its processor writes in place of a picture: Gemma3Processor of transformers 5.23; a test compares the ids.
_PICTURE = "\n\n<start_of_image>{image}<end_of_image>\n\n"
_WORDS = {
    "single": _PICTURE, "rest": f"Here is the original image {_PICTURE} and here are some crops to help you see better ",
    "tile": _PICTURE, "between": " ", "first": True,
}  # fmt: skip
_CROPS = {  # its processor sets them, whatever the file says
    "do_convert_rgb": True, "do_pan_and_scan": False, "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}  # fmt: skip


CARD = FamilyCard(
    "gemma3",
    "pictures of 256 vectors each among the words of a decoder with windows",
    wholes={
        "gemma3": WholeCard(
            parts={
                "vision_tower": PartCard("vision_config", "siglip_vision_model", strip="vision_model."),
                "language_model": PartCard("text_config", "gemma3_text", also="text_model", language="always"),
                "multi_modal_projector": PLAIN,
            },
            tied=True,
            reads="media",
            components={
                "tiles/preprocess": {
                    "processor": "Gemma3",
                    "cut": "crops",
                    "defaults": picture_defaults(224, resample=BILINEAR, mean=HALF, std=HALF),
                    "always": _CROPS,
                },
                "tiles/join": _WORDS,
                "llm/causal": {"placeholder": "<image_soft_token>", "mark": "<start_of_image>"},
            },
        ),
    },
    languages={
        "gemma3_text": LanguageCard(
            {
                **DEFAULTS,
                "vocab_size": 262208,
                "hidden_size": 2304,
                "intermediate_size": 9216,
                "num_hidden_layers": 26,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "max_position_embeddings": 131072,
                "tie_word_embeddings": True,
            },
            gated(biases="config", norms=4, head_norms=True),
            even=True,
            more={"media_mask": "transformers.models.gemma3.modeling_gemma3:create_masks_for_vision_model"},
        ),
    },
    graphs={"gemma3": GRAPH},
)
