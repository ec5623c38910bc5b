"""Pictures of any size: patches to the last bit as transformers' processors, towers and mergers element by element as its classes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from transformers.models.mistral3.modeling_mistral3 import Mistral3MultiModalProjector
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

import modelgraft as mg
from modelgraft.engine.backend import LoadContext, open_backend
from modelgraft.installed.discovery import discover
from modelgraft.kernel.words.graph import Ref
from modelgraft.records.arrays import as_tensor
from modelgraft.sources import views
from modelgraft.testing import conform, node_of, open_node, run_node
from modelgraft_plugins.patches import DeepMerger, Encoder, Frames, Merger, Prepare, filming, reading
from modelgraft_plugins.patches.places import locate
from modelgraft_plugins.patches.preparing import cut_up, fitted
from support.checkpoints import randomise
from support.pictures import gallery, on_white, picture
from support.untuned import leave_untuned

QWEN = {"min_pixels": 40, "max_pixels": 3000, "patch_size": 3, "merge_size": 2, "temporal_patch_size": 2}
PIXTRAL = {"longest_edge": 40, "patch_size": 5, "merge_size": 1}
SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
EYES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {**SIZES, "intermediate_size": 48, "patch_size": 3, "temporal_patch_size": 2, "merge_size": 2, "hidden_act": "quick_gelu"},
    "qwen2_5_vl": {
        **SIZES, "intermediate_size": 31, "patch_size": 3, "temporal_patch_size": 2, "merge_size": 2, "hidden_act": "silu",
        "window_size": 15, "full_layers": (1,),
    },
    "qwen3_vl": {
        **SIZES, "intermediate_size": 31, "patch_size": 3, "temporal_patch_size": 2, "merge_size": 2, "hidden_act": "gelu_pytorch_tanh",
        "num_position_embeddings": 16,
    },
    "pixtral": {**SIZES, "intermediate_size": 31, "patch_size": 5},
}  # fmt: skip
MERGERS: dict[str, dict[str, Any]] = {
    "layer": {"in_features": 6, "out_features": 7},
    "rms": {"in_features": 6, "out_features": 7, "merge_size": 3},
    "narrow": {"in_features": 6, "out_features": 7, "bias": False},
}
GRIDS = torch.tensor([[[1, 4, 6], [1, 2, 8], [0, 0, 0]], [[2, 6, 4], [1, 14, 10], [1, 2, 2]], [[0, 0, 0]] * 3])  # the last record has none


def patches_of(grids: torch.Tensor, values: int, *, seed: int = 3) -> torch.Tensor:
    """float[batch patches values] of such grids, zeros where records have none."""
    counts = grids.prod(-1).sum(-1)
    found = torch.zeros(len(grids), int(counts.max()), values)
    for place, count in zip(found, counts, strict=True):
        place[:count] = torch.randn(int(count), values, generator=torch.Generator().manual_seed(seed + int(count)))
    return found


# -- pictures --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", gallery())
def test_patches_of_qwen_are_those_of_its_processor(name: str):
    image = gallery()[name]
    theirs = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 40, "longest_edge": 3000}, patch_size=3, merge_size=2, temporal_patch_size=2, image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )(on_white(image), return_tensors="pt")  # fmt: skip
    patches, grid = cut_up(image, Prepare(**QWEN))
    assert torch.tensor([grid]).equal(theirs["image_grid_thw"])
    assert patches.equal(theirs["pixel_values"])


@pytest.mark.parametrize("merge", [1, 2])
@pytest.mark.parametrize("name", gallery())
def test_patches_of_pixtral_are_those_of_its_processor(name: str, merge: int):
    """Its pixels, cut: of groups, one behind the other."""
    image = gallery()[name]
    theirs = PixtralImageProcessorPil(size={"longest_edge": 40}, patch_size=5 * merge, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    pixels = theirs(on_white(image), return_tensors="pt")["pixel_values"][0]
    patches, (frames, rows, columns) = cut_up(image, Prepare(**{**PIXTRAL, "merge_size": merge}))
    assert (frames, rows * 5, columns * 5) == (1, *pixels.shape[1:])
    expected = [
        pixels[:, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5].flatten()
        for above in range(0, rows, merge)
        for left in range(0, columns, merge)
        for row in range(above, above + merge)
        for column in range(left, left + merge)
    ]
    assert patches.equal(torch.stack(expected))


def test_records_have_any_number_of_pictures_and_say_what_stands_for_them():
    """Patches behind each other, zeros behind them; a record without pictures has none."""
    many = [[picture(20, 11), picture(9, 30)], [], [picture(7, 7)]]
    config = {**QWEN, "placeholder": "<i>", "start": "[", "row_end": "/", "end": "]"}
    found = run_node(Prepare, config, image=many)
    one_by_one = [[cut_up(image, Prepare(**QWEN)) for image in record] for record in many]
    for number, record in enumerate(one_by_one):
        cut = torch.cat([patches for patches, _ in record]) if record else torch.zeros(0, 54)
        assert found["patches"][number, : len(cut)].equal(cut)
        assert not found["patches"][number, len(cut) :].any()
        assert found["grids"][number, : len(record)].tolist() == [list(grid) for _, grid in record]
        assert found["token_grids"][number].tolist() == [[t, r // 2, c // 2] for t, r, c in found["grids"][number].tolist()]
        assert found["lengths"][number].tolist() == found["token_grids"][number].prod(-1).tolist()
        rows = [grid[1] // 2 for _, grid in record]
        assert found["words"][number] == ["[" + "/".join(["<i>"] * count) + "]" for count in rows]


def test_one_picture_for_each_record_is_a_list_of_one():
    config = {**QWEN, "many": False}
    found = run_node(Prepare, config, image=[picture(20, 11), picture(9, 30)])
    other = run_node(Prepare, QWEN, image=[[picture(20, 11)], [picture(9, 30)]])
    assert all(found[name].equal(other[name]) for name in ("patches", "grids", "lengths", "token_grids"))
    assert found["words"] == other["words"] == [["<image>"], ["<image>"]]


def test_a_batch_without_any_picture_has_no_patches():
    found = run_node(Prepare, QWEN, image=[[], []])
    assert found["patches"].shape == (2, 0, 54)
    assert found["lengths"].shape == (2, 0)


def test_a_long_strip_is_refused():
    with pytest.raises(mg.InputError, match="a picture of 603 x 3 pixels is more than 200 times longer than wide: crop it first"):
        fitted(603, 3, Prepare(**QWEN))


def test_a_picture_that_is_not_resized_has_whole_groups():
    config = Prepare(do_resize=False, patch_size=3, merge_size=2)
    assert cut_up(picture(12, 6), config)[1] == (1, 2, 4)
    with pytest.raises(mg.InputError, match=r"12 x 7 pixels has no whole groups of 2 x 2 patches of 3 pixels: set do_resize: true"):
        cut_up(picture(12, 7), config)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "wanted either both numbers of pixels, or the longest side"),
        ({"longest_edge": 9, "min_pixels": 4, "max_pixels": 5}, "wanted either both"),
        ({"min_pixels": 9, "max_pixels": 5}, "min_pixels is 9, more than max_pixels 5"),
        ({"longest_edge": 10_001}, "100,020,001 pixels large, more than 100,000,000"),
        ({"longest_edge": 9, "image_mean": (0.1,)}, "image_mean has 1 numbers"),
        ({"longest_edge": 9, "image_std": None}, "do_normalize needs image_std"),
    ],
)
def test_what_cannot_be_prepared_is_told(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Prepare(**given)


# -- films -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "rate_hz", "given", "places"),
    [
        (5, 5.0, {"fps": None}, [0, 1, 2, 3, 4]),
        (20, 10.0, {"fps": 2.0}, [0, 5, 10, 15]),  # at least four
        (30, 10.0, {"fps": 2.0}, [0, 5, 10, 15, 20, 25]),
        (30, 10.0, {"fps": 2.5}, [0, 5, 10, 15, 20, 25]),  # seven and a half: whole patches
        (30, 10.0, {"fps": 9.0, "max_frames": 5}, [0, 7, 15, 22]),
        (3, 10.0, {"fps": 2.0}, [0, 1]),
        (1, 10.0, {"fps": 2.0}, [0]),
    ],
)
def test_frames_are_spread_evenly(frames: int, rate_hz: float, given: dict[str, Any], places: list[int]):
    """Whole patches of two frames, at least four frames where there are so many; a film of one frame is that."""
    film = mg.Video(np.zeros((frames, 6, 6, 3), np.uint8), rate_hz)
    config = Frames(**{**QWEN, **given})
    assert filming.taken(film, config) == places
    assert filming.cut_up(film, config)[1][0] == -(-len(places) // 2)


def test_paces_are_seconds_of_a_patch():
    """Two frames of each second, two to a patch, four places for each second: four."""
    film = mg.Video(np.zeros((24, 6, 6, 3), np.uint8), 8.0)
    assert filming.pace(film, Frames(**QWEN, fps=2.0, tokens_per_second=4)) == 4
    assert filming.pace(film, Frames(**QWEN, fps=4.0, tokens_per_second=4)) == 2
    assert filming.pace(film, Frames(**QWEN, fps=2.0)) == 1


def test_films_and_pictures_conform():
    """Of one shape and number: what fills up records that have fewer patches than others depends on those."""
    conform(Prepare, QWEN, image=[[picture(20, 11), picture(9, 30)], [picture(20, 11, seed=1), picture(9, 30, seed=2)]])
    conform(Frames, {**QWEN, "fps": 2.0}, video=[[mg.Video(np.full((5, 8, 6, 3), shade, np.uint8), 4.0)] for shade in (9, 200)])


# -- places ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [1, 2])
def test_places_are_those_of_loops(group: int):
    places = locate(GRIDS, 195, group=group)
    for number, record in enumerate(GRIDS.tolist()):
        expected = [
            (medium, frame, above + row, left + column)
            for medium, (frames, rows, columns) in enumerate(record)
            for frame in range(frames)
            for above in range(0, rows, group)
            for left in range(0, columns, group)
            for row in range(group)
            for column in range(group)
        ]
        there = places.there[number]
        found = torch.stack([places.medium, places.frame, places.row, places.column], -1)[number][there]
        assert found.tolist() == [list(one) for one in expected]
        assert not there[len(expected) :].any()


# -- towers ----------------------------------------------------------------------------------------------------------------


def theirs(family: str, config: dict[str, Any]) -> Any:
    """The tower of transformers of the same sizes, with random weights."""
    common = {"depth": config["num_hidden_layers"], "num_heads": config["num_attention_heads"], "patch_size": config["patch_size"]}
    if family == "qwen2_vl":
        ratio = config["intermediate_size"] // config["hidden_size"]
        own = hf.Qwen2VLConfig(vision_config={**common, "embed_dim": config["hidden_size"], "hidden_size": 16, "mlp_ratio": ratio})
        made = Qwen2VisionTransformerPretrainedModel(own.vision_config)
    elif family == "qwen2_5_vl":
        names = {"full_layers": "fullatt_block_indexes"}
        sizes = {names.get(word, word): value for word, value in config.items() if word not in ("num_hidden_layers", "num_attention_heads")}
        own = hf.Qwen2_5_VLConfig(vision_config={**common, **sizes, "out_hidden_size": 16})
        made = Qwen2_5_VisionTransformerPretrainedModel(own.vision_config)
    elif family == "qwen3_vl":
        sizes = {word: value for word, value in config.items() if word not in ("num_hidden_layers", "num_attention_heads")}
        inner = {"out_hidden_size": 16, "deepstack_visual_indexes": [0, 1]}
        made = hf.Qwen3VLVisionModel(hf.Qwen3VLConfig(vision_config={**common, **sizes, **inner}).vision_config)
    else:
        made = hf.PixtralVisionModel(hf.PixtralVisionConfig(**config, image_size=60))
    randomise(made, seed=5)
    return made.eval()


def seen_by(tower: Any, family: str, patches: torch.Tensor, grid: list[int], config: dict[str, Any]) -> torch.Tensor:
    """What the tower gives for one picture, before the merger: float[patches width]."""
    if family == "pixtral":
        _, rows, columns = grid
        side = config["patch_size"]
        pixels = patches.unflatten(0, (rows, columns)).unflatten(-1, (3, side, side)).permute(2, 0, 3, 1, 4).reshape(3, rows * side, -1)
        return tower(pixels[None]).last_hidden_state[0]
    kept: list[torch.Tensor] = []
    handle = tower.merger.register_forward_hook(lambda _module, given, _result: kept.append(given[0]))
    tower(patches, grid_thw=torch.tensor([grid]))
    handle.remove()
    if family in ("qwen2_vl", "qwen3_vl"):
        return kept[0]
    from transformers.vision_utils import get_vision_window_index

    order, _ = get_vision_window_index(torch.tensor([grid]), 2, config["window_size"], config["patch_size"])
    return kept[0].unflatten(0, (-1, 4))[torch.argsort(order)].flatten(0, 1)


@pytest.mark.parametrize("family", EYES)
@torch.no_grad()
def test_a_tower_gives_for_each_picture_what_transformers_gives_for_it_alone(family: str):
    """With pictures of several sizes in each record, and none in one."""
    config = EYES[family]
    tower = theirs(family, config)
    own = {name: tensor for name, tensor in tower.state_dict().items() if not name.startswith(("merger.", "deepstack_merger_list."))}
    trial = open_node(Encoder, {"family": family, **config}, state={f"tower.{name}": tensor for name, tensor in own.items()})
    patches = patches_of(GRIDS, trial.node.config.patch_values)
    found = trial(patches, GRIDS)["tokens"]
    for number, record in enumerate(GRIDS.tolist()):
        start = 0
        for grid in record:
            size = grid[0] * grid[1] * grid[2]
            if not size:
                continue
            given = patches[number, start : start + size]
            if family == "pixtral":  # which knows no frames
                expected = torch.cat([seen_by(tower, family, one, [1, *grid[1:]], config) for one in given.unflatten(0, (grid[0], -1))])
            else:
                expected = seen_by(tower, family, given, grid, config)
            torch.testing.assert_close(found[number, start : start + size], expected, rtol=0, atol=1e-5 * expected.abs().max().item())
            start += size
        assert not found[number, start:].any()


@pytest.mark.parametrize("layer", [0, -2, -1])
@torch.no_grad()
def test_a_layer_of_pixtral_is_the_hidden_state_of_that_number(layer: int):
    config = EYES["pixtral"]
    tower = theirs("pixtral", config)
    state = {f"tower.{name}": tensor for name, tensor in tower.state_dict().items()}
    trial = open_node(Encoder, {"family": "pixtral", **config, "layer": layer}, state=state)
    pixels = torch.randn(1, 3, 15, 20, generator=torch.Generator().manual_seed(1))
    patches = pixels.unfold(2, 5, 5).unfold(3, 5, 5).permute(0, 2, 3, 1, 4, 5).reshape(1, 12, 75)
    expected = tower(pixels, output_hidden_states=True).hidden_states[layer]
    torch.testing.assert_close(trial(patches, torch.tensor([[[1, 3, 4]]]))["tokens"], expected, rtol=0, atol=3e-5)


@torch.no_grad()
def test_inner_layers_and_what_joins_them_are_those_of_qwen3_vl():
    """Of the layers 0 and 1 of three, each joined by a norm and two layers of its own; a record without pictures has none."""
    config = EYES["qwen3_vl"]
    tower = theirs("qwen3_vl", config)
    state = tower.state_dict()
    parts = {"merger.", "deepstack_merger_list."}
    own = {f"tower.{name}": tensor for name, tensor in state.items() if not name.startswith(tuple(parts))}
    eye = open_node(Encoder, {"family": "qwen3_vl", **config, "deep_layers": (0, 1)}, state=own)
    patches = patches_of(GRIDS, 54)
    seen = eye(patches, GRIDS)
    steps = {"norm": 0, "linear_fc1": 1, "linear_fc2": 3}
    inner = {
        f"layers.{number}.{steps[name]}.{kind}": state[f"deepstack_merger_list.{number}.{name}.{kind}"]
        for number in (0, 1) for name in steps for kind in ("weight", "bias")
    }  # fmt: skip
    join = open_node(DeepMerger, {"layers": 2, "in_features": 24, "out_features": 16}, state=inner)
    found = join(seen["deep"])["y"]
    for number, record in enumerate(GRIDS.tolist()):
        grids = [grid for grid in record if grid[1]]
        count = sum(frames * rows * columns for frames, rows, columns in grids)
        assert not seen["deep"][number, :, count:].any()
        if grids:
            expected = torch.stack(tower(patches[number, :count], grid_thw=torch.tensor(grids)).deepstack_features)
            torch.testing.assert_close(found[number, :, : count // 4], expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert eye(patches[:, :0], torch.zeros(3, 0, 3, dtype=torch.int64))["deep"].shape == (3, 2, 0, 24)


def test_deep_mergers_conform():
    conform(DeepMerger, {"layers": 2, "in_features": 6, "out_features": 7})


@pytest.mark.parametrize("family", EYES)
def test_towers_conform(family: str):
    config = {"family": family, **EYES[family]}
    conform(Encoder, config, patches=patches_of(GRIDS, Encoder(**config).patch_values), grids=GRIDS)


GRAPH = """\
modelgraft: 1
inputs: {{image: "list[image]"}}
nodes:
  pixels: {{use: patches/prepare, with: {{longest_edge: 40, patch_size: 14, merge_size: {merge}}}, in: {{image: inputs.image}}}}
  vision: {{use: patches/encoder, with: {{merge_size: 2}}, in: {{patches: pixels.patches, grids: pixels.{wired}}}}}
