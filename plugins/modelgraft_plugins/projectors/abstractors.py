"""The abstractors of Honeybee: connectors of any number of tokens that keep where things are (arXiv 2312.06742)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, component
from modelgraft_plugins.projectors.grids import is_grid, torn_grids
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

MODULES = "modelgraft_plugins.projectors"
Shapes = Mapping[str, tuple[int, ...]]


class Abstractor(Config):
    """What both have: sizes at their ends, learned positions of the patches, and tokens behind the others."""

    in_features: Dim = None
    out_features: Dim = None
    patches: Dim = Field(None, description="how many patches there are, which have a learned position each")
    tokens: int = Field(144, gt=0, description="how many tokens come out, a square number")
    eos_tokens: int = Field(0, ge=0, description="learned tokens that stand behind them")
    positions: bool = Field(True, description="learned positions are added to what is read")

    @model_validator(mode="after")
    def _is_square(self) -> Abstractor:
        if not is_grid(self.tokens):
            raise ValueError(f"tokens is {self.tokens}, which is no square number: 64, 144 and 256 are")
        return self

    @property
    def given(self) -> int:
        """All tokens that come out."""
        return self.tokens + self.eos_tokens

    def ports(self) -> Ports:
        """Patches in, `tokens` of them out, and those behind."""
        return Ports.of({"x": "float[batch patches in_features]"}, {"y": "float[batch given out_features]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The patches must be a square grid."""
        return torn_grids(node)


@component("projector/c_abstractor", kind="projector", module=f"{MODULES}.conv_abstractor:CAbstractor", exportable=True)
class CAbstractor(Abstractor):
    """Read patches with convolutions, pool them to a grid of so many tokens, read these, and map them: Honeybee's C-Abstractor.

    depth      convolutional blocks before and behind the pooling, each a RegNet's with squeeze and excitation; 0: none
    mlp_depth  linear layers at the end, with SiLU between them
    The tokens are the rows of a square grid of patches, without a class token.
    """

    hidden_size: int = Field(1024, gt=0, description="width of the convolutions")
    depth: int = Field(3, ge=0)
    mlp_depth: int = Field(2, gt=0)
    prenorm: bool = Field(False, description="what is read is normed first")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shapes of the tensors of Honeybee's `abstractor`; the number of tokens from the config around, or `with`."""
        shapes = source.tensor_shapes()
        return {**_stated(source), **(_of_convolutions(shapes) if shapes else {})}

    def parameters(self) -> int:
        """Count by formula."""
        given, width, wanted = self.in_features or 0, self.hidden_size, self.out_features or 0
        inner = width if self.depth else given
        readout = inner * wanted + wanted + (self.mlp_depth - 1) * (wanted * wanted + wanted)
        blocks = sum(_block(given if index == 0 else width, width) for index in range(2 * self.depth))
        learned = (self.patches or 0) * given * self.positions + self.eos_tokens * wanted + 2 * given * self.prenorm
        return blocks + readout + learned


