"""Whether patches divide the sides of pictures. Light: the declaration imports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelgraft import SolvedNode

Problem = tuple[str, str, str]  # code, sentence, way out, as `Config.review` gives them


def torn_patches(node: SolvedNode, patch: int) -> Iterator[Problem]:
    """Give the problem of pictures whose sides are no whole patches: what is over would be cut off in silence."""
    tensor = node.in_ports["pixels"].tensor
    sides = [axis.size if axis is not None else None for axis in tensor.axes[-2:]] if tensor is not None else []
    if found := torn(sides, patch):
        yield "config-mismatch", f"{node.name} gets pictures of {found}", f"prepare them at {whole(sides, patch)}"


def torn(sides: list[int | None], patch: int) -> str:
    """What is wrong with sides in pixels, "" where each is a multiple of the patch or not known."""
    if not any(side is not None and side % patch for side in sides):
        return ""
    shown = " x ".join("?" if side is None else str(side) for side in sides)
    return f"{shown} pixels (height x width), which patches of {patch} do not divide"


def whole(sides: list[int | None], patch: int) -> str:
    """The nearest sides of whole patches."""
    near = [None if side is None else max(round(side / patch), 1) * patch for side in sides]
    return " x ".join("?" if side is None else str(side) for side in near)
