"""The work of the masks. Each record draws from a generator of its own, so that a mask does not depend on the rest of its batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext, NodeRuntime

if TYPE_CHECKING:
    from modelgraft_plugins.beit3.masks import MaskPatches, MaskText

TRIES = 10  # blocks that are drawn in vain before the rest is hidden patch by patch
FIRST_WORD = 3  # ids below are of begin, padding and end

Block = tuple[int, int, int, int]  # top, left, height, width


class _Drawing:
    """What both masks have in common: a generator for each record, from the seed of the run and what the record holds."""

    def __init__(self, name: str) -> None:
        self.runtime = NodeRuntime(name)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take what tells the seed."""
        self.runtime = runtime

    def generators(self, records: Tensor) -> Iterable[Random]:
        """One for each record."""
        seed = self.runtime.node_seed().to_bytes(8, "little")
        for record in records.cpu().contiguous():
            content = hashlib.blake2b(record.flatten().view(torch.uint8).numpy().tobytes(), key=seed, digest_size=8)
            yield Random(content.digest())  # noqa: S311 a mask is no secret


def patches(config: MaskPatches, context: LoadContext) -> PatchMasks:
    """Make what hides patches."""
    return PatchMasks(config, context)


class PatchMasks(_Drawing):
    """float[batch channels height width] to bool[batch patches]."""

    def __init__(self, config: MaskPatches, context: LoadContext) -> None:
        super().__init__(context.node.name)
        self.config = config

    def __call__(self, pixels: Tensor) -> Tensor:
        """Raises InputError for pictures that are not of whole patches, or have no more than are to be hidden."""
        side = self.config.patch_size
        if pixels.shape[2] % side or pixels.shape[3] % side:
            found = f"beit3/mask_patches got pictures of {pixels.shape[2]} x {pixels.shape[3]} pixels"
            raise InputError(f"{found}, which patches of {side} x {side} do not divide: resize them to multiples of {side}")
        rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
        count = self.config.count or int(self.config.share * rows * columns)
        if count >= rows * columns:
            raise InputError(f"{count} patches are to be hidden, and a picture has {rows * columns}: set count to less, or a share")
        masks = [hidden_blocks(rows, columns, count, self.config, generator) for generator in self.generators(pixels)]
        return torch.tensor(masks, device=pixels.device)


def hidden_blocks(rows: int, columns: int, count: int, config: MaskPatches, generator: Random) -> list[bool]:
    """Hide exactly `count` of the rows*columns patches, in blocks as long as there is room for them."""
    hidden = set[int]()
    while len(hidden) < count:
        block = _block(rows, columns, hidden, count - len(hidden), config, generator)
        if block is None:
            left = [place for place in range(rows * columns) if place not in hidden]
            hidden.update(generator.sample(left, count - len(hidden)))
        else:
            hidden |= block
    return [place in hidden for place in range(rows * columns)]


def _block(rows: int, columns: int, hidden: set[int], wanted: int, config: MaskPatches, generator: Random) -> set[int] | None:
    """The patches of a block of which some, and not too many, are not hidden yet; None where none was found."""
    steepest = math.log(1 / config.narrowest)
    for _ in range(TRIES):
        area = generator.uniform(min(config.smallest, wanted), wanted)
        shape = math.exp(generator.uniform(-steepest, steepest))
        height, width = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if not (0 < height < rows and 0 < width < columns):
            continue
        top, left = generator.randint(0, rows - height), generator.randint(0, columns - width)
        block = {row * columns + column for row in range(top, top + height) for column in range(left, left + width)}
        if 0 < len(block - hidden) <= wanted:
            return block
    return None


def words(config: MaskText, context: LoadContext) -> WordMasks:
    """Make what hides tokens."""
    return WordMasks(config, context)


class WordMasks(_Drawing):
    """ids int64[batch text_tokens] to ids with some hidden, and where."""

    def __init__(self, config: MaskText, context: LoadContext) -> None:
        super().__init__(context.node.name)
        self.config = config
        self.mask_id = config.vocab_size - 1 if config.mask_token_id is None else config.mask_token_id

    def __call__(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """What a mask leaves out is padding, and is never hidden."""
        lengths = [ids.shape[1]] * len(ids) if mask is None else mask.sum(1).tolist()
        rows = ids.tolist()
        places = [
            self._hide(row[:length], row, generator)
            for row, length, generator in zip(rows, lengths, self._texts(ids, lengths), strict=True)
        ]
        hidden = [[place in chosen for place in range(ids.shape[1])] for chosen in places]
        return {"ids": torch.tensor(rows, device=ids.device), "hidden": torch.tensor(hidden, device=ids.device)}

    def _texts(self, ids: Tensor, lengths: Iterable[int]) -> Iterable[Random]:
        """Of each text without its padding, which depends on the batch."""
        for row, length in zip(ids, lengths, strict=True):
            yield from self.generators(row[None, :length])

    def _hide(self, text: list[int], row: list[int], generator: Random) -> set[int]:
        """Choose places of a text, and write into its row what stands there now."""
        most = len(text) - 1  # all but the first
        chosen = generator.sample(range(1, len(text)), min(max(1, int(len(text) * self.config.share + 0.5)), most)) if most > 0 else []
        for place in chosen:
            fate = generator.random()
            if fate < self.config.masked:
                row[place] = self.mask_id
            elif fate < self.config.masked + self.config.swapped:
                row[place] = generator.randrange(FIRST_WORD, self.config.vocab_size)
        return set(chosen)
