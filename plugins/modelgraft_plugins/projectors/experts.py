"""A projector of several experts, of which each token takes a few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, component

if TYPE_CHECKING:
    from modelgraft.plugin import Source


@component("projector/experts", kind="projector", module="modelgraft_plugins.projectors.experts_modules:Experts", exportable=True)
class Experts(Config):
    """Map every vector with the few of several MLPs that a gate finds best for it: the connector of CuMo (arXiv 2405.05949).

    The results of the `selected` experts are added, weighed by the gate's shares, which are scaled to sum to 1 among them. What
    CuMo adds to its loss while it trains (balance, z-loss) is no part of this.
    """

    in_features: Dim = None
    out_features: Dim = None
    experts: int = Field(4, gt=0, description="how many MLPs there are")
    selected: int = Field(2, gt=0, description="how many of them each token takes")

    @model_validator(mode="after")
    def _enough(self) -> Experts:
        if self.selected > self.experts:
            raise ValueError(f"selected is {self.selected}, and there are {self.experts} experts")
        return self

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shapes of the tensors, in the names of CuMo's `mm_projector`; how many are selected stands in `num_selected`."""
        gate, last = source.shape("gate.weight"), source.shape("experts.0.2.weight")
        found: dict[str, Any] = {"selected": source.root["num_selected"]} if "num_selected" in source.root else {}
        if gate is not None and last is not None:
            found |= {"experts": gate[0], "in_features": gate[1], "out_features": last[0]}
        return found

    def ports(self) -> Ports:
        """Vectors in, vectors out."""
        return Ports.of({"x": "float[batch tokens in_features]"}, {"y": "float[batch tokens out_features]"})

    def parameters(self) -> int:
        """Count the gate, which has no bias, and all experts."""
        given, width = self.in_features or 0, self.out_features or 0
        return self.experts * given + self.experts * (given * width + width + width * width + width)
