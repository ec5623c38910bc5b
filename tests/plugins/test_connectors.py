"""Connectors that make few tokens of many compute what their papers say: against loops, and torch's own pooling."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import conform, run_node
from modelgraft_plugins import projectors
from modelgraft_plugins.projectors import CAbstractor, DAbstractor, Experts, Join, Merge, Pool
from support.open_part import counts, open_part

REGISTRY = assemble({"projectors": projectors})
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
C = {"in_features": 10, "out_features": 7, "patches": 25, "tokens": 9, "hidden_size": 12, "depth": 2}
D = {**C, "hidden_size": 16, "heads": 8, "points": 2, "inner_size": 20}


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a module with numbers of their own, so that none is 0 or 1 as it was built."""
    return {name: drawn(*tensor.shape, seed=index) * 0.4 for index, (name, tensor) in enumerate(sorted(state.items()))}


def weights_of(config, subject, folder: Path, rename=lambda name: name) -> dict[str, torch.Tensor]:
    """Shaken weights of a component, in a file under the names that its checkpoints have."""
    module = subject_module(subject, config)
    found = shaken(module.state_dict())
    save_file({f"abstractor.{rename(name)}": tensor.contiguous() for name, tensor in found.items()}, folder / "model.safetensors")
    return found


def subject_module(subject, config) -> nn.Module:
    package, _, name = subject.__component__.module.partition(":")
    return getattr(__import__(package, fromlist=[name]), name)(subject(**config))


# -- pooling ------------------------------------------------------------------------------------------------------------


def test_groups_become_their_means():
    """As torch's average pooling of the map."""
    x = drawn(2, 36, 5)
    grid = x.view(2, 6, 6, 5).permute(0, 3, 1, 2)
    for factor in (2, 3):
        expected = functional.avg_pool2d(grid, factor).permute(0, 2, 3, 1).flatten(1, 2)
        torch.testing.assert_close(run_node(Pool, {"factor": factor}, x=x)["y"], expected, **CLOSE)


@pytest.mark.parametrize(("patches", "tokens"), [(49, 9), (25, 16), (64, 64), (16, 25)])
def test_a_grid_of_any_size_is_pooled_to_another(patches: int, tokens: int):
    """As torch's adaptive average pooling, also where neither size divides the other."""
    x, side = drawn(2, patches, 3), math.isqrt(patches)
    pooled = functional.adaptive_avg_pool2d(x.view(2, side, side, 3).permute(0, 3, 1, 2), math.isqrt(tokens))
    torch.testing.assert_close(run_node(Pool, {"tokens": tokens}, x=x)["y"], pooled.permute(0, 2, 3, 1).flatten(1, 2), **CLOSE)


def test_what_is_no_grid_is_refused():
    with pytest.raises(InputError, match=r"projector/pool got 37 tokens, wanted a square grid; a class token must be left out"):
        run_node(Pool, {"tokens": 9}, x=torch.zeros(1, 37, 4))
    with pytest.raises(ValueError, match="tokens is 50, which is no square number"):
        Pool(tokens=50)


