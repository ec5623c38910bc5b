"""OmniMAE's parts: declarations, published sizes, masks, positions of other sizes, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

import modelgraft as mg
from modelgraft.kernel.words.errors import GraphError, InputError, SourceError
from modelgraft.testing import conform, open_node, run_node
from modelgraft_plugins.omnimae import Beside, Decoder, Encoder, Loss, Mask, Targets, Unpatch
from modelgraft_plugins.omnimae.sizes import MEAN, STD
from support.installed import registry
from support.open_part import configured, counts, open_part

REGISTRY = registry()
GRID = {"image_size": 12, "num_frames": 6, "patch_size": (2, 4, 3)}
SMALL = {**GRID, "embed_dim": 10, "depth": 2, "num_heads": 5}
INNER = {**GRID, "embed_dim": 10, "decoder_embed_dim": 6, "decoder_depth": 2, "decoder_num_heads": 3}
MEDIA = ("image", "video")
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise

# Parameters of the builders of the published code, whose position tables are buffers: facebookresearch/omnivore, omni_mae_model.py.
PUBLISHED = {
    "omnimae-base": 94_217_856, "omnimae-base-ssv2": 86_370_222, "omnimae-base-in1k": 87_005_416,
    "omnimae-large": 317_803_520, "omnimae-large-ssv2": 304_063_662, "omnimae-large-in1k": 304_910_312,
    "omnimae-huge": 657_655_448, "omnimae-huge-ssv2": 631_410_094, "omnimae-huge-in1k": 632_468_200,
}  # fmt: skip


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels(medium: str, *, seed: int = 1) -> torch.Tensor:
    return drawn(2, 3, 12, 12, seed=seed) if medium == "image" else drawn(2, 3, 6, 12, 12, seed=seed)


def kept() -> torch.Tensor:
    return torch.tensor([[0, 3, 7, 11], [1, 2, 5, 9]])


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes_are_counted_to_the_unit(name):
    """From the config alone: the whole of a pre-trained model, or of one with classes."""
    graph = "omnimae/rebuild" if name.count("-") == 1 else "omnimae/classify"
    assert mg.plan(mg.load(graph, params={"checkpoint": f"preset:{name}"})).totals.parameters == PUBLISHED[name]


@pytest.mark.parametrize("medium", MEDIA)
def test_the_parts_keep_their_declarations(medium):
    """Ports, repeatability, batches, count and saved state."""
    grid = {**GRID, "medium": medium}
    conform(Encoder, {**SMALL, "medium": medium})
    conform(Encoder, {**SMALL, "medium": medium, "clips": True})
    conform(Encoder, {**SMALL, "medium": medium, "masked": True}, kept=kept())
    for bias in (False, True):
        conform(Decoder, {**INNER, "medium": medium, "decoder_qkv_bias": bias}, kept=kept(), tokens=drawn(2, 4, 10))
    conform(Mask, grid)
    conform(Targets, grid)
    conform(Unpatch, grid)
    conform(Loss, {}, mask=torch.rand(2, 3, 4, 4) < 0.5, patches=drawn(2, 48, 7), targets=drawn(2, 48, 7, seed=2))
    conform(Beside, grid)


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("shape", ["random", "tube"])
@pytest.mark.parametrize("ratio", [0.3, 0.75, 0.95])
def test_every_record_has_as_many_patches_hidden(medium, shape, ratio):
    """As many as fit into the share, rounded down; a tube hides the same patches in every slice; what is left is in rising order."""
    found = run_node(Mask, {**GRID, "medium": medium, "shape": shape, "ratio": ratio}, pixels=pixels(medium))
    slices = 1 if medium == "image" else 3
    mask = found["mask"].reshape(2, slices, 3, 4)
    hidden = math.floor(ratio * 12) * slices if shape == "tube" else math.floor(ratio * 12 * slices)
    assert mask.flatten(1).sum(1).tolist() == [hidden] * 2
    assert [[place for place, gone in enumerate(row) if not gone] for row in mask.flatten(1).tolist()] == found["kept"].tolist()
    if shape == "tube":
        assert bool((mask == mask[:, :1]).all())


def test_a_mask_is_drawn_by_the_seed_the_pixels_and_the_number_of_the_draw():
    """Unlike records have unlike masks, and so have several draws of one; the same seed draws the same."""
    config = {**GRID, "medium": "video", "ratio": 0.5}

    def mask(seed: int = 0, **more: Any) -> torch.Tensor:
        return run_node(Mask, {**config, **more}, seed=seed, pixels=pixels("video"))["mask"]

    assert torch.equal(mask(), mask())
    for other in (mask(seed=1), mask(draw=1), mask().flip(0)):
        assert not torch.equal(mask(), other)


def test_all_patches_are_hidden_equally_often():
    """Over many pictures no place is preferred: each share is within five standard errors."""
    many = drawn(2000, 3, 12, 12)
    share = run_node(Mask, {**GRID, "ratio": 0.25}, pixels=many)["mask"].float().mean(0)
    assert (share - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 2000)


def test_a_mask_of_ones_own_must_hide_as_many_everywhere():
    """It says how many it hides in each record, and how many are wanted."""
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0, 0], mask[1, 0, :3] = True, True
    with pytest.raises(InputError, match=r"node: the mask hides 4, 3 patches of its records, wanted 4 of 12 in each, as ratio: 0\.34 says"):
        run_node(Mask, {**GRID, "ratio": 0.34}, pixels=pixels("image"), mask=mask)


@pytest.mark.parametrize("medium", MEDIA)
def test_pixels_come_back_from_their_targets(medium):
    """Patches with their own mean and std are the pixels again."""
    given, config = pixels(medium), {**GRID, "medium": medium}
    found = run_node(Targets, config, pixels=given)
    back = run_node(Unpatch, config, patches=found["targets"], mean=found["mean"], std=found["std"])["pixels"]
    torch.testing.assert_close(back, given, **CLOSE)


def test_targets_are_in_the_order_of_frames_rows_columns_and_colours():
    """Patch by patch in float64; the variance is the unbiased one, with 1e-6 under the root."""
    given = pixels("video")
    shade = given.double() * torch.tensor(STD)[:, None, None, None] + torch.tensor(MEAN)[:, None, None, None]
    rows = []
    for t in range(0, 6, 2):
        for y in range(0, 12, 4):
            for x in range(0, 12, 3):
                patch = shade[:, :, t : t + 2, y : y + 4, x : x + 3]  # [batch 3 2 4 3]
                mean = patch.mean((2, 3, 4), keepdim=True)
                variance = (patch - mean).square().sum((2, 3, 4), keepdim=True) / 23
                rows.append(((patch - mean) / (variance + 1e-6).sqrt()).movedim(1, -1).flatten(1))
    found = run_node(Targets, {**GRID, "medium": "video"}, pixels=given)["targets"]
    torch.testing.assert_close(found.double(), torch.stack(rows, 1), rtol=0.0, atol=1e-5)


def test_a_loss_counts_hidden_patches_alone():
    """What is said of a patch that was seen changes nothing."""
    mask = torch.tensor([[[True, False], [False, True]]])
    said, wanted = drawn(1, 4, 5), drawn(1, 4, 5, seed=2)
    expected = ((said - wanted)[0, [0, 3]] ** 2).mean()
    assert run_node(Loss, patches=said, targets=wanted, mask=mask)["loss"].item() == pytest.approx(expected.item())
    said[0, 1] += 3
    assert run_node(Loss, patches=said, targets=wanted, mask=mask)["loss"].item() == pytest.approx(expected.item())


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 8), (20, 9)])
@pytest.mark.parametrize("medium", MEDIA)
def test_positions_of_other_sizes_are_resized_in_each_slice(height, width, medium):
    """As an encoder whose table holds the resized positions sees it; of squares the published code gives the same factor for both sides."""
    square = {**SMALL, "patch_size": (2, 4, 4), "medium": medium}
    width = width if height == width else 4 * width
    one = open_node(Encoder, {**square, "size": {"height": height, "width": width}})
    table = drawn(1, 27, 10)
    state = {**one.loaded.state.state_dict(), "pos_embed": table}
    one.loaded.state.load_state_dict(state)
    given = drawn(2, 3, height, width) if medium == "image" else drawn(2, 3, 6, height, width)
    slices, (rows, columns) = (1 if medium == "image" else 3), (height // 4, width // 4)
    grids = [
        functional.interpolate(table[:, 9 * at : 9 * at + 9].mT.reshape(1, 10, 3, 3), scale_factor=(rows / 3, columns / 3), mode="bicubic")
        for at in range(slices)
    ]
    there = torch.stack(grids, 2).flatten(2).mT  # [1 tokens 10]
    moving = given[:, :, None].expand(-1, -1, 2, -1, -1) if medium == "image" else given
    module = one.loaded.state
    x = functional.conv3d(moving, state["patches.weight"], state["patches.bias"], stride=(2, 4, 4)).flatten(2).mT + there
    for block in module.blocks:
        x = block(x)
    torch.testing.assert_close(one(given)["tokens"], x, **CLOSE)


REFUSED = {
    "a side that is no whole patches": (
        {"size": {"height": 14, "width": 12}},
        "the height is 14 pixels, and a patch has 4: 12 or 16 can be cut",
    ),
    "frames that are no whole patches": ({"num_frames": 5}, "num_frames is 5, and a patch is 2 frames deep: a multiple of 2 is wanted"),
    "positions that are no squares": (
        {"image_size": None, "positions": 35},
        "the file has 35 positions, which are no squares over 6 frames",
    ),
    "heads that nothing says": ({"num_heads": None}, "no file of weights says num_heads, and none was published of the width 10"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_cut_is_refused(case):
    """With what was found, what is wanted and a way out."""
    changed, text = REFUSED[case]
    with pytest.raises(ValueError, match=text):
        Encoder(**{**SMALL, **changed})


def test_a_mask_must_hide_something_and_leave_something():
    """A share that comes to no patch, or to all of them."""
    with pytest.raises(ValueError, match=r"ratio: 0\.05 of 12 patches hides 0: at least one must be hidden, and one seen"):
        Mask(**GRID, ratio=0.05)


def official(folder: Path, *, decoder: bool = True, **changed: Any) -> dict[str, torch.Tensor]:
    """Random weights in the official keys."""
    sizes = {"embed_dim": 10, **changed}
    found = {f"trunk.{key}": value for key, value in open_node(Encoder, {**SMALL, **sizes}).loaded.state.state_dict().items()}
    found = {key.replace("patches.", "patch_embed.proj.1."): value for key, value in found.items()}
    if decoder:
        inner = open_node(Decoder, {**INNER, "decoder_qkv_bias": True, **sizes}).loaded.state.state_dict()
        found |= {f"trunk.{'' if key == 'mask_token' else 'decoder.'}{key}": value for key, value in inner.items()}
    found |= {"head.weight": drawn(72 if decoder else 7, 6 if decoder else 10), "head.bias": drawn(72 if decoder else 7)}
    folder.mkdir(exist_ok=True)
    return {key: value.contiguous() for key, value in found.items()}


@pytest.mark.parametrize("ending", [".torch", ".safetensors"])
def test_an_official_file_says_its_sizes(tmp_path, ending):
    """Widths, depths, patches, and whether queries, keys and values of the decoder have a bias; the count is that of its tensors."""
    state, path = official(tmp_path), tmp_path / f"vitb{ending}"
    torch.save(state, path) if ending == ".torch" else save_file(state, path)
    node = configured(REGISTRY, "omnimae/encoder", str(path), num_heads=5, num_frames=6, image_size=12)
    assert (node.config.embed_dim, node.config.depth, node.config.patch_size) == (10, 2, (2, 4, 3))
    inside = configured(REGISTRY, "omnimae/decoder", str(path), decoder_num_heads=3, num_frames=6, image_size=12)
    assert (inside.config.decoder_embed_dim, inside.config.decoder_depth, inside.config.decoder_qkv_bias) == (6, 2, True)
    numbers = sum(value.numel() for key, value in state.items() if "pos_embed" not in key and not key.startswith("head"))
    assert sum(count for one in (node, inside) for count in set(counts(one))) == numbers


def test_a_file_with_squares_says_the_side_of_its_pictures(tmp_path):
    """The positions of 16 frames in slices of two are eight squares."""
    sizes = {"patch_size": (2, 3, 3), "num_frames": 16}
    save_file(official(tmp_path, decoder=False, **sizes), tmp_path / "w.safetensors")
    node = configured(REGISTRY, "omnimae/encoder", str(tmp_path / "w.safetensors"), num_heads=5)
    assert (node.config.height, node.config.width, node.config.tokens) == (12, 12, 16)


def test_a_file_with_classes_has_no_decoder(tmp_path):
    """It is told as such."""
    save_file(official(tmp_path, decoder=False), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="has no decoder: it was made for classes; name a pre-trained OmniMAE"):
        configured(REGISTRY, "omnimae/decoder", str(tmp_path / "w.safetensors"), decoder_num_heads=3)


def test_another_model_is_told_by_what_it_lacks(tmp_path):
    """A file of other keys, and a config of another model type."""
    save_file({"blocks.0.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"is no OmniMAE: it has no trunk\.patch_embed\.proj\.1\.weight"):
        configured(REGISTRY, "omnimae/encoder", str(tmp_path / "w.safetensors"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    (tmp_path / "w.safetensors").unlink()
    with pytest.raises(ValueError, match="is no OmniMAE: it has model_type 'vit'"):
        configured(REGISTRY, "omnimae/encoder", str(tmp_path))


def test_weights_of_another_variant_are_named_key_by_key(tmp_path):
    """The config says three blocks and another width, the file has two of ten."""
    save_file(official(tmp_path), tmp_path / "model.safetensors")
    config = {"model_type": "omnimae", **SMALL, "depth": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"do not fit node \(omnimae/encoder\): 12 missing: .*blocks\.2\."):
        open_part(REGISTRY, "omnimae/encoder", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**config, "depth": 2, "embed_dim": 15}))
    with pytest.raises(SourceError, match=r"of another shape: .* is \[10\], wanted \[15\]"):
        open_part(REGISTRY, "omnimae/encoder", str(tmp_path))


def test_keys_of_a_config_that_are_not_known_are_told(tmp_path):
    """One that could change the answer; four widths of feed-forward are what is built."""
    facts = {"model_type": "omnimae", **SMALL, "num_classes": 7, "mlp_ratio": 4, "learnable_pos_embed": True}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    warnings = [
        text
        for step in mg.plan(mg.load("omnimae", params={"checkpoint": str(tmp_path), "size": 12, "frames": 6})).steps
        for text in told(step)
    ]
    assert warnings
    assert all("states learnable_pos_embed: true, which is not known here" in text for text in warnings)


def told(step: Any) -> list[str]:
    """What a component does not heed of its source."""
    source = step.node.source
    return [sentence for sentence, _ in step.node.config.unheeded(source)] if source is not None else []


def test_pixels_of_another_size_are_found_before_anything_runs():
    """The graph says the size once, and the positions have theirs."""
    with pytest.raises(GraphError, match="224"):
        mg.check(mg.load("omnimae/classify", params={"size": 112}))
