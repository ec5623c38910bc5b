"""PaliGemma: the patches of SigLIP, projected, before the words of a Gemma that reads its prompt in both directions (arXiv 2407.07726).

A prompt is picture, begin token, text and a line break; its places see each other, and the answer sees all before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, WholeCard
from modelgraft_plugins.families._shared import PLAIN

GRAPH = """\
# Ask about a picture: the patches of SigLIP, projected, stand before the words of a Gemma, which reads its prompt in both directions.
modelgraft: 1
name: paligemma
params:
  checkpoint: {default: google/paligemma-3b-mix-224, doc: hub id or folder of a PaliGemma}
  max_new_tokens: {default: 64, doc: longest answer in tokens}
inputs:
  image:  image
  prompt: {type: text, doc: "a task in the words of the checkpoint, such as `caption en` or `answer en what is it?`"}
nodes:
  pixels:  {use: vision/preprocess, from: "${checkpoint}", in: {image: inputs.image}}
  vision:  {use: vision/encoder, from: "${checkpoint}#vision_tower", in: {pixels: pixels}, frozen: true}           # [batch 256 1152]
  project: {use: projector/linear, from: "${checkpoint}#multi_modal_projector.linear", in: {x: vision.tokens}}     # [batch 256 2048]
  llm:
    use: llm/causal
    from: "${checkpoint}#language_model"
    with: {prompt: "{image}{prompt}\\n", max_new_tokens: "${max_new_tokens}"}   # the line break ends the question
    in: {image: project, prompt: inputs.prompt}
outputs:
  text: llm.text
"""


def _language(config: Mapping[str, Any]) -> dict[str, Any]:
    """The Gemma inside by itself: which way the prompt is read is said by `reads`, not by a key of its class."""
    return {key: value for key, value in config.items() if key not in ("use_bidirectional_attention", "num_image_tokens")}


CARD = FamilyCard(
    "paligemma",
    "a picture before the words of a Gemma, which reads its prompt in both directions",
    wholes={
        "paligemma": WholeCard(
            parts={
                "vision_tower": PartCard("vision_config", "siglip_vision_model", strip="vision_model."),
                "language_model": PartCard("text_config", "gemma", also="text_model", language="always"),
                "multi_modal_projector": PLAIN,
            },
            pictures="Siglip",
            tied=True,
            keeps=True,
            begin="text",
            begin_token="<bos>",  # noqa: S106 a token of the vocabulary; its files say that no tokenizer adds it
            reads="both",
            language_config=_language,
        ),
    },
    graphs={"paligemma": GRAPH},
)
