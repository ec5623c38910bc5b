"""Fewer tokens without weights: the mean of neighbours, or of those that are alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, component
from modelgraft_plugins.projectors.grids import is_grid, torn_grids

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode

MODULES = "modelgraft_plugins.projectors.pooling_modules"


@component("projector/pool", kind="projector", module=f"{MODULES}:Pool", exportable=True)
class Pool(Config):
    """Take the mean of neighbouring patches: groups of 2 x 2, or a grid of so many tokens whatever the number of patches.

    tokens  a square number: each of them is the mean of the patches in its part of the picture (adaptive average pooling, which
            DeCo puts before an MLP in place of a resampler: arXiv 2405.20985); None: groups of `factor` x `factor`
    The tokens are the rows of a square grid of patches, without a class token. Nothing is learned, and no width changes.
    """

    factor: int = Field(2, gt=0, description="side of a group: 2 makes one token of four patches")
    tokens: int | None = Field(None, gt=0, description="how many tokens come out, a square number; none: as `factor` says")

    @model_validator(mode="after")
    def _is_square(self) -> Pool:
        if self.tokens is not None and not is_grid(self.tokens):
            raise ValueError(f"tokens is {self.tokens}, which is no square number: 64, 144 and 256 are")
        return self

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """Fewer vectors of the same width."""
        if self.tokens is not None:
            return Ports.of({"x": "float[batch patches width]"}, {"y": "float[batch tokens width]"})
        return Ports.of({"x": f"float[batch {self.factor**2}*groups width]"}, {"y": "float[batch groups width]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The tokens must be a grid, whose side groups divide."""
        return torn_grids(node, factor=self.factor if self.tokens is None else 1)


@component("projector/merge", kind="projector", module=f"{MODULES}:Merge", exportable=True)
class Merge(Config):
    """Merge the tokens that are most alike, pair by pair, until `tokens` are left: Token Merging (arXiv 2210.09461).

    In each round every second token looks for the most similar one among the others by the cosine of their vectors, and the pairs
    that are most alike become their mean, weighed by how many patches each stands for. A round merges half of the tokens at most.
    Nothing is learned, no width changes, and the tokens may be no grid. What is left stands in the order of the patches; the
    published code, which merges within an eye, leaves it as it comes.
    """

    tokens: int = Field(144, gt=0, description="how many tokens are left")
    patches: Dim = Field(None, description="how many there are")

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """Fewer vectors of the same width."""
        return Ports.of({"x": "float[batch patches width]"}, {"y": "float[batch tokens width]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """There must be as many tokens as are to be left."""
        if self.patches is not None and self.patches < self.tokens:
            found = f"{node.name} is to leave {self.tokens} tokens, and gets {self.patches}"
            yield "config-mismatch", found, f"set tokens to {self.patches} at most, or leave {node.name} out"