@component("projector/d_abstractor", kind="projector", module=f"{MODULES}.deformable_abstractor:DAbstractor", exportable=True)
class DAbstractor(Abstractor):
    """Let a grid of queries look at learned places among the patches, by deformable attention: Honeybee's D-Abstractor.

    queries  where what is learned of a query meets what is pooled of the patches: "query", the pooled ones say where to look (as
             published), "tgt", they are what is worked on, "none", both are learned
    The tokens are the rows of a square grid of patches, without a class token.
    """

    hidden_size: int = Field(1024, gt=0, description="width of the queries (d_model)")
    depth: int = Field(6, gt=0, description="layers of the decoder")
    heads: int = Field(8, gt=0)
    points: int = Field(4, gt=0, description="places that each head looks at")
    inner_size: int = Field(1024, gt=0, description="of the feed-forward layers (decoder_ffn_dim)")
    hidden_act: str = "relu"
    queries: Literal["query", "tgt", "none"] = "query"

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config around, in the words of Honeybee's `projector_config`, and the shapes of the tensors."""
        shapes, own = source.tensor_shapes(), _config(source)
        words = {"decoder_attention_heads": "heads", "activation_function": "hidden_act", "pooled_v_target": "queries"}
        found = {**_stated(source), **{name: own[word] for word, name in words.items() if word in own}}
        return {**found, **(_of_queries(shapes, found.get("heads", 8)) if shapes else {})}

    def parameters(self) -> int:
        """Count by formula."""
        width, given, wanted = self.hidden_size, self.in_features or 0, self.out_features or 0
        read = given * width + width if given != width else 0
        written = width * wanted + wanted if wanted != width else 0
        attention = 4 * (width * width + width)
        looking = 3 * self.heads * self.points * (width + 1) + 2 * (width * width + width)
        layer = attention + looking + 2 * width * self.inner_size + self.inner_size + width + 3 * 2 * width
        learned = (self.patches or 0) * width * self.positions + self.eos_tokens * width
        queries = self.tokens * width * (2 if self.queries == "none" else 1) + self.tokens * 2  # and where they begin to look
        return read + written + self.depth * layer + learned + queries

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width, too."""
        yield from torn_grids(node)
        yield from uneven_heads(node.name, self.hidden_size, self.heads, names=("hidden_size", "heads"))


def _config(source: Source) -> Mapping[str, Any]:
    found = source.root.get("projector_config", source.root.get("visual_projector_config", {}))
    return found if isinstance(found, Mapping) else {}


def _stated(source: Source) -> dict[str, Any]:
    """What Honeybee's config says of both, and no tensor does."""
    own = _config(source)
    count = own.get("num_query_tokens", own.get("num_queries", source.root.get("num_query_tokens")))
    if own.get("num_feature_levels", 1) != 1:
        raise ValueError(f"{source.text} joins {own['num_feature_levels']} layers of the eye (num_feature_levels), which is not served")
    return {"tokens": count} if count is not None else {}


def _of_convolutions(shapes: Shapes) -> dict[str, Any]:
    """The sizes of a C-Abstractor by the tensors of Honeybee's code."""
    depth = len({name.split(".")[2] for name in shapes if name.startswith("net.0.b")})
    layers = sorted({int(name.split(".")[1]) for name in shapes if name.startswith("readout.")})
    if not layers:
        raise ValueError("the tensors are none of a C-Abstractor: there is no readout")
    first, last = shapes[f"readout.{layers[0]}.weight"], shapes[f"readout.{layers[-1]}.weight"]
    places, behind, begun = shapes.get("pos_emb"), shapes.get("eos_tokens"), shapes.get("net.0.b1.conv1.conv.weight")
    return {
        "depth": depth,
        "mlp_depth": len(layers),
        "in_features": begun[1] if begun is not None else first[1],
        "hidden_size": first[1],
        "out_features": last[0],
        "positions": places is not None,
        "prenorm": "prenorm.weight" in shapes,
        "eos_tokens": behind[1] if behind is not None else 0,
        **({"patches": places[1]} if places is not None else {}),
    }


def _of_queries(shapes: Shapes, heads: int) -> dict[str, Any]:
    """The sizes of a D-Abstractor by the tensors of Honeybee's code."""
    looked = shapes.get("layers.0.encoder_attn.attention_weights.weight")
    if looked is None:
        raise ValueError("the tensors are none of a D-Abstractor: there is no layers.0.encoder_attn")
    queries, places, behind = shapes["query_position_embeddings.weight"], shapes.get("v_pos_emb"), shapes.get("eos_tokens")
    read, written, width = shapes.get("input_proj.0.weight"), shapes.get("output_proj.weight"), looked[1]
    return {
        "hidden_size": width,
        "depth": len({name.split(".")[1] for name in shapes if name.startswith("layers.")}),
        "points": looked[0] // heads,
        "inner_size": shapes["layers.0.fc1.weight"][0],
        "tokens": queries[0],
        "in_features": read[1] if read is not None else width,
        "out_features": written[0] if written is not None else width,
        "positions": places is not None,
        "eos_tokens": behind[1] if behind is not None else 0,
        **({"patches": places[1]} if places is not None else {}),
    }


def _block(given: int, width: int) -> int:
    """A RegNet's block with depth-wise convolutions, a norm behind each, squeeze and excitation, and a shortcut where widths differ."""
    squeezed = round(given * 0.25)
    convolutions = given * width + 9 * width + width * width
    excitation = width * squeezed + squeezed + squeezed * width + width
    shortcut = given * width + 2 * width if given != width else 0
    return convolutions + 3 * 2 * width + excitation + shortcut
