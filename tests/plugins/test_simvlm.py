"""SimVLM's parts: equal to a model composed of what torch has, counted to the unit, cut by the seed, and clear about what cannot be."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from torch.nn import functional

import modelgraft as mg
from modelgraft.kernel.words.errors import InputError, SourceError
from modelgraft.testing import conform, open_node
from modelgraft_plugins.simvlm import Encoder, RelativeBias, Stem
from support import simvlm
from support.checkpoints import randomise
from support.installed import registry
from support.open_part import configured, open_part

REGISTRY = registry()
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
SIZES = {"d_model": 12, "num_heads": 3, "ffn_dim": 20, "vocab_size": 31, "max_text": 9}
READER = {**SIZES, "image_size": 48, "channels": 10, "encoder_layers": 2}
STEM = {"image_size": 48, "conv_depths": (1, 2, 1), "conv_width": 4}


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def words(*shape: int, most: int = 31, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, most, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny SimVLM in a folder."""
    return simvlm.saved(tmp_path_factory.mktemp("simvlm") / "whole")


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_parts_keep_their_declarations(norm):
    """Ports, repeatability, batches, count and saved state; with a picture, a text, or both."""
    conform(Stem, {**STEM, "conv_norm": norm})
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    for reads in ({}, {"pictures": False}):
        conform(Encoder, {**READER, **reads}, ids=words(2, 4), mask=mask)
    conform(Encoder, {**READER, "words": False})
    conform(RelativeBias, {"grid": (3, 4), "heads": 2})


# ResNet-101 and -152 as torchvision publishes them, without the fourth stage and the head; the rest is counted by torch.nn's own layers.
BEHIND = 14_964_736 + 2_049_000
STEMS = {"simvlm-base": 44_549_160 - BEHIND, "simvlm-large": 44_549_160 - BEHIND, "simvlm-huge": 60_192_808 - BEHIND}


@pytest.mark.parametrize("name", STEMS)
def test_the_sizes_of_the_paper_are_counted_to_the_unit(name):
    """From the config alone, and equal to layers that torch builds without memory; the decoder that writes is the one that is trained."""
    plan = mg.plan(mg.load("simvlm", params={"checkpoint": f"preset:{name}"}))
    trained = mg.plan(mg.load("simvlm/pretrain", params={"checkpoint": f"preset:{name}"}))
    count = {step: plan.nodes[step].parameters.total for step in ("stem", "read", "write")}
    facts = plan.nodes["read"].node.source.config
    width, heads, inner, layers = (facts[key] for key in ("d_model", "num_heads", "ffn_dim", "encoder_layers"))
    with torch.device("meta"):
        reader = torch.nn.TransformerEncoderLayer(width, heads, inner)
        writer = torch.nn.TransformerDecoderLayer(width, heads, inner)
    table, norm = facts["vocab_size"] * width, 2 * width
    side = facts["image_size"] // 16
    cells = (2 * side - 1) ** 2 * heads
    entry = 1024 * width + width + (side**2 + 256) * width + table
    assert count["stem"] == STEMS[name]
    assert count["read"] == entry + layers * (sum(p.numel() for p in reader.parameters()) + cells) + norm
    assert count["write"] == table + 256 * width + layers * sum(p.numel() for p in writer.parameters()) + norm
    assert trained.nodes["write"].parameters.total == count["write"]


def test_what_was_counted_is_what_is_built():
    """Of the smallest size of the paper, built without memory."""
    graph = mg.load("simvlm")
    assert mg.plan(graph).totals.parameters == mg.plan(graph, exact=True).totals.parameters


def test_the_stem_equals_a_resnet_of_torchvision(saved):
    """The first layer, the pooling and three stages; a vector for each sixteen pixels of both sides, row by row."""
    pixels = drawn(2, 3, 48, 64)
    state = simvlm.part(saved.state, "stem.")
    got = open_part(REGISTRY, "simvlm/stem", f"{saved.folder}#stem", size={"height": 48, "width": 64})(pixels)
    torch.testing.assert_close(got, simvlm.stem(state, pixels), **CLOSE)
    assert got.shape == (2, 3 * 4, 64)


def test_a_resnet_of_imagenet_fills_the_stem(tmp_path):
    """A file in the names of torchvision and timm, and a folder of transformers; what is behind the third stage is left out."""
    state, pixels = simvlm.stem_state(seed=4), drawn(1, 3, 48, 48)
    more = {"layer4.0.conv1.weight": drawn(5, 5, 1, 1), "fc.weight": drawn(7, 9), "bn1.num_batches_tracked": torch.tensor(3)}
    save_file({**state, **more}, tmp_path / "resnet.safetensors")
    node = configured(REGISTRY, "simvlm/stem", str(tmp_path / "resnet.safetensors"))
    assert (node.config.conv_depths, node.config.conv_width) == ((1, 2, 1), 4)
    got = open_part(REGISTRY, "simvlm/stem", str(tmp_path / "resnet.safetensors"), image_size=48)(pixels)
    torch.testing.assert_close(got, simvlm.stem(state, pixels), **CLOSE)
    config = hf.ResNetConfig(embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[1, 2, 1, 1], num_labels=5)
    theirs = hf.ResNetForImageClassification(config).eval()
    randomise(theirs, seed=5)
    theirs.save_pretrained(tmp_path / "hf")
    got = open_part(REGISTRY, "simvlm/stem", str(tmp_path / "hf"), image_size=48)(pixels)
    with torch.no_grad():
        wanted = theirs.resnet(pixels, output_hidden_states=True).hidden_states[3].flatten(2).mT
    torch.testing.assert_close(got, wanted, **CLOSE)


