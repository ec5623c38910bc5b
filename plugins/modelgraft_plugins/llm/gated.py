"""adapter/gated_cross_attention: media beside a language model, which its words look at (Flamingo, OpenFlamingo, IDEFICS)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft.plugin import Config, Dim, Ports, SolvedNode, component, families, port
from modelgraft_plugins.stated import told

if TYPE_CHECKING:
    from modelgraft.plugin import Source

BLOCK = re.compile(r"(?:^|\.)([0-9]+)\.gated_cross_attn_layer\.(.+)$")  # a tensor of a block in the files of OpenFlamingo
IDEFICS_BLOCK = re.compile(r"(?:^|\.)gated_cross_attn_layers\.([0-9]+)\.(.+)$")  # the same of IDEFICS, which numbers the blocks
OWN_BLOCK = re.compile(r"(?:^|\.)gated\.blocks\.([0-9]+)\.(.+)$")  # of what was trained here


@component(
    "adapter/gated_cross_attention",
    kind="adapter",
    load="modelgraft_plugins.llm.gated_causal:graft",
    loop="modelgraft_plugins.llm.gated_writer:GatedWriter",
    hosts=("llm/causal",),
    keywords=("flamingo", "perceiver"),
)
class GatedCrossAttention(Config):
    """Let the words of llm/causal look at media, by gated blocks before every n-th of its layers (Flamingo).

    Adds the input `media`: one medium per record or several, each as the vectors that a resampler gives. Media of zeros alone
    fill up records that have fewer than others; `counts` (vision/count) says the numbers outright. A prompt holds the model's
    placeholder (`placeholder` of the host, a token of its vocabulary) once for each medium of its record. A word sees the
    last medium that stands before it; words before the first see none, and new words see the last of the prompt.
    New gates are closed: the host then answers as without its blocks.

    family   flamingo: before layers every-1, 2*every-1, ...; heads of `num_heads` x `head_dim`, GELU, no biases
             idefics: before layers 0, every, ...; heads of LLaMA's width, RMS norms, gated feed-forward (`intermediate_size`)
    attends  "all": a word sees all media before it, not only the last (flamingo)
             "next": it sees the first medium behind it, as where a caption stands before its picture: what the code of the first
             OpenFlamingo, Otter and MMGPT calls attend_previous=False. Words behind the last medium see none then, new ones neither
    """

    grafts_tensors = True

    family: Literal["flamingo", "idefics"] = Field("flamingo", description="how the blocks are built, and where they stand")
    media_size: Dim = Field(None, description="width of the media")
    hidden_size: Dim = Field(None, description="width of the host's layers")
    num_hidden_layers: Dim = Field(None, description="layers of the host")
    every: int = Field(4, gt=0, description="a block before every so many layers")
    num_heads: int = Field(8, gt=0, description="heads of the cross-attention")
    head_dim: int = Field(64, gt=0, description="flamingo: width of a head")
    ff_mult: int = Field(4, gt=0, description="flamingo: width of the feed-forward layers, in widths of the host")
    activation: Literal["gelu", "squared_relu"] = Field(
        "gelu", description="flamingo: of the feed-forward layers; the paper's is the other"
    )
    attends: Literal["last", "all", "next"] = Field("last", description="which of the media a word sees")
    intermediate_size: int | None = Field(None, gt=0, description="idefics: width of the feed-forward layers")
    qk_norms: bool = Field(False, description="idefics: queries and keys are normed per head")
    hidden_act: str = Field("silu", description="idefics: activation of the feed-forward layers")
    rms_norm_eps: float = Field(1e-6, description="idefics: added to the variance in its norms")
    gates: Literal["float", "vector"] = Field("float", description="idefics: one number for a whole block, or one for each of its widths")

    frozen: bool = Field(False, description="the blocks are not trained, as where LoRA trains what stands around them")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read what `modelgraft train` has left, the config of an IDEFICS, or config and shapes of an OpenFlamingo (all but the heads)."""
        if (trained := source.states("adapter/gated_cross_attention", is_graft=True)) is not None:
            return trained
        card = families().whole(source.root.get("model_type")).components.get("adapter/gated_cross_attention", {})
        if "family" in card:  # all of it stands in the config of the whole
            return {"family": card["family"], **told(source.root, card["fields"])}
        stated = told(source.config, card.get("fields", {}))
        shapes = source.tensor_shapes()
        return {**stated, **(_of_tensors(source.text, shapes) if shapes else {})}

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of the host before which a block stands."""
        first = 0 if self.family == "idefics" else self.every - 1
        whole = (self.num_hidden_layers or 0) // self.every  # IDEFICS has no block before a last, shorter stretch of layers
        return tuple(first + self.every * index for index in range(whole))

    def ports(self) -> Ports:
        """The media of each record."""
        media = "float[batch latents media_size] | float[batch images latents media_size]"
        counts = port("optional[int64[batch]]", doc="how many media each record has; unwired: all but those of zeros alone")
        return Ports({"media": port(media, doc="what the words look at: one medium per record, or several"), "counts": counts}, {})

    def parameters(self) -> int:
        """Count by formula."""
        width, media = self.hidden_size or 0, self.media_size or 0
        if self.family == "flamingo":
            inner = self.num_heads * self.head_dim
            attention = 2 * width + 2 * width * inner + 2 * media * inner
            return len(self.layers) * (attention + 2 * width + 2 * self.ff_mult * width * width + 2)
        head_norms = 2 * (width // self.num_heads) if self.qk_norms else 0
        attention = 2 * width * width + 2 * media * width + head_norms
        gates = 2 * (width if self.gates == "vector" else 1)
        return len(self.layers) * (attention + 3 * width * (self.intermediate_size or 0) + 2 * width + gates)

    def trained_parameters(self) -> int:
        """All of it, unless it is frozen."""
        return 0 if self.frozen else self.parameters()

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """There must be a block, and IDEFICS needs its sizes."""
        if not self.layers:
            found = f"{node.name} has {self.num_hidden_layers} layers, and a block before every {self.every} of them is none"
            yield "config-mismatch", found, f"set `every` of its adapter to at most {self.num_hidden_layers}"
        for name, usual in (("attends", "last"), ("activation", "gelu")):
            if self.family == "idefics" and getattr(self, name) != usual:
                found = f"the adapter of {node.name} has {name}: {getattr(self, name)}, which the idefics family does not have"
                yield "config-mismatch", found, f"leave {name} out"
        if self.family == "idefics" and self.intermediate_size is None:
            yield "config-mismatch", f"the idefics blocks of {node.name} have no intermediate_size", "set it, or name their checkpoint"
        if self.family == "idefics" and (self.hidden_size or 0) % self.num_heads:
            found = f"{node.name} is {self.hidden_size} wide, which {self.num_heads} heads of its adapter do not divide"
            yield "config-mismatch", found, "set num_heads to a number that divides it"


def _of_tensors(text: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The sizes of the blocks of an OpenFlamingo file, or of one that was trained here."""
    matches = ((BLOCK.search(name) or OWN_BLOCK.search(name), shape) for name, shape in shapes.items())
    found = {(int(match[1]), match[2]): shape for match, shape in matches if match}
    layers = sorted({layer for layer, _ in found})
    if not layers:
        raise ValueError(f"{text} holds no gated cross-attention, such as OpenFlamingo's #lang_encoder")
    first = layers[0]
    if (first, "ff.1.weight") not in found:  # trained blocks of the idefics family, whose sizes the graph gives
        return {}
    wide, media = found[first, "ff.1.weight"], found[first, "attn.to_kv.weight"]
    return {"every": first + 1, "hidden_size": wide[1], "ff_mult": wide[0] // wide[1], "media_size": media[1]}
