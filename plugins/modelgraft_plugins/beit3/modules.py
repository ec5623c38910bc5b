"""The work of the components around the multiway transformer: what they take out of a checkpoint, and what they give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import InputError
from modelgraft_plugins.beit3.multiway import LEAD, PICTURE, TEXT, Split, Trunk, behind, resized
from modelgraft_plugins.beit3.sizes import PREFIX

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.beit3.encoder import Encoder as EncoderConfig
    from modelgraft_plugins.beit3.sizes import Sizes

# tensors of one branch, which a part that reads the other medium leaves in the file
BRANCH = {"A": re.compile(r"vision_embed\.|.+\.A\.|.+\.A$"), "B": re.compile(r"text_embed\.|.+\.B\.|.+\.B$"), "VL": re.compile(r".+\.VL\.")}
TABLE = "encoder.embed_positions.A.weight"


def trunk_state(weights: Weights, trunk: Trunk, *, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a trunk out of a checkpoint, under its own names behind `prefix`.

    What is of a branch that the trunk does not have stays in the file, as do heads where the trunk has a prefix of its own there; all
    else is given, so that what is over is told. Positions of pictures of another size are resized, as the published code does.
    """
    keys = weights.keys()
    before = PREFIX if any(key.startswith(PREFIX) for key in keys) else ""
    wanted = trunk.state_dict()
    found: dict[str, Tensor] = {}
    for key in keys:
        if not key.startswith(before):
            continue
        name = key.removeprefix(before)
        if name in wanted or not _is_of_another_branch(name, wanted):
            found[prefix + name] = weights.tensor(key)
    if (table := found.get(prefix + TABLE)) is not None and TABLE in wanted:
        found[prefix + TABLE] = _fitted(table, trunk.sizes)
    return found


def _is_of_another_branch(name: str, wanted: Mapping[str, Tensor]) -> bool:
    absent = (way for way, pattern in BRANCH.items() if not any(pattern.match(key) for key in wanted))
    return any(BRANCH[way].match(name) for way in absent)


def _fitted(table: Tensor, sizes: Sizes) -> Tensor:
    """A table of positions for the pictures that are read here. One that is no square stays as it is, and is told."""
    had = table.shape[0] - LEAD
    if had == sizes.patches or had < 1 or round(had**0.5) ** 2 != had:
        return table
    side = sizes.image_size // sizes.patch_size
    return resized(table, (side, side))


class Encoder(nn.Module):
    """The trunk with the branches that it needs. Inputs are those of its ports, in order; the results are named as they are."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config, tuple(config.ways))

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take the branches that are read out of a file of all."""
        return trunk_state(weights, self.trunk, prefix="trunk.")

    def forward(self, *given: Any) -> dict[str, Tensor]:  # Any: which of them are None follows from `reads`
        """See the declaration."""
        match self.config.reads:
            case "image":
                return self._see(*given)
            case "text":
                return self._read(*given)
        return self._fuse(*given)

    def _see(self, pixels: Tensor, patch_mask: Tensor | None = None) -> dict[str, Tensor]:
        """A picture alone."""
        tokens = self.trunk.run(self._picture(pixels, patch_mask), PICTURE, mask=None)
        return {"tokens": tokens[:, 1:] if self.config.select == "patches" else tokens, "pooled": tokens[:, 0]}

    def _read(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """A text alone."""
        looked_at = None if mask is None else _looked_at(mask)
        tokens = self.trunk.run(text_of(self.trunk, ids, mask), TEXT, mask=looked_at)
        return {"tokens": tokens, "pooled": tokens[:, 0]}

    def _fuse(self, pixels: Tensor, patch_mask: Tensor | None, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """A picture with a text."""
        picture = self._picture(pixels, patch_mask)
        there = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        places = picture.shape[1]
        whole = torch.cat([there.new_ones(picture.shape[:2]), there], dim=1)  # [batch tokens]
        looked_at = _looked_at(whole)
        if self.config.causal:
            looked_at = looked_at & _onward(places, ids.shape[1], device=ids.device)
        x = torch.cat([picture, text_of(self.trunk, ids, mask)], dim=1)
        tokens = self.trunk.run(x, Split(places, joint=True), mask=looked_at)
        image_tokens, text_tokens = tokens[:, :places], tokens[:, places:]
        return {
            "tokens": tokens, "token_mask": whole, "image_tokens": image_tokens, "text_tokens": text_tokens,
            "patches": image_tokens[:, 1:], "pooled": image_tokens[:, 0], "text_pooled": text_tokens[:, 0],
        }  # fmt: skip

    def _picture(self, pixels: Tensor, patch_mask: Tensor | None) -> Tensor:
        """What the first layer reads of a picture."""
        return self.trunk.picture(checked_picture(self.trunk, pixels), patch_mask)


def checked_picture(trunk: Trunk, pixels: Tensor) -> Tensor:
    """Pixels of whole patches. Raises InputError for others."""
    height, width, patch = pixels.shape[2], pixels.shape[3], trunk.sizes.patch_size
    if height % patch or width % patch:
        found = f"BEiT-3 got pictures of {height} x {width} pixels, which its patches of {patch} x {patch} do not divide"
        raise InputError(f"{found}: resize them to multiples of {patch}")
    return pixels


def checked_text(trunk: Trunk, ids: Tensor) -> Tensor:
    """Ids of a text that has its places. Raises InputError for a longer one."""
    most = trunk.sizes.text_positions
    if ids.shape[1] > most:
        found = f"a text has {ids.shape[1]} tokens, and BEiT-3 has positions for {most}"
        raise InputError(f"{found}: shorten it, or set max_length and truncate where it is cut into tokens")
    return ids


def text_of(trunk: Trunk, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """What the first layer reads of a text. Raises InputError for one that is too long, or has ids that nobody knows."""
    try:
        return trunk.text(checked_text(trunk, ids), mask)
    except IndexError as error:
        rows = trunk.sizes.vocab_size
        found = f"a text has the id {int(ids.max())}, and the table of tokens has {rows} rows (0 to {rows - 1})"
        raise InputError(f"{found}: take the tokenizer and the weights of one checkpoint") from error


def _looked_at(there: Tensor) -> Tensor:
    """bool[batch tokens] to bool[batch 1 tokens tokens]: whichever token looks, it sees those that are there."""
    return there[:, None, None, :].expand(-1, -1, there.shape[1], -1)


def _onward(places: int, text_tokens: int, *, device: torch.device) -> Tensor:
    """bool[1 1 tokens tokens]: the picture sees itself, a token of the text sees the picture and what stands before it."""
    picture = torch.zeros(places, places + text_tokens, dtype=torch.bool, device=device)
    picture[:, :places] = True
    return torch.cat([picture, behind(places, text_tokens, device=device)])[None, None]