outputs: {{tokens: vision}}
"""


@pytest.mark.parametrize(("merge", "wired", "message"), [(1, "grids", "group"), (2, "token_grids", "of")])
def test_grids_that_are_not_those_of_the_patches_are_found_by_a_check(tmp_path: Path, merge: int, wired: str, message: str):
    """Those of the tokens, or of patches that stand in other groups."""
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH.format(merge=merge, wired=wired))
    with pytest.raises(mg.GraphError, match=message):
        mg.check(path)


def test_grids_of_the_patches_check(tmp_path: Path):
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH.format(merge=2, wired="grids"))
    assert not mg.check(path).warnings


@pytest.mark.slow  # it exports
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", EYES)
def test_an_exported_tower_gives_torchs_numbers(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One graph for any pictures: it masks what torch gathers."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    leave_untuned(monkeypatch)
    registry = discover()
    node = node_of(Encoder, {"family": family, **EYES[family]})
    node = replace(node, wired={name: (Ref("inputs", name),) for name in node.in_ports})
    context = LoadContext(node, "cpu", "float32", None, 0, offline=True, registry=registry, init="random")
    mine, theirs = open_backend(registry, "torch").load(context, {}), open_backend(registry, "onnx").load(context, {})
    for grids in (GRIDS, GRIDS[:1, :2], torch.tensor([[[1, 2, 2]], [[3, 4, 2]]])):
        patches = patches_of(grids, node.config.patch_values)
        expected = mine.call(patches, grids)
        torch.testing.assert_close(as_tensor(theirs.call(patches, grids)), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"family": "vit"}, "family is 'vit', wanted one of pixtral, qwen2_5_vl, qwen2_vl, qwen3_vl"),
        ({"deep_layers": (3, 32)}, "deep_layers names layer 32, and 32 layers run, from 0"),
        ({"deep_layers": (3, 1)}, r"deep_layers is \[3, 1\], wanted: each layer once, in their order"),
        ({"family": "qwen3_vl", "num_position_embeddings": 15}, "num_position_embeddings is 15, and they are to be the places of a square"),
        ({"family": "qwen3_vl"}, "num_position_embeddings is None, and a qwen3_vl has learned places"),
        ({"num_position_embeddings": 16}, "num_position_embeddings is 16, and a qwen2_vl has no learned places"),
        ({"layer": 4, "num_hidden_layers": 3}, "layer is 4, and there are 3 layers"),
        ({"window_size": 20, "merge_size": 2}, "window_size is 20, less than a group of 2 patches of 14 pixels"),
        ({"full_layers": (32,)}, "full_layers names layer 32, and there are 32, from 0"),
        ({"intermediate_size": 1281}, "has a multiple of its hidden_size 1280"),
    ],
)
def test_towers_that_cannot_be_built_are_told(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Encoder(**given)


# -- files -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        hf.PixtralVisionConfig,
        type(hf.Qwen2VLConfig().vision_config),
        type(hf.Qwen2_5_VLConfig().vision_config),
        type(hf.Qwen3VLConfig().vision_config),
    ],
)
def test_every_key_of_a_vision_config_is_known_and_its_defaults_are_ours(kind: Any, tmp_path: Path):
    """A key that is new in the class fails here; a config that says nothing means the same as to the class."""
    made = kind()
    saved = made.to_dict()
    assert ({field.name for field in dataclasses.fields(kind)} | set(saved)) - reading.table().known == set()
    values = {name: eye_of(tmp_path / name, config) for name, config in (("all", saved), ("none", {"model_type": kind.model_type}))}
    assert values["all"] == values["none"]


def eye_of(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The fields of patches/encoder from such a config."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    view = views.view(views.parse(str(folder)), registry=discover(), folder=None, trusted=True, offline=True)
    assert not [*Encoder.unheeded(view)]
    return dict(Encoder.from_source(view))


@pytest.mark.parametrize(
    ("kind", "processor"),
    [
        ("qwen2_vl", Qwen2VLImageProcessorPil),
        ("qwen2_5_vl", Qwen2VLImageProcessorPil),
        ("qwen3_vl", Qwen2VLImageProcessorPil),
        ("mistral3", PixtralImageProcessorPil),
    ],
)
def test_a_silent_file_of_a_processor_means_what_its_class_means(kind: str, processor: Any, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    view = views.view(views.parse(str(tmp_path)), registry=discover(), folder=None, trusted=True, offline=True)
    found = []
    for saved in ({}, processor().to_dict()):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
        assert not [*Prepare.unheeded(view)]
        found.append(dict(Prepare.from_source(view)))
    own = found[1] if kind != "mistral3" else {**found[1], "longest_edge": 1024}
    assert found[0] == own


# -- mergers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", MERGERS)
def test_mergers_conform(family: str):
    conform(Merger, {"family": family, **MERGERS[family]})


@torch.no_grad()
def test_a_narrow_merger_is_the_projector_of_mistral_3():
    """Whose patches stand row by row, where ours stand group by group."""
    config = hf.Mistral3Config(
        vision_config={"model_type": "pixtral", "hidden_size": 8, "num_attention_heads": 2, "patch_size": 5},
        text_config={"model_type": "mistral", "hidden_size": 7, "rms_norm_eps": 1e-3},
    )
    projector = Mistral3MultiModalProjector(config)
    randomise(projector, seed=6)
    names = {"norm": "norm", "patch_merger.merging_layer": "join", "linear_1": "first", "linear_2": "second"}
    state = {name: projector.state_dict()[f"{theirs}.weight"] for theirs, ours in names.items() for name in [f"{ours}.weight"]}
    given = {"family": "narrow", "in_features": 8, "out_features": 7, "bias": False, "norm_eps": 1e-3}
    trial = open_node(Merger, given, state=state)
    rows = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(2))
    expected = projector(rows.flatten(0, 1), [(20, 30)])
    groups = rows.reshape(2, 2, 3, 2, 8).transpose(1, 2).reshape(1, 24, 8)
    torch.testing.assert_close(trial(groups)["y"][0], expected, rtol=0, atol=1e-5)