def merged_by_loops(record: list[torch.Tensor], left: int) -> list[torch.Tensor]:
    """Token merging as the paper words it, one token at a time: (vector, size, place) of each."""
    tokens = [(vector, 1, place) for place, vector in enumerate(record)]
    while len(tokens) > left:
        going, staying = tokens[::2], tokens[1::2]
        best = []
        for index, (vector, _, _) in enumerate(going):
            likeness = [functional.cosine_similarity(vector, other, dim=0).item() for other, _, _ in staying]
            best.append((max(likeness), index, likeness.index(max(likeness))))
        removed = min(len(tokens) - left, len(tokens) // 2)
        chosen = {index: into for _, index, into in sorted(best, reverse=True)[:removed]}
        sums = [(vector * size, size, place) for vector, size, place in staying]
        for index, into in chosen.items():
            vector, size, _ = going[index]
            sums[into] = (sums[into][0] + vector * size, sums[into][1] + size, sums[into][2])
        kept = [token for index, token in enumerate(going) if index not in chosen]
        tokens = sorted([*kept, *((total / size, size, place) for total, size, place in sums)], key=lambda token: token[2])
    return [vector for vector, _, _ in tokens]


@pytest.mark.parametrize(("patches", "tokens"), [(13, 8), (17, 3), (6, 6)])
def test_the_most_alike_are_merged(patches: int, tokens: int):
    """Against loops; several rounds where fewer than half are left."""
    x = drawn(3, patches, 5)
    expected = torch.stack([torch.stack(merged_by_loops(list(record), tokens)) for record in x])
    torch.testing.assert_close(run_node(Merge, {"patches": patches, "tokens": tokens}, x=x)["y"], expected, **CLOSE)


# -- experts ------------------------------------------------------------------------------------------------------------


def test_each_token_takes_the_experts_that_its_gate_finds_best(tmp_path: Path):
    """Against a loop over tokens, with the names and the file of CuMo."""
    model = shaken(subject_module(Experts, {"in_features": 6, "out_features": 5, "experts": 4, "selected": 2}).state_dict())
    save_file({f"mm_projector.{name}": tensor for name, tensor in model.items()}, tmp_path / "model.safetensors")
    part = open_part(REGISTRY, "projector/experts", f"{tmp_path}/model.safetensors#mm_projector", selected=2)
    x = drawn(2, 7, 6)
    expected = torch.zeros(2, 7, 5)
    for record in range(2):
        for token in range(7):
            share = (model["gate.weight"] @ x[record, token]).softmax(0)
            best = sorted(range(4), key=lambda expert: -share[expert])[:2]
            for expert in best:
                inner = functional.gelu(model[f"experts.{expert}.0.weight"] @ x[record, token] + model[f"experts.{expert}.0.bias"])
                said = model[f"experts.{expert}.2.weight"] @ inner + model[f"experts.{expert}.2.bias"]
                expected[record, token] += share[expert] / sum(share[one] for one in best) * said
    torch.testing.assert_close(part(x), expected, **CLOSE)
    formula, built = counts(part.node)
    assert formula == built


def test_no_more_experts_are_selected_than_there_are():
    with pytest.raises(ValueError, match="selected is 5, and there are 4 experts"):
        Experts(selected=5)


# -- the abstractors of Honeybee ----------------------------------------------------------------------------------------


def convolved(state, name: str, x, *, groups: int = 1, is_activated: bool = True):
    weight = state[f"{name}.conv.weight"]
    x = functional.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
    x = functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], state[f"{name}.bn.weight"], state[f"{name}.bn.bias"], 1e-5)
    x = x.permute(0, 3, 1, 2)
    return x * torch.sigmoid(x) if is_activated else x


def regnet_block(state, name: str, x):
    """A bottleneck of RegNet (arXiv 2003.13678), depth-wise, with squeeze and excitation."""
    y = convolved(state, f"{name}.conv1", x)
    y = convolved(state, f"{name}.conv2", y, groups=y.shape[1])
    means = y.mean((2, 3), keepdim=True)
    inner = functional.conv2d(means, state[f"{name}.se.fc1.weight"], state[f"{name}.se.fc1.bias"])
    y = y * torch.sigmoid(functional.conv2d(inner * inner.sigmoid(), state[f"{name}.se.fc2.weight"], state[f"{name}.se.fc2.bias"]))
    y = convolved(state, f"{name}.conv3", y, is_activated=False)
    has_map = f"{name}.downsample.conv.weight" in state
    y = y + (convolved(state, f"{name}.downsample", x, is_activated=False) if has_map else x)
    return y * y.sigmoid()


@pytest.mark.parametrize("given", [{}, {"in_features": 12}, {"depth": 0, "mlp_depth": 3}, {"eos_tokens": 2, "prenorm": True, "depth": 1}])
def test_the_c_abstractor_is_that_of_honeybee(given, tmp_path: Path):
    """Against its formula in torch's functions; all sizes but the number of tokens come from the tensors."""
    config = {**C, **given}
    state = weights_of(config, CAbstractor, tmp_path)
    part = open_part(REGISTRY, "projector/c_abstractor", f"{tmp_path}/model.safetensors#abstractor", tokens=9)
    x = drawn(2, 25, config["in_features"])
    y = functional.layer_norm(x, x.shape[-1:], state["prenorm.weight"], state["prenorm.bias"]) if config.get("prenorm") else x
    y = (y + state["pos_emb"]).view(2, 5, 5, -1).permute(0, 3, 1, 2)
    for index in range(config["depth"]):
        y = regnet_block(state, f"net.0.b{index + 1}", y)
    y = functional.adaptive_avg_pool2d(y, 3)
    for index in range(config["depth"]):
        y = regnet_block(state, f"net.2.b{index + 1}", y)
    y = y.permute(0, 2, 3, 1).flatten(1, 2)
    for index in range(config.get("mlp_depth", 2)):
        y = functional.silu(y) if index else y
        y = functional.linear(y, state[f"readout.{2 * index}.weight"], state[f"readout.{2 * index}.bias"])
    if "eos_tokens" in state:
        y = torch.cat([y, state["eos_tokens"].expand(2, -1, -1)], dim=1)
    torch.testing.assert_close(part(x), y, **CLOSE)
    formula, built = counts(part.node)
    assert formula == built


