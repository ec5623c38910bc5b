"""What is hidden while BEiT-3 learns: blocks of patches and tokens, drawn for each record by the seed and what it holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import conform, run_node
from modelgraft_plugins.beit3.masks import MaskPatches, MaskText


def pictures(count: int, height: int, width: int, *, seed: int = 1) -> torch.Tensor:
    """Pixels of a normal distribution."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def mask_of(pixels: torch.Tensor, *, seed: int = 0, **config: Any) -> torch.Tensor:
    """The mask as a map: bool[batch rows columns]."""
    side = config.get("patch_size", 16)
    found = run_node(MaskPatches, config, seed=seed, pixels=pixels)["mask"]
    return found.view(len(pixels), pixels.shape[2] // side, pixels.shape[3] // side)


def test_masks_keep_their_declarations():
    """Whatever batch a record is in, its mask is its own."""
    conform(MaskPatches, {"patch_size": 2, "smallest": 3}, pixels=pictures(2, 14, 18))
    ids = torch.randint(3, 29, (2, 11), generator=torch.Generator().manual_seed(1))
    conform(MaskText, {"vocab_size": 30, "share": 0.4}, ids=ids)


@pytest.mark.parametrize(
    ("height", "width", "config", "wanted"),
    [
        (224, 224, {}, 78),  # 40 % of 14 x 14, as BEiT-3
        (224, 224, {"count": 75}, 75),  # as BEiT v2
        (224, 224, {"count": 195}, 195),  # no block fits any more: the last are hidden one by one
        (32, 160, {"share": 0.5}, 10),
        (32, 32, {"share": 0.3}, 1),
    ],
)
def test_exactly_so_many_patches_are_hidden(height: int, width: int, config: dict[str, Any], wanted: int):
    """Of every picture."""
    mask = mask_of(pictures(6, height, width), **config)
    assert mask.flatten(1).sum(1).tolist() == [wanted] * 6


def test_patches_are_hidden_in_blocks():
    """Far more of a hidden patch's neighbours are hidden than chance would have, and blocks stand everywhere."""
    mask = mask_of(pictures(60, 224, 224)).float()
    beside = (mask[:, :, 1:] * mask[:, :, :-1]).sum() / mask[:, :, 1:].sum()
    assert beside > 0.7, "of a random mask 0.4"
    often = mask.mean(0)
    assert 0.05 < float(often.min()) < float(often.max()) < 0.85


def test_a_block_has_the_shape_that_is_asked_for():
    """A single block of so many patches: neither side is longer than the narrowest shape allows."""
    for mask in mask_of(pictures(40, 224, 224, seed=3), count=16, narrowest=0.9):
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        if int(mask.sum()) == len(rows) * len(columns):  # one block, and nothing beside it
            assert {len(rows), len(columns)} <= {4, 5}


def test_the_seed_and_the_picture_decide_and_nothing_else():
    """Another of either draws another mask."""
    pixels = pictures(3, 224, 224)
    mask = mask_of(pixels)
    assert torch.equal(mask, mask_of(pixels))
    assert torch.equal(mask[1:2], mask_of(pixels[1:2]))
    assert not torch.equal(mask, mask_of(pixels, seed=1))
    assert not torch.equal(mask[0], mask[1])


def test_as_many_tokens_are_hidden_as_the_published_code_hides():
    """Half rounded up, at least one, never the first; what is padding stays, and a text of one token has nothing to hide."""
    lengths = [1, 2, 3, 9, 20]
    ids = torch.full((5, 20), 1)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.arange(10, 10 + length)
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    found = run_node(MaskText, {"vocab_size": 50, "share": 0.5, "masked": 1.0, "swapped": 0.0}, ids=ids, mask=mask)
    hidden = found["hidden"]
    assert hidden.sum(1).tolist() == [0, 1, 2, 5, 10]
    assert not hidden[:, 0].any()
    assert not (hidden & ~mask).any()
    assert (found["ids"][hidden] == 49).all()
    assert torch.equal(found["ids"][~hidden], ids[~hidden])
    alone = run_node(MaskText, {"vocab_size": 50, "share": 0.5, "masked": 1.0, "swapped": 0.0}, ids=ids[3:4, :9], mask=None)
    assert torch.equal(alone["hidden"], hidden[3:4, :9]), "padding changed what is hidden"


def test_hidden_tokens_become_the_mask_another_or_stay():
    """Four fifths, a tenth, a tenth; another is an ordinary one."""
    ids = torch.arange(2000).remainder(40).add(3).view(20, 100)
    found = run_node(MaskText, {"vocab_size": 1000, "share": 0.99}, ids=ids)
    hidden, now = found["hidden"], found["ids"]
    total = int(hidden.sum())
    masked = int((now[hidden] == 999).sum()) / total
    stayed = int((now[hidden] == ids[hidden]).sum()) / total
    assert abs(masked - 0.8) < 0.04
    assert abs(stayed - 0.1) < 0.03
    assert int(now.min()) >= 3
    assert torch.equal(now[~hidden], ids[~hidden])


def test_what_cannot_be_hidden_is_told():
    """With a way out."""
    with pytest.raises(InputError, match=r"got pictures of 30 x 32 pixels, which patches of 16 x 16 do not divide"):
        run_node(MaskPatches, {}, pixels=pictures(1, 30, 32))
    with pytest.raises(InputError, match="4 patches are to be hidden, and a picture has 4: set count to less, or a share"):
        run_node(MaskPatches, {"count": 4}, pixels=pictures(1, 32, 32))