CASES = {
    "a picture and a text": (True, 5),
    "a picture and no token": (True, 0),
    "a picture": (True, None),
    "a text": (False, 5),
}


@pytest.mark.parametrize("case", CASES)
def test_the_encoder_equals_layers_of_torch(saved, case):
    """TransformerEncoderLayer with norms in front, GELU, and numbers that are added before the softmax."""
    has_picture, length = CASES[case]
    patches = drawn(2, 9, 64) if has_picture else None
    ids = None if length is None else words(2, length, most=300)
    mask = None if length is None else torch.arange(length) < torch.tensor([[length], [max(length - 2, 0)]])
    part = open_part(REGISTRY, "simvlm/encoder", str(saved.folder), pictures=has_picture, words=length is not None)
    found = part(*(given for given in (patches, ids, mask) if given is not None))
    wanted = simvlm.encode(saved.state, saved.facts, patches, ids, mask)
    there = found["memory_mask"]
    torch.testing.assert_close(found["memory"][there], wanted[there], **CLOSE)


def test_what_fills_a_batch_up_changes_nothing(saved):
    """Whatever tokens stand there, and on which side they stand."""
    part, patches = open_part(REGISTRY, "simvlm/encoder", str(saved.folder)), drawn(1, 9, 64)
    ids, filler = words(1, 3, most=300), words(1, 2, most=300, seed=9)
    alone = part(patches, ids, torch.ones(1, 3, dtype=torch.bool))["memory"]
    right = part(patches, torch.cat([ids, filler], 1), torch.tensor([[True] * 3 + [False] * 2]))["memory"]
    left = part(patches, torch.cat([filler, ids], 1), torch.tensor([[False] * 2 + [True] * 3]))["memory"]
    torch.testing.assert_close(right[:, :12], alone, **CLOSE)
    torch.testing.assert_close(torch.cat([left[:, :9], left[:, 11:]], 1), alone, **CLOSE)


def test_the_encoder_looks_both_ways(saved):
    """The last token of a beginning changes what the first becomes."""
    reader, patches, ids = open_part(REGISTRY, "simvlm/encoder", str(saved.folder)), drawn(1, 9, 64), words(1, 5, most=300)
    changed = ids.clone()
    changed[0, -1] += 1
    one, two = (reader(patches, given, None)["memory"] for given in (ids, changed))
    assert (one - two).abs().amax(-1).min() > 1e-6
    swapped = reader(patches[:, [1, 0, *range(2, 9)]], ids, None)["memory"]
    assert not torch.allclose(swapped, one)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 80)])
def test_positions_and_distances_of_another_size_are_resized(saved, height, width):
    """Each on its own grid: positions by cells, distances by differences; as an encoder that was trained at that size would have them."""
    rows, columns = height // 16, width // 16
    part = open_part(REGISTRY, "simvlm/encoder", str(saved.folder), words=False, size={"height": height, "width": width})
    tables = [f"encoder.distances.{index}.relative_position_bias_table" for index in range(2)]
    state = dict(saved.state)

    def resized(table: torch.Tensor, before: int, to: tuple[int, int]) -> torch.Tensor:
        grid = table.mT.reshape(1, -1, before, before)
        return functional.interpolate(grid, to, mode="bicubic").flatten(2)[0].mT

    positions = resized(state["encoder.image_positions"], 3, (rows, columns))
    module, patches = part.module, drawn(1, rows * columns, 64)
    hidden = functional.linear(patches, state["encoder.patch_proj.weight"], state["encoder.patch_proj.bias"]) + positions
    for layer, name in zip(module.layers, tables, strict=True):
        hidden = layer(hidden, simvlm.distances(resized(state[name], 5, (2 * rows - 1, 2 * columns - 1)), rows, columns)[None])
    torch.testing.assert_close(part(patches)["memory"], module.layer_norm(hidden), **CLOSE)


def test_a_beginning_that_is_too_long_is_told():
    """With the number of positions."""
    with pytest.raises(InputError, match="a beginning has 11 tokens, and there are 9 positions: shorten it"):
        open_node(Encoder, {**READER, "pictures": False})(words(1, 11), None)


REFUSED = {
    "a side that is no whole vectors": (
        Stem,
        {"size": {"height": 50, "width": 48}},
        "the height is 50 pixels, .* for each 16: take 48 or 64",
    ),
    "nothing to read": (Encoder, {**READER, "pictures": False, "words": False}, "there is nothing to read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    """With what was found and a way out."""
    subject, config, text = REFUSED[case]
    with pytest.raises(ValueError, match=text):
        subject(**config)


def test_other_checkpoints_are_told(tmp_path, saved):
    """Another model type, a ResNet of another kind, and weights of another size, key by key."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match="is no SimVLM: its model_type is 'vit'"):
        configured(REGISTRY, "simvlm/encoder", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", "layer_type": "basic"}))
    with pytest.raises(ValueError, match="is a ResNet of another kind than SimVLM's stem"):
        configured(REGISTRY, "simvlm/stem", str(tmp_path))
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="is no ResNet with bottlenecks in the names of torchvision"):
        configured(REGISTRY, "simvlm/stem", str(tmp_path / "w.safetensors"))
    with pytest.raises(SourceError, match=r"do not fit node \(simvlm/encoder\): .* of another shape: .*\[20\], wanted \[24\]"):
        open_part(REGISTRY, "simvlm/encoder", str(saved.folder), ffn_dim=24)
