"""LLaVA-NeXT and LLaVA-OneVision: tiles of a picture of any resolution, laid out in rows (arXiv 2310.03744, 2408.03326)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, PartCard, WholeCard
from modelgraft_plugins.families._shared import BICUBIC, CLIP_MEAN, CLIP_PICTURES, CLIP_STD, PLAIN, picture_defaults

NEXT_SIZES = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))  # LlavaNextImageProcessor of transformers
ONEVISION_SIZES = tuple((384 * rows, 384 * columns) for rows in range(1, 7) for columns in range(1, 7))  # LlavaOnevisionImageProcessor


def _parts(eye: str, language: str) -> dict[str, PartCard]:
    return {
        "vision_tower": PartCard("vision_config", eye, strip="vision_model."),
        "language_model": PartCard("text_config", language, also="text_model", language="always"),
        "multi_modal_projector": PLAIN,
        "image_newline": PLAIN,
    }


GRAPH = """\
# Ask about pictures of any resolution: an eye looks at the whole and at tiles of it, whose patches stand in rows among the words.
modelgraft: 1
name: NAME
params:
  checkpoint: {default: DEFAULT, doc: hub id or folder of such a model}
  max_new_tokens: {default: 64, doc: longest answer in tokens}
inputs:
  image:  {type: "list[image]", doc: "DOC"}
  prompt: {type: text, doc: a question}
nodes:
  cut:     {use: tiles/preprocess, from: "${checkpoint}", in: {image: inputs.image}}
  vision:  {use: vision/encoder, from: "${checkpoint}#vision_tower", in: {pixels: cut.pixels}, frozen: true}   # a row for each tile
  project: {use: projector/mlp, from: "${checkpoint}#multi_modal_projector", in: {x: vision.tokens}}
  newline: {use: tiles/newline, from: "${checkpoint}#image_newline", in: {x: project}}                      # a learned vector
  packed:                                               # of each picture the whole, then its rows, each with that vector behind it
    use: tiles/pack
    from: "${checkpoint}"
    in: {tokens: project, newline: newline, counts: cut.counts, grids: cut.grids, sizes: cut.sizes}
  llm:
    use: llm/causal
    from: "${checkpoint}#language_model"
    with: {prompt: "{image:ragged}{prompt}", chat: true, max_new_tokens: "${max_new_tokens}"}   # in the checkpoint's own chat template
    in: {image: packed.image, image_lengths: packed.lengths, prompt: inputs.prompt}
outputs:
  text: llm.text
"""


def _graph(*, name: str, default: str, doc: str) -> str:
    return GRAPH.replace("NAME", name).replace("DEFAULT", default).replace("DOC", doc)


CARD = FamilyCard(
    "llava_next",
    "tiles of a picture of any resolution, laid out in rows, stand among the words of a language model",
    wholes={
        "llava_next": WholeCard(
            parts=_parts("clip_vision_model", "llama"),
            layer=("vision_feature_layer", -2),
            select=("vision_feature_select_strategy", "default"),
            tied=False,
            components={
                "tiles/preprocess": {
                    "processor": "LlavaNext", "cut": "resolutions",
                    "defaults": {**CLIP_PICTURES, "image_grid_pinpoints": NEXT_SIZES},
                },
            },
        ),
        "llava_onevision": WholeCard(
            parts=_parts("siglip_vision_model", "qwen2"),
            layer=("vision_feature_layer", -1),
            select=("vision_feature_select_strategy", "full"),
            tied=False,
            tied_inside=True,
            components={
                "tiles/preprocess": {
                    "processor": "LlavaOnevision", "cut": "resolutions", "alone": True,
                    "defaults": {
                        **picture_defaults(384, resample=BICUBIC, mean=CLIP_MEAN, std=CLIP_STD), "image_grid_pinpoints": ONEVISION_SIZES,
                    },
                },
                "tiles/pack": {"aspect": "anyres_max_9"},
            },
        ),
    },
    graphs={
        "llava_next": _graph(
            name="llava_next", default="llava-hf/llava-v1.6-mistral-7b-hf", doc="any number of pictures; they stand before the prompt"
        ),
        "llava_onevision": _graph(
            name="llava_onevision",
            default="llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
            doc="any number of pictures; one alone is cut into tiles, several are squares",
        ),
    },
)  # fmt: skip
