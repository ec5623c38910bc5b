"""A gated projector: one linear layer says how much of another goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Config, Dim, Ports, component

if TYPE_CHECKING:
    from modelgraft.plugin import Source


@component("projector/gated", kind="projector", module="modelgraft_plugins.projectors.gated_modules:Gated", exportable=True)
class Gated(Config):
    """Map every vector to another width as the feed-forward layers of a LLaMA do: down(act(gate(x)) * up(x)), without biases.

    Source: arXiv 2002.05202; Idefics 2 has it between its eye and its resampler.
    """

    in_features: Dim = None
    out_features: Dim = None
    hidden_features: int | None = Field(None, gt=0, description="width between the layers; none: that of the result")
    hidden_act: str = "silu"

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shapes of the weights; the activation is that of the language model around it."""
        text = source.root.get("text_config")
        act = text.get("hidden_act") if isinstance(text, Mapping) else None
        up, down = source.shape("up_proj.weight"), source.shape("down_proj.weight")
        found: dict[str, Any] = {"hidden_act": act} if isinstance(act, str) else {}
        if up is not None and down is not None:
            found |= {"in_features": up[1], "hidden_features": up[0], "out_features": down[0]}
        return found

    @property
    def inner(self) -> int:
        """Width between the layers."""
        return self.hidden_features or self.out_features or 0

    def ports(self) -> Ports:
        """Vectors in, vectors out."""
        return Ports.of({"x": "float[batch tokens in_features]"}, {"y": "float[batch tokens out_features]"})

    def parameters(self) -> int:
        """Count the three layers."""
        return self.inner * (2 * (self.in_features or 0) + (self.out_features or 0))