def looked_at(grid: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """The vector at a place of a map [rows columns width], in pixels from the middle of the first: bilinear, 0 beyond the edge."""
    rows, columns, width = grid.shape
    left, top = math.floor(x), math.floor(y)
    found = torch.zeros(width)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        if 0 <= column < columns and 0 <= row < rows:
            found += (1 - abs(x - column)) * (1 - abs(y - row)) * grid[row, column]
    return found


def deformable_layer(state, name: str, hidden, where, places, seen, *, heads: int, points: int):
    """A decoder layer of Deformable DETR (arXiv 2010.04159) for one record, by loops over queries, heads and points."""

    def linear(part, x):
        return functional.linear(x, state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"])

    def norm(part, x):
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"])

    side, width, wide = math.isqrt(len(seen)), hidden.shape[-1], hidden.shape[-1] // heads
    asked = hidden + where
    query, key, value = linear("self_attn.q_proj", asked), linear("self_attn.k_proj", asked), linear("self_attn.v_proj", hidden)
    heard = []
    for head in range(heads):
        part = slice(head * wide, (head + 1) * wide)
        heard.append((query[:, part] @ key[:, part].T / math.sqrt(wide)).softmax(-1) @ value[:, part])
    hidden = norm("self_attn_layer_norm", hidden + linear("self_attn.o_proj", torch.cat(heard, dim=-1)))
    asked = hidden + where
    values = linear("encoder_attn.value_proj", seen).view(side, side, heads, wide)
    offsets = linear("encoder_attn.sampling_offsets", asked).view(-1, heads, points, 2)
    shares = linear("encoder_attn.attention_weights", asked).view(-1, heads, points).softmax(-1)
    found = torch.zeros(len(hidden), heads, wide)
    for number in range(len(hidden)):
        for head in range(heads):
            for point in range(points):
                x, y = (places[number] * side + offsets[number, head, point] - 0.5).tolist()
                found[number, head] += shares[number, head, point] * looked_at(values[:, :, head], x, y)
    hidden = norm("encoder_attn_layer_norm", hidden + linear("encoder_attn.output_proj", found.view(-1, width)))
    return norm("final_layer_norm", hidden + linear("mlp.fc2", linear("mlp.fc1", hidden).relu()))


def honeybees(name: str) -> str:
    """The name that Honeybee's file has for a tensor."""
    return name.replace("self_attn.o_proj", "self_attn.out_proj").replace("mlp.fc", "fc")


@pytest.mark.parametrize("given", [{}, {"queries": "tgt"}, {"queries": "none", "eos_tokens": 2}, {"in_features": 16, "out_features": 16}])
def test_the_d_abstractor_is_that_of_honeybee(given, tmp_path: Path):
    """Against loops over queries, heads and places; the names are those that its file has."""
    config = {**D, **given}
    state = weights_of(config, DAbstractor, tmp_path, honeybees)
    more = {"queries": config.get("queries", "query")}
    part = open_part(REGISTRY, "projector/d_abstractor", f"{tmp_path}/model.safetensors#abstractor", **more)
    x = drawn(2, 25, config["in_features"])
    expected = []
    for record in x:
        seen = (
            functional.linear(record, state["input_proj.0.weight"], state["input_proj.0.bias"]) if "input_proj.0.bias" in state else record
        )
        seen = seen + state["v_pos_emb"][0]
        learned = state["query_position_embeddings.weight"]
        pooled = functional.adaptive_avg_pool2d(seen.view(5, 5, 16).permute(2, 0, 1), 3).permute(1, 2, 0).flatten(0, 1)
        where, hidden = {"query": (pooled, learned), "tgt": (learned, pooled), "none": (learned[:, :16], learned[:, 16:])}[more["queries"]]
        for index in range(2):
            name = f"layers.{index}"
            hidden = deformable_layer(state, name, hidden, where, state["reference_points"][0], seen, heads=8, points=2)
        hidden = torch.cat([hidden, state["eos_tokens"][0]]) if "eos_tokens" in state else hidden
        expected.append(
            functional.linear(hidden, state["output_proj.weight"], state["output_proj.bias"]) if "output_proj.bias" in state else hidden
        )
    torch.testing.assert_close(part(x), torch.stack(expected), **CLOSE)
    formula, built = counts(part.node)
    assert formula == built


def test_queries_begin_to_look_on_an_even_grid():
    """From the middle of the first patch to that of the last, row by row, as (x, y)."""
    places = subject_module(DAbstractor, {**D, "tokens": 4}).reference_points
    expected = torch.tensor([[[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]]])
    torch.testing.assert_close(places.detach(), expected)


# -- several eyes -------------------------------------------------------------------------------------------------------


def test_vectors_of_several_eyes_stand_side_by_side_or_one_behind_another():
    one, other, third = drawn(2, 9, 3), drawn(2, 9, 5, seed=2), drawn(2, 4, 3, seed=3)
    found = run_node(Join, x1=one, x2=other)["y"]
    for record in range(2):
        for token in range(9):
            assert found[record, token].tolist() == [*one[record, token].tolist(), *other[record, token].tolist()]
    found = run_node(Join, {"along": "tokens", "eyes": 3}, x1=one, x2=third, x3=one)["y"]
    assert torch.equal(found, torch.stack([torch.tensor([*a.tolist(), *b.tolist(), *a.tolist()]) for a, b in zip(one, third, strict=True)]))


def test_eyes_of_unlike_detail_are_brought_to_one_grid():
    """Bilinear, by a loop over places; one that is that grid already stays as it is."""
    one, other = drawn(2, 9, 3), drawn(2, 25, 2, seed=2)
    found = run_node(Join, {"tokens": 9}, x1=one, x2=other)["y"]
    assert torch.equal(found[..., :3], one)
    for record in range(2):
        grid = other[record].view(5, 5, 2)
        for place in range(9):
            x, y = ((at + 0.5) * 5 / 3 - 0.5 for at in (place % 3, place // 3))
            torch.testing.assert_close(found[record, place, 3:], looked_at(grid, x, y), **CLOSE)


def test_a_join_says_what_cannot_be():
    with pytest.raises(ValueError, match="tokens is for along: channels"):
        Join(along="tokens", tokens=9)


@pytest.mark.parametrize(
    ("subject", "config", "given"),
    [
        (Pool, {"factor": 2}, {"x": (2, 16, 3)}),
        (Pool, {"tokens": 9}, {"x": (2, 25, 3)}),
        (Merge, {"tokens": 5, "patches": 12}, {"x": (2, 12, 3)}),
        (Experts, {"in_features": 5, "out_features": 3}, {}),
        (CAbstractor, C, {"x": (2, 25, 10)}),
        (DAbstractor, D, {"x": (2, 25, 10)}),
        (Join, {"eyes": 3}, {}),
        (Join, {"along": "tokens"}, {}),
        (Join, {"tokens": 9}, {"x1": (2, 25, 3), "x2": (2, 9, 4)}),
    ],
)
def test_connectors_keep_their_declarations(subject, config, given):
    """Ports, repeatability, batches, count and saved state."""
    conform(subject, config, **{name: drawn(*shape) for name, shape in given.items()})


def test_published_counts():
    """Honeybee's table 12 rounds them: 7B with a C-Abstractor between CLIP L/14 and Vicuna."""
    ends = {"in_features": 1024, "out_features": 4096, "patches": 256}
    assert counts_of(CAbstractor, ends) == CAbstractor(**ends).parameters()
    assert counts_of(DAbstractor, ends) == DAbstractor(**ends).parameters()


def counts_of(subject, config) -> int:
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in subject_module(subject, config).parameters())
