"""The work of omnimae/mask: which patches are hidden."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from modelgraft.plugin import NodeRuntime
    from modelgraft_plugins.omnimae import Mask as Config


def load(config: Config, _context: LoadContext) -> Masks:
    """Make the function from pixels to a mask and the places that are left."""
    return Masks(config)


class Masks:
    """Draws a mask for each record, by the seed of the run and the record's pixels."""

    runtime: NodeRuntime

    def __init__(self, config: Config) -> None:
        self.config = config

    def bind(self, runtime: NodeRuntime) -> None:
        """Take what tells the seed."""
        self.runtime = runtime

    def __call__(self, pixels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """pixels float[batch ...] to mask bool[batch (slices) rows columns] and kept int64[batch kept].

        Raises InputError for a mask that is given and does not hide as many patches in every record as `ratio` says.
        """
        config = self.config
        if mask is None:
            mask = torch.stack([self._drawn(record) for record in pixels.detach().cpu()]).to(pixels.device)
        counts = mask.flatten(1).sum(1)
        if bool((counts != config.hidden).any()):
            found = f"hides {', '.join(map(str, counts.tolist()))} patches of its records"
            wanted = f"{config.hidden} of {config.tokens} in each, as ratio: {config.share:g} says"
            raise InputError(f"{self.runtime.node}: the mask {found}, wanted {wanted}")
        kept = (~mask.flatten(1)).nonzero()[:, 1].view(mask.shape[0], config.kept)
        return {"mask": mask, "kept": kept}

    def _drawn(self, record: Tensor) -> Tensor:
        """One mask: bool[(slices) rows columns]."""
        config = self.config
        seen = zlib.crc32(record.contiguous().view(torch.uint8).numpy().tobytes())
        seed = zlib.crc32(f"{self.runtime.node_seed()} {seen} {config.draw}".encode())
        times = 1 if config.shape == "random" else config.slices  # that the same patches are hidden
        count = config.tokens // times
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        flat = order < config.hidden // times
        shape = (config.rows, config.columns) if config.is_still else (config.slices, config.rows, config.columns)
        return flat.repeat(times).view(shape)
