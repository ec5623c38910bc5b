"""A Perceiver Resampler in the parts of a LLaMA: RMS norms, grouped queries, gated feed-forward layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Config, Dim, Ports, component, port
from modelgraft.plugin import families
from modelgraft_plugins.stated import told, tower_table

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

WIDENED = 4  # times the width of a vector the feed-forward layers are: Idefics2PerceiverLayer


@component("resampler/grouped", kind="resampler", module="modelgraft_plugins.resampler.grouped_modules:Grouped", exportable=True)
class Grouped(Config):
    """Let learned latents read any number of vectors, and themselves, several times, as Idefics 2 does.

    there  which vectors are there: those that fill up are not read
    Source: arXiv 2405.02246, and the class of transformers.
    """

    hidden_size: Dim = Field(None, description="width of the vectors and of the latents")
    depth: int = Field(3, gt=0, description="how often the latents read the vectors")
    num_heads: int = Field(16, gt=0, description="heads of the attention")
    num_key_value_heads: int = Field(4, gt=0, description="heads of keys and values, which queries share")
    head_dim: int = Field(96, gt=0, description="width of a head")
    num_latents: int = Field(64, gt=0, description="how many vectors come out")
    hidden_act: str = "silu"
    rms_norm_eps: float = Field(1e-6, gt=0)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of a whole that has such a resampler. Raises ValueError for one that has none."""
        card = families().whole(source.root.get("model_type")).components.get("resampler/grouped")
        if card is None:
            raise ValueError(f"{source.text} is of no model that has such a resampler, as idefics2 does")
        found = told(source.root, card["fields"])
        width = told(source.root, {"own": card["width"], "around": card["width_around"]})
        if "around" in width and width["own"] != width["around"]:  # then the whole decides both
            found |= told(source.root, {"rms_norm_eps": card["eps_around"]})
        return {**found, **({"hidden_size": width["around"]} if "around" in width else {})}

    @classmethod
    def unheeded(cls, source: Source) -> list[tuple[str, str]]:
        """Give what the config of the resampler states and this does not know."""
        card = families().whole(source.root.get("model_type")).components["resampler/grouped"]
        section, _, width = card["width"][0].partition(".")
        known = {path.removeprefix(f"{section}.") for path, _ in card["fields"].values()}
        return tower_table({*known, width}).unheeded(source.root.get(section) or {}, f"{source.text} ({section})")

    def ports(self) -> Ports:
        """Vectors, and which of them are there, in; as many latents for each record out."""
        there = port("optional[bool[batch tokens]]", doc="which vectors are there; unwired: all")
        return Ports.of({"media": "float[batch tokens hidden_size]", "there": there}, {"latents": "float[batch num_latents hidden_size]"})

    def parameters(self) -> int:
        """Count by formula."""
        width = self.hidden_size or 0
        attention = width * self.head_dim * (2 * self.num_heads + 2 * self.num_key_value_heads)
        return self.depth * (attention + 3 * WIDENED * width * width + 3 * width) + (self.num_latents + 1) * width

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """Queries must share keys evenly."""
        if self.num_heads % self.num_key_value_heads:
            found = f"{node.name} has {self.num_heads} heads, and {self.num_key_value_heads} of keys and values, which do not divide them"
            yield "config-mismatch", found, "set num_key_value_heads to a divisor of num_heads"
