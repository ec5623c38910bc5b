"""The work of vision/map."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from torch import Tensor

    from modelgraft_plugins.vision import Map


def load(config: Map, context: LoadContext) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the function from tokens float[batch rows*columns channels], and their pixels float[batch colours height width], to a map.

    It gives float[batch channels rows columns], and raises InputError for other tokens than the picture has patches.
    """
    patch, name = config.patch_size, context.node.name

    def lay_out(tokens: Tensor, pixels: Tensor) -> Tensor:
        rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
        if rows * columns != tokens.shape[1]:
            found = f"{tokens.shape[1]} tokens of a picture that has {rows} x {columns} patches of {patch}"
            raise InputError(f"{name} got {found}; a class token must be left out (select: patches)")
        return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], rows, columns)

    return lay_out
