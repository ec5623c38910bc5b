"""Idefics 3 and SmolVLM: tiles of a picture stand in groups of patches among the words (arXiv 2408.12637, 2504.05299)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.plugin import FamilyCard, PartCard, TowerCard, WholeCard
from modelgraft_plugins.families._formulas import vision_tower
from modelgraft_plugins.families._shared import EYE_SETTINGS, HALF, LANCZOS, PLAIN, eye_sizes, picture_defaults

JUST_BELOW_ONE = 1 - 1e-6  # what a share of a side is at most, so that the last patch has the last place


class NativeSteps:
    """Patches of a picture of any shape have places by the share of the side that lies before them."""

    def enter(self, tower: Any, pixels: Any, *, interpolate: bool) -> Any:  # noqa: ARG002 the places are those of the grid that there is
        """Patches with their places."""
        return self.enter_parts(tower, pixels, pixels.new_tensor([pixels.shape[2:]]))[0]

    def enter_parts(self, tower: Any, pixels: Any, shapes: Any) -> tuple[Any, Any]:
        """The same of pictures that are filled up, and which patches are there, bool[batch tokens]; `shapes` [batch 2] in pixels."""
        words = tower.embeddings
        patches = words.patch_embedding(pixels)  # [batch width rows columns]
        counts = shapes // words.patch_size
        rows, columns = (_buckets(counts[:, side], patches.shape[2 + side], words.num_patches_per_side) for side in (0, 1))
        there = (rows >= 0)[:, :, None] & (columns >= 0)[:, None]
        places = (rows[:, :, None] * words.num_patches_per_side + columns[:, None]) * there
        hidden = patches.flatten(2).transpose(1, 2) + words.position_embedding(places.flatten(1))
        return hidden, there.flatten(1)

    def layers(self, tower: Any) -> Sequence[Any]:
        """The blocks."""
        return tower.encoder.layers  # type: ignore[no-any-return]

    def layer(self, block: Any, hidden: Any) -> Any:
        """One of them, without a mask."""
        return block(hidden, None)

    def finish(self, tower: Any, hidden: Any, _settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens behind the last norm."""
        return tower.post_layernorm(hidden), None


def _buckets(counts: Any, most: int, places: int) -> Any:
    """Which of so many places on a side each patch has, int64[batch most], -1 behind the last of `counts` [batch].

    In the numbers of float32, as published.
    """
    import torch

    numbers = torch.arange(most, device=counts.device)
    shares = (numbers.to(torch.float32) * (1.0 / counts.to(torch.float32))[:, None]).clamp(max=JUST_BELOW_ONE)
    borders = torch.arange(1 / places, 1.0, 1 / places, device=counts.device)
    found = (borders <= shares[..., None]).sum(-1)
    return torch.where(numbers < counts[:, None], found, -1)


def _count(f: Mapping[str, Any]) -> int:
    return vision_tower({**f, "qkv_bias": True}, lead=0)


EYE = TowerCard(
    "image",
    style="idefics3",
    architecture="Idefics3VisionTransformer",
    defaults={**eye_sizes(1152, 3072, 12, 16, 32), "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    settings=EYE_SETTINGS,
    pooled=False,
    count=_count,
    steps=NativeSteps(),
    idle=frozenset({"max_image_size", "size", "use_base_siglip", "tie_word_embeddings"}),  # of files of former times: of the pictures
)
_PICTURES = {
    "cut": "grid",
    "defaults": {
        **picture_defaults(364, resample=LANCZOS, mean=HALF, std=HALF), "size": {"longest_edge": 4 * 364},
        "do_image_splitting": True, "max_image_size": {"longest_edge": 364},
    },
}  # fmt: skip
_MARK = "<fake_token_around_image>"
_WORDS = {
    "tile": f"{_MARK}<row_{{row}}_col_{{column}}>{{image}}",
    "line": "\n",
    "rest": f"\n{_MARK}<global-img>{{image}}{_MARK}",
    "single": f"{_MARK}<global-img>{{image}}{_MARK}",
}
GRAPH = """\
# Ask about pictures: each is cut into tiles, an eye looks at each tile and at the whole, and groups of patches stand among the words.
modelgraft: 1
name: NAME
params:
  checkpoint: {default: DEFAULT, doc: hub id or folder of such a model}
  max_new_tokens: {default: 64, doc: longest answer in tokens}
inputs:
  image:  {type: "list[image]", doc: "any number of pictures, each of any size; they stand before the prompt"}
  prompt: {type: text, doc: a question}
nodes:
  cut:     {use: tiles/preprocess, from: "${checkpoint}", in: {image: inputs.image}}
  vision:  {use: vision/encoder, from: "${checkpoint}#vision_model", in: {pixels: cut.pixels}, frozen: true}  # a row for each tile
  groups:  {use: projector/pixel_shuffle, from: "${checkpoint}", in: {x: vision}}   # fewer, wider vectors
  project: {use: projector/linear, from: "${checkpoint}#connector.modality_projection.proj", in: {x: groups}}
  joined:  {use: tiles/join, from: "${checkpoint}", in: {tokens: project, counts: cut.counts, grids: cut.grids}}  # all tiles of a record
  llm:
    use: llm/causal
    from: "${checkpoint}#text_model"
    with: {prompt: "{image:ragged}{prompt}", chat: true, max_new_tokens: "${max_new_tokens}"}   # in the checkpoint's own chat template
    in: {image: joined.image, image_lengths: joined.lengths, image_words: joined.words, prompt: inputs.prompt}
outputs:
  text: llm.text
"""


def _whole(eye: str, processor: str) -> WholeCard:
    return WholeCard(
        parts={
            "vision_model": PartCard("vision_config", eye),
            "text_model": PartCard("text_config", "llama", language="nested"),
            **dict.fromkeys(("connector", "modality_projection", "proj"), PLAIN),
        },
        tied=False,
        components={"tiles/preprocess": {"processor": processor, **_PICTURES}, "tiles/join": _WORDS},
    )


CARD = FamilyCard(
    "idefics3",
    "tiles of a picture stand in groups of patches among the words of a LLaMA",
    wholes={"idefics3": _whole("idefics3_vision", "Idefics3"), "smolvlm": _whole("smolvlm_vision", "SmolVLM")},
    towers=dict.fromkeys(("idefics3_vision", "smolvlm_vision"), EYE),
    graphs={
        "idefics3": GRAPH.replace("NAME", "idefics3").replace("DEFAULT", "HuggingFaceM4/Idefics3-8B-Llama3"),
        "smolvlm": GRAPH.replace("NAME", "smolvlm").replace("DEFAULT", "HuggingFaceTB/SmolVLM-256M-Instruct"),
    },
)
