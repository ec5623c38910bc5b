"""What several eyes see of one picture, put together: side by side, or one behind the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from modelgraft import Config, Ports, component
from modelgraft_plugins.projectors.grids import is_grid, torn_grids

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode


@component("projector/join", kind="projector", module="modelgraft_plugins.projectors.joining_modules:Join", exportable=True)
class Join(Config):
    """Put the vectors of several encoders together: by channel, one longer vector for each patch, or by token, one longer row.

    along   "channels": the encoders give as many tokens each, of any widths, and a vector of the result holds theirs side by side
            (Prismatic VLMs, arXiv 2402.07865); "tokens": they are equally wide, and their tokens stand one behind the other
    tokens  channels: a square number. Each encoder's grid of patches is brought to so many by bilinear interpolation first, so that
            they may see in different detail (Cambrian-1, arXiv 2406.16860, and Eagle, arXiv 2408.15998)
    The inputs are called x1, x2, ... in the order in which they are joined.
    """

    along: Literal["channels", "tokens"] = "channels"
    eyes: int = Field(2, ge=2, le=16, description="how many encoders there are")
    tokens: int | None = Field(None, gt=0, description="channels: how many tokens all are brought to; none: they have as many")

    @model_validator(mode="after")
    def _fits(self) -> Join:
        if self.tokens is not None and self.along == "tokens":
            raise ValueError("tokens is for along: channels; where tokens stand one behind the other, none is interpolated")
        if self.tokens is not None and not is_grid(self.tokens):
            raise ValueError(f"tokens is {self.tokens}, which is no square number: 256, 576 and 729 are")
        return self

    @property
    def names(self) -> list[str]:
        """The inputs, in order."""
        return [f"x{number}" for number in range(1, self.eyes + 1)]

    def parameters(self) -> int:
        """None."""
        return 0

    def ports(self) -> Ports:
        """Any number of rows of vectors in, one out."""
        numbers = range(1, self.eyes + 1)
        if self.along == "tokens":
            given = {f"x{number}": f"float[batch tokens{number} width]" for number in numbers}
            return Ports.of(given, {"y": f"float[batch {'+'.join(f'tokens{number}' for number in numbers)} width]"})
        rows = {number: "patches" if self.tokens is None else f"patches{number}" for number in numbers}
        given = {f"x{number}": f"float[batch {rows[number]} width{number}]" for number in numbers}
        wide = "+".join(f"width{number}" for number in numbers)
        return Ports.of(given, {"y": f"float[batch {'patches' if self.tokens is None else 'tokens'} {wide}]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """What is interpolated must be a grid."""
        for name in self.names if self.tokens is not None else ():
            yield from torn_grids(node, name)
