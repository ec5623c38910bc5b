"""Tiles: pixels are those of transformers' own image processors, vectors and words those of its models and processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelgraft import ABSENT, InputError
from modelgraft.testing import conform, run_node
from modelgraft_plugins.projectors.gated import Gated
from modelgraft_plugins.resampler.grouped import Grouped
from modelgraft_plugins.tiles import Join, Newline, Pack, Preprocess
from modelgraft_plugins.vision import Encoder
from support import tiled
from support.checkpoints import Checkpoint
from support.gemma3 import gemma3
from support.installed import registry
from support.open_part import configured, counts, open_part
from support.pictures import gallery, picture

REGISTRY = registry()
GALLERY = gallery()
RECORDS = [[GALLERY["landscape"]], [GALLERY["portrait"], GALLERY["grey"], GALLERY["tiny"]], [GALLERY["rgba"]], [GALLERY["palette"]]]
LARGE = [[picture(200, 31, seed=11)], [picture(97, 101, seed=12), picture(23, 150, seed=13)]]


@pytest.fixture(scope="module", params=tiled.MODELS)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiled.MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


def family(theirs: Checkpoint) -> str:
    return str(theirs.model.config.model_type)


def eye_of(theirs: Checkpoint) -> str:
    return "vision_model" if hasattr(theirs.model.model, "vision_model") else "vision_tower"


def tokens_of(theirs: Checkpoint) -> str:
    return "<IMG_CONTEXT>" if family(theirs) == "internvl" else "<image>"


def processed(theirs: Checkpoint, records: list[list[Any]]) -> Any:
    """What the processor makes of records, each of which asks about its pictures."""
    texts = [f"{tokens_of(theirs) * len(record)} a" for record in records]
    return theirs.processor(images=records, text=texts, return_tensors="pt", padding=True)


def tiles_of(theirs: Checkpoint, records: list[list[Any]]) -> list[torch.Tensor]:
    """Every tile of their processor, in order, without what fills a batch up."""
    pixels = processed(theirs, records)["pixel_values"]
    if family(theirs) == "internvl":
        return list(pixels)
    return [tile for some in pixels for tile in some if tile.ne(0).any()]


def cut(theirs: Checkpoint, records: list[list[Any]]) -> dict[str, Any]:
    return open_part(REGISTRY, "tiles/preprocess", str(theirs.folder))(records)


@pytest.mark.parametrize("records", [RECORDS, LARGE], ids=["awkward", "large"])
def test_tiles_are_those_of_the_published_processor_to_the_last_bit(theirs: Checkpoint, records):
    given = [tile for some in cut(theirs, records)["pixels"] for tile in some]
    wanted = tiles_of(theirs, records)
    assert len(given) == len(wanted)
    for one, other in zip(given, wanted, strict=True):  # which idefics2 fills up to whole patches here
        torch.testing.assert_close(one[:, : other.shape[1], : other.shape[2]], other, rtol=0, atol=0)
        assert not one[:, other.shape[1] :].any()
        assert not one[:, :, other.shape[2] :].any()


def test_pictures_of_one_row_or_column(theirs: Checkpoint):
    """Equal too; of one pixel there are no quarters."""
    thin = [[GALLERY["one wide"]], [GALLERY["one high"]]]
    if configured(REGISTRY, "tiles/preprocess", str(theirs.folder)).config.cut == "corners":
        with pytest.raises(InputError, match="a picture of 1 x 40 pixels cannot be cut into quarters"):
            cut(theirs, thin)
        return
    given = [tile for some in cut(theirs, thin)["pixels"] for tile in some]
    for one, other in zip(given, tiles_of(theirs, thin), strict=True):
        assert torch.equal(one[:, : other.shape[1], : other.shape[2]], other)


def test_what_is_known_of_the_pictures(theirs: Checkpoint):
    """Tiles, grid and size of each, zeros where a record has fewer pictures; a record may have none."""
    found = cut(theirs, [[], *RECORDS])
    assert found["sizes"][2].tolist() == [[47, 19], [29, 37], [2, 3]]
    assert found["sizes"][1].tolist() == [[23, 61], [0, 0], [0, 0]]
    assert found["counts"].sum(1).tolist() == [len(some) for some in found["pixels"]]
    assert found["counts"][0].tolist() == [0, 0, 0]


# -- the whole way to vectors ------------------------------------------------------------------------------------------------------


def seen(theirs: Checkpoint, records: list[list[Any]]) -> dict[str, Any]:
    """The vectors of records, by the components that a graph of this family wires."""
    source, found = str(theirs.folder), cut(theirs, records)
    is_llava = family(theirs).startswith("llava")
    eye, pixels = eye_of(theirs), torch.cat([some for some in found["pixels"] if len(some)])
    shapes = [torch.cat([some for some in found["shapes"] if len(some)])] if "shapes" in found else []
    vectors = open_part(REGISTRY, "vision/encoder", f"{source}#{eye}")(pixels, *shapes)
    if family(theirs) == "idefics2":
        wide = open_part(REGISTRY, "projector/gated", f"{source}#connector.modality_projection")(vectors["tokens"])
        projected = open_part(REGISTRY, "resampler/grouped", f"{source}#connector.perceiver_resampler")(wide, vectors["there"])
    elif is_llava:
        projected = open_part(REGISTRY, "projector/mlp", f"{source}#multi_modal_projector")(vectors)
    else:
        groups = open_part(REGISTRY, "projector/pixel_shuffle", source)(vectors)
        linear = ("projector/linear", "connector.modality_projection.proj")
        kind, part = linear if eye == "vision_model" else ("projector/mlp", "multi_modal_projector")
        projected = open_part(REGISTRY, kind, f"{source}#{part}")(groups)
    waiting = iter(projected)
    tokens = [[next(waiting) for _ in some] for some in found["pixels"]]
    if is_llava:
        newline = open_part(REGISTRY, "tiles/newline", f"{source}#image_newline")
        lines = [list(newline(torch.stack(some))) for some in tokens]
        return open_part(REGISTRY, "tiles/pack", source)(tokens, lines, found["counts"], found["grids"], found["sizes"])
    return open_part(REGISTRY, "tiles/join", source)(tokens, found["counts"], found["grids"])


@pytest.mark.parametrize("records", [RECORDS, LARGE], ids=["awkward", "large"])
def test_vectors_are_those_of_the_published_model(theirs: Checkpoint, records):
    inputs = processed(theirs, records)
    takes = ("pixel_values", "pixel_attention_mask", "image_sizes", "batch_num_images")
    with torch.no_grad():
        features = theirs.model.model.get_image_features(**{name: inputs[name] for name in takes if name in inputs}).pooler_output
    wanted = torch.cat(list(features)).flatten(0, -2)
    found = seen(theirs, records)
    given = torch.cat([image[: sum(there)] for image, there in zip(found["image"], found["lengths"].tolist(), strict=True)])
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)


def test_as_many_vectors_as_the_processor_writes_places_and_the_same_words(theirs: Checkpoint):
    found, inputs = seen(theirs, RECORDS), processed(theirs, RECORDS)
    token = theirs.processor.tokenizer.convert_tokens_to_ids(tokens_of(theirs))
    assert found["lengths"].sum(1).tolist() == inputs["input_ids"].eq(token).sum(1).tolist()
    if "words" in found:
        tokenizer = theirs.processor.tokenizer
        edge = "<fake_token_around_image>"
        for words, ids, mask in zip(found["words"], inputs["input_ids"], inputs["attention_mask"], strict=True):
            text = "".join(words) + " a"
            text = text.replace(edge * 2, edge) if family(theirs) == "idefics2" else text  # which the language model does
            assert tokenizer(text).input_ids == ids[mask.bool()].tolist()


def test_a_batch_gives_what_its_records_give_alone(theirs: Checkpoint):
    together = seen(theirs, RECORDS)
    for row, record in enumerate(RECORDS):
        alone = seen(theirs, [record])
        there = int(alone["lengths"].sum())
        torch.testing.assert_close(together["image"][row, :there], alone["image"][0, :there], rtol=0, atol=1e-5)
        assert not together["image"][row, there:].any()
        assert together["lengths"][row, : len(record)].tolist() == alone["lengths"][0].tolist()


def test_ports_and_counts_are_known_without_building(theirs: Checkpoint):
    source = str(theirs.folder)
    eye = eye_of(theirs)
    node = configured(REGISTRY, "vision/encoder", f"{source}#{eye}")
    formula, built = counts(node)
    tower = getattr(theirs.model.model, eye)
    assert formula == built == sum(parameter.numel() for parameter in tower.parameters())
    if family(theirs).startswith("llava"):
        assert counts(configured(REGISTRY, "tiles/newline", f"{source}#image_newline")) == (theirs.model.model.image_newline.numel(),) * 2
    if family(theirs) == "idefics2":
        connector = theirs.model.model.connector
        for kind, part in (("projector/gated", "modality_projection"), ("resampler/grouped", "perceiver_resampler")):
            wanted = sum(parameter.numel() for parameter in getattr(connector, part).parameters())
            assert counts(configured(REGISTRY, kind, f"{source}#connector.{part}")) == (wanted, wanted)
    if family(theirs) == "internvl":
        projector = theirs.model.model.multi_modal_projector
        assert counts(configured(REGISTRY, "projector/mlp", f"{source}#multi_modal_projector")) == (
            sum(parameter.numel() for parameter in projector.parameters()),
        ) * 2  # fmt: skip


# -- what can go wrong -------------------------------------------------------------------------------------------------------------


def test_components_conform():
    grids, sizes = torch.tensor([[[1, 1], [1, 2]], [[1, 1], [1, 2]]]), torch.tensor([[[8, 8], [5, 10]], [[9, 9], [7, 14]]])
    tokens = [[torch.randn(4, 3) for _ in range(5)] for _ in range(2)]
    about = {"counts": torch.tensor([[2, 3], [2, 3]]), "grids": grids}
    lines = [[torch.randn(3)] * 5] * 2
    conform(Pack, {"width": 3}, tokens=tokens, newline=lines, sizes=sizes, **about)
    conform(Newline, {"width": 3})
    conform(Join, {"width": 3, "tile": "<{row}{column}>{image}", "line": "\n"}, tokens=tokens, **about)
    conform(Preprocess, {"cut": "shape", "tile": 8}, image=[[GALLERY["landscape"]], [GALLERY["grey"]]])


def test_the_parts_of_idefics_2_conform():
    pictures = [[picture(23, 14, seed=1)], [picture(23, 14, seed=2)]]  # of one size: where others are larger zeros stand behind
    conform(Preprocess, {"cut": "corners", "shortest": 8, "longest": 20, "patch_size": 3}, image=pictures)
    conform(Gated, {"in_features": 5, "out_features": 3, "hidden_features": 7})
    sizes = {"hidden_size": 10, "depth": 2, "num_heads": 4, "num_key_value_heads": 2, "head_dim": 3, "num_latents": 5}
    conform(Grouped, sizes, there=torch.tensor([[True, True, False], [True, False, False]]), media=torch.randn(2, 3, 10))


def test_shapes_are_of_a_tower_that_takes_them():
    with pytest.raises(ValueError, match="shapes is true, and the family clip takes whole pictures alone"):
        Encoder(shapes=True)


def test_one_picture_may_stand_for_a_list_of_one():
    config = {"cut": "grid", "tile": 8, "longest": 16}
    one, listed = (run_node(Preprocess, config, image=[given]) for given in (GALLERY["landscape"], [GALLERY["landscape"]]))
    torch.testing.assert_close(one["pixels"][0], listed["pixels"][0], rtol=0, atol=0)


def test_tiles_beyond_the_budget_are_refused():
    with pytest.raises(InputError, match=r"record 1 has 2 pictures of 6 tiles, and the budget is 5: show fewer or smaller pictures"):
        run_node(
            Preprocess, {"cut": "grid", "tile": 8, "longest": 16, "budget": 5}, image=[[GALLERY["square"]], [GALLERY["landscape"]] * 2]
        )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cut": "resolutions"}, "wants `resolutions`"),
        ({"cut": "resolutions", "tile": 16, "resolutions": [(16, 40)]}, "16 x 40, which is no whole number of tiles of 16"),
        ({"cut": "native", "shortest": 5}, "cut: native wants both `shortest` and `longest`"),
        ({"cut": "shape", "least_tiles": 5, "most_tiles": 4}, "least_tiles is 5, and most_tiles is 4"),
    ],
)
def test_ways_to_cut_that_cannot_be(config, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(**config)


def test_words_hold_the_picture_once():
    with pytest.raises(ValueError, match=r"single is '<img>', wanted a text that holds \{image\} once"):
        Join(single="<img>")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[torch.zeros(4, 3)] * 2], "record 0 has 2 tiles, and its pictures were cut into 3"),
        ([[torch.zeros(4, 3), ABSENT, torch.zeros(4, 3)]], "record 0 has no vectors of tile 2, for which an earlier node failed"),
        ([[torch.zeros(5, 3)] * 3], "got tiles of 5 vectors, wanted a square grid: a class token must be left out"),
    ],
)
def test_vectors_that_do_not_fit_their_pictures(tokens, message):
    about = {"counts": torch.tensor([[3]]), "grids": torch.tensor([[[1, 2]]]), "sizes": torch.tensor([[[5, 10]]])}
    with pytest.raises(InputError, match=message):
        run_node(Pack, {"width": 3}, tokens=tokens, newline=[[torch.zeros(3)] * 3], **about)


def test_a_file_that_says_what_cannot_be(tmp_path: Path):
    tiled.idefics3(tmp_path / "model")
    file = tmp_path / "model" / "processor_config.json"
    told = json.loads(file.read_text())
    for key, value, message in (
        ("image_processor_type", "OtherImageProcessor", "tiles/preprocess has no 'OtherImageProcessor'; it has"),
        ("size", {"height": 9, "width": 9}, r"has size {'height': 9, 'width': 9}, wanted {longest_edge}"),
    ):
        file.write_text(json.dumps({**told, "image_processor": {**told["image_processor"], key: value}}))
        with pytest.raises(ValueError, match=message):
            configured(REGISTRY, "tiles/preprocess", str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("make", "keys", "message"),
    [
        (gemma3, {"do_resize": False}, "has do_resize: false, and tiles/preprocess brings pictures of this kind to the size of a tile"),
        (tiled.llava_onevision, {"do_resize": False}, "has do_resize: false, and tiles/preprocess brings"),
        (
            tiled.llava_next,
            {"size": {"shortest_edge": 19}, "do_center_crop": False},
            "and tiles of 15 pixels: without do_center_crop they are not of one size",
        ),
    ],
    ids=["gemma3", "onevision", "next"],
)
def test_tiles_that_would_not_be_of_one_size_are_refused(tmp_path: Path, make, keys, message):
    """Before anything runs, wherever the image processor stands."""
    make(tmp_path / "model")
    alone, within = (tmp_path / "model" / name for name in ("preprocessor_config.json", "processor_config.json"))
    if alone.exists():
        alone.write_text(json.dumps({**json.loads(alone.read_text()), **keys}))
    else:
        told = json.loads(within.read_text())
        within.write_text(json.dumps({**told, "image_processor": {**told["image_processor"], **keys}}))
    with pytest.raises(ValueError, match=message):
        configured(REGISTRY, "tiles/preprocess", str(tmp_path / "model"))


def test_a_key_that_is_not_known_is_told(tmp_path: Path):
    tiled.smolvlm(tmp_path / "model")
    file = tmp_path / "model" / "processor_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "image_processor": {**told["image_processor"], "do_dither": True}}))
    node = configured(REGISTRY, "tiles/preprocess", str(tmp_path / "model"))
    assert [sentence for sentence, _ in Preprocess.unheeded(node.source) if "do_dither" in sentence]


def test_an_eye_whose_config_states_the_type_of_the_whole(tmp_path: Path):
    """As in the published files of Idefics 3; without a part it is refused still."""
    tiled.idefics3(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "vision_config": {**told["vision_config"], "model_type": "idefics3"}}))
    assert configured(REGISTRY, "vision/encoder", f"{tmp_path}/model#vision_model").config.family == "idefics3"
    with pytest.raises(ValueError, match="no tower for model_type 'idefics3'; its tower is the part vision_model"):
        configured(REGISTRY, "vision/encoder", f"{tmp_path}/model")


def test_a_list_of_one_layer_is_that_layer(tmp_path: Path):
    """Several are refused."""
    tiled.llava_next(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "vision_feature_layer": [-2]}))
    listed = configured(REGISTRY, "vision/encoder", f"{tmp_path}/model#vision_tower").config
    file.write_text(json.dumps({**told, "vision_feature_layer": -2}))
    assert listed == configured(REGISTRY, "vision/encoder", f"{tmp_path}/model#vision_tower").config
    file.write_text(json.dumps({**told, "vision_feature_layer": [-2, 1]}))
    with pytest.raises(ValueError, match=r"this checkpoint joins several: vision_feature_layer is \[-2, 1\]"):
        configured(REGISTRY, "vision/encoder", f"{tmp_path}/model#vision_tower")
