"""Pictures are prepared, and towers compute, exactly as transformers does; counts are those of the publications."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import InputError, SourceError
from modelgraft.sources.cards import AUTO
from modelgraft.sources.families import families
from modelgraft.testing import conform, open_node, run_node
from modelgraft_plugins import vision
from modelgraft_plugins.vision import Encoder, Preprocess, ResNet
from support import checkpoints
from support.checkpoints import Checkpoint
from support.open_part import configured, counts, open_part
from support.pictures import gallery, on_white, picture

REGISTRY: Registry = assemble({"vision": vision})
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
MODEL_TYPES = {kind: card for kind, card in families().of_medium("image").items() if card.style != AUTO}
STYLES = sorted({card.style for card in MODEL_TYPES.values()})
KINDS = ("clip", "siglip", "vit", "blip2", "llava")
TOWERS = {"clip": "vision_model", "siglip": "vision_model", "vit": "vit", "blip2": "vision_model", "llava": "vision_tower"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """A checkpoint of each family with an eye."""
    return {kind: getattr(checkpoints, kind)(tmp_path_factory.mktemp(kind)) for kind in KINDS}


def image_processor(checkpoint: Checkpoint) -> object:
    """transformers' own image processor of a checkpoint."""
    return getattr(checkpoint.processor, "image_processor", checkpoint.processor)


@pytest.mark.parametrize("name", gallery())
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_equal_to_those_of_transformers(saved: dict[str, Checkpoint], kind: str, name: str):
    """Every picture, whatever its shape and mode, gives the very pixels of the checkpoint's own image processor."""
    given = gallery()[name]
    theirs = given.convert("RGB") if kind == "vit" else given  # ViT's own processor stumbles over other modes, the others convert
    expected = image_processor(saved[kind])(theirs, return_tensors="pt")["pixel_values"]
    prepare = open_part(REGISTRY, "vision/preprocess", str(saved[kind].folder))
    assert torch.equal(prepare([given]), expected)
    assert prepare([given]).dtype == torch.float32


def test_what_is_transparent_becomes_white_where_the_checkpoint_converts(saved: dict[str, Checkpoint]):
    """Against the formula, pixel by pixel, up to one grey level of rounding; ViT leaves transparency out of account."""
    given = gallery()["rgba"]
    plain = {"do_resize": False, "do_rescale": False, "do_normalize": False, "size": {"height": 224, "width": 224}}
    for convert, expected in ((True, on_white(given)), (False, given.convert("RGB"))):
        prepared = run_node(Preprocess, {**plain, "do_convert_rgb": convert}, image=[given])["pixels"][0]
        wanted = torch.from_numpy(np.array(expected)).permute(2, 0, 1)
        assert (prepared - wanted).abs().max() <= (1 if convert else 0)
    assert configured(REGISTRY, "vision/preprocess", str(saved["clip"].folder)).config.do_convert_rgb
    assert not configured(REGISTRY, "vision/preprocess", str(saved["vit"].folder)).config.do_convert_rgb


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_pictures_is_prepared_like_each_alone(saved: dict[str, Checkpoint], kind: str):
    """Pictures of different sizes and modes become one tensor."""
    prepare = open_part(REGISTRY, "vision/preprocess", str(saved[kind].folder))
    pictures = list(gallery().values())
    assert torch.equal(prepare(pictures), torch.cat([prepare([one]) for one in pictures]))


def test_pictures_that_keep_their_shape_cannot_share_a_batch():
    """Without a crop the size depends on the picture; the message names the sizes."""
    prepare = open_node(Preprocess, {"size": {"shortest_edge": 12}}).loaded.call
    assert prepare([picture(30, 20), picture(60, 40)]).shape == (2, 3, 12, 18)
    with pytest.raises(InputError, match=r"these have 18x12, 12x24 after preparing"):
        prepare([picture(30, 20), picture(20, 40)])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 20, "crop_size": 18},
            ({"shortest_edge": 20}, {"height": 18, "width": 18}),
        ),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 20}, ({"height": 20, "width": 20}, None)),
        ({"image_processor_type": "BlipImageProcessorFast"}, ({"height": 384, "width": 384}, None)),
        ({"image_processor_type": "SiglipImageProcessor", "size": {"height": 9, "width": 8}}, ({"height": 9, "width": 8}, None)),
    ],
)
def test_old_and_silent_preprocessor_configs_are_understood(tmp_path: Path, written: dict, expected: tuple):
    """Sizes were one number once, names had other endings, and what a config leaves out has the default of its class."""
    folder = with_preprocessor(tmp_path, written)
    config = configured(REGISTRY, "vision/preprocess", str(folder)).config
    assert isinstance(config, Preprocess)
    assert (config.size, config.crop_size) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            {"image_processor_type": "SamImageProcessor"},
            "has no 'SamImageProcessor'; it has BitImageProcessor, BlipImageProcessor, CLIPImageProcessor",
        ),
        ({"image_processor_type": "CLIPImageProcessor", "do_pad": True}, "does not pad pictures"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 9}}, "the source has size {'longest_edge': 9}"),
    ],
)
def test_what_cannot_be_prepared_is_refused_by_name(tmp_path: Path, written: dict, message: str):
    """Another image processor, padding or another kind of size is an error and never left out in silence."""
    with pytest.raises(ValueError, match="vision/preprocess") as caught:
        configured(REGISTRY, "vision/preprocess", str(with_preprocessor(tmp_path, written)))
    assert message in str(caught.value)


def with_preprocessor(folder: Path, written: dict) -> Path:
    """A checkpoint folder with nothing but configs."""
    (folder / "config.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text(json.dumps(written))
    return folder


def reference(checkpoint: Checkpoint, kind: str, pixels: torch.Tensor) -> hf.utils.ModelOutput:
    """What transformers' own tower gives."""
    tower = {
        "clip": lambda: checkpoint.model.vision_model,
        "siglip": lambda: checkpoint.model.vision_model,
        "vit": lambda: checkpoint.model.vit,
        "blip2": lambda: checkpoint.model.vision_model,
        "llava": lambda: checkpoint.model.model.vision_tower,
    }[kind]()
    with torch.no_grad():
        return tower(pixels, output_hidden_states=True)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_pooled_equal_those_of_transformers(saved: dict[str, Checkpoint], kind: str):
    """The tower's own output and its pooled vector, element by element."""
    source = f"{saved[kind].folder}#{TOWERS[kind]}"
    eye = open_part(REGISTRY, "vision/encoder", source, layer=None, select="all")
    pixels = torch.randn(2, 3, eye.node.config.image_size, eye.node.config.image_size, generator=torch.Generator().manual_seed(1))
    expected = reference(saved[kind], kind, pixels)
    given = eye(pixels)
    pooled = expected.last_hidden_state[:, 0] if kind == "vit" else expected.pooler_output
    torch.testing.assert_close(given["tokens"], expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(given["pooled"], pooled, **CLOSE)


@pytest.mark.parametrize("layer", [-3, -2, -1, 0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_the_one_of_hidden_states(saved: dict[str, Checkpoint], kind: str, layer: int):
    """-2 is the last layer but one before any last norm; only eyes with a class token lose one by select: patches."""
    eye = open_part(REGISTRY, "vision/encoder", f"{saved[kind].folder}#{TOWERS[kind]}", layer=layer, select="patches")
    pixels = torch.randn(2, 3, eye.node.config.image_size, eye.node.config.image_size, generator=torch.Generator().manual_seed(2))
    hidden = reference(saved[kind], kind, pixels).hidden_states[layer]
    expected = hidden if kind == "siglip" else hidden[:, 1:]
    torch.testing.assert_close(eye(pixels), expected, **CLOSE)
    assert eye.outputs == {"tokens": f"float[batch {expected.shape[1]} {expected.shape[2]}]"}


def test_llava_says_itself_which_layer_and_tokens_it_takes(saved: dict[str, Checkpoint]):
    """The model around a tower decides layer and selection; nothing of it stands in the graph."""
    config = configured(REGISTRY, "vision/encoder", f"{saved['llava'].folder}#vision_tower").config
    assert isinstance(config, Encoder)
    assert (config.layer, config.select, config.tokens) == (-2, "patches", 9)


def test_an_eye_without_a_class_token_has_one_token_less(saved: dict[str, Checkpoint]):
    """27 by 27 patches: SigLIP gives 729 tokens, CLIP 730, and 729 without its class token."""
    sizes = {"image_size": 378, "patch_size": 14}
    assert Encoder(family="siglip", **sizes).tokens == 729
    assert Encoder(family="siglip", select="patches", **sizes).tokens == 729
    assert Encoder(family="clip", **sizes).tokens == 730
    assert Encoder(family="clip", select="patches", **sizes).tokens == 729


@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes_are_taken_on_request(saved: dict[str, Checkpoint], kind: str):
    """With interpolate the positions are those of transformers at a larger, oblong size, and the number of tokens is open."""
    eye = open_part(REGISTRY, "vision/encoder", f"{saved[kind].folder}#{TOWERS[kind]}", layer=None, select="all", interpolate=True)
    patch = eye.node.config.patch_size
    pixels = torch.randn(1, 3, 5 * patch, 6 * patch, generator=torch.Generator().manual_seed(3))
    given = eye(pixels)["tokens"]
    tower = eye.module.for_adapters().tower  # that of transformers
    with torch.no_grad():
        expected = tower(pixels, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(given, expected, **CLOSE)
    assert eye.outputs["tokens"] == f"float[batch tokens {eye.node.config.hidden_size}]"


def test_the_pixels_of_an_eye_carry_its_own_normalisation(saved: dict[str, Checkpoint]):
    """So that the checker sees pictures that were normalised for another eye."""
    eye = configured(REGISTRY, "vision/encoder", f"{saved['clip'].folder}#vision_model")
    other = configured(REGISTRY, "vision/preprocess", str(saved["siglip"].folder))
    wanted, given = eye.in_ports["pixels"].space, other.out_ports["pixels"].space
    assert wanted is not None
    assert given is not None
    assert [name for name, _, _ in wanted.differences(given)] == ["mean", "std"]


@pytest.mark.parametrize(("kind", "tower"), [("clip", "vision_model"), ("blip2", "vision_model"), ("llava", "vision_tower")])
def test_a_whole_model_where_a_tower_is_wanted_names_the_part(saved: dict[str, Checkpoint], kind: str, tower: str):
    """The message says which part to write."""
    with pytest.raises(ValueError, match=rf"its tower is the part {tower}: write #{tower} behind the source"):
        configured(REGISTRY, "vision/encoder", str(saved[kind].folder))


@pytest.mark.parametrize("kind", ["clip", "siglip", "blip2", "llava"])
def test_an_old_config_that_leaves_the_kind_of_tower_out_is_understood(saved: dict[str, Checkpoint], tmp_path: Path, kind: str):
    """The model around it says what it is."""
    written = json.loads((saved[kind].folder / "config.json").read_text())
    expected = configured(REGISTRY, "vision/encoder", f"{saved[kind].folder}#{TOWERS[kind]}").config
    del written["vision_config"]["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    found = configured(REGISTRY, "vision/encoder", f"{tmp_path}#{TOWERS[kind]}").config
    assert found.model_dump(exclude={"image_mean", "image_std"}) == expected.model_dump(exclude={"image_mean", "image_std"})


def test_a_tower_of_another_family_is_refused(tmp_path: Path):
    """The message lists the families that are served."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
    with pytest.raises(ValueError, match=r"no tower for model_type 'sam'; it serves (\w+, )*clip_vision_model, .*siglip_vision_model"):
        configured(REGISTRY, "vision/encoder", str(tmp_path))


def test_weights_that_do_not_fit_are_named(saved: dict[str, Checkpoint]):
    """One layer more than the checkpoint has: the missing tensors are named."""
    with pytest.raises(SourceError, match=r"16 missing: tower\.encoder\.layers\.3\."):
        open_part(REGISTRY, "vision/encoder", f"{saved['clip'].folder}#vision_model", num_hidden_layers=4)
    with pytest.raises(SourceError, match=r"16 left over: tower\.encoder\.layers\.2\."):
        open_part(REGISTRY, "vision/encoder", f"{saved['clip'].folder}#vision_model", num_hidden_layers=2)


@pytest.mark.parametrize("kind", sorted({*MODEL_TYPES} - {"mplug_owl_vision_model"}))  # which transformers does not know
def test_silent_configs_mean_what_transformers_means(kind: str):
    """The defaults of every family are those of transformers' own config class."""
    config = hf.AutoConfig.for_model(kind)
    card = MODEL_TYPES[kind]
    assert {word: getattr(config, {**card.names, "hidden_size": "hidden_size"}.get(word, word), 3) for word in card.defaults} == dict(
        card.defaults
    )


PUBLISHED = [
    (
        "clip",
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14},
        303_179_776,
    ),
    (
        "eva",
        {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16, "patch_size": 14},
        985_952_256,
    ),
    ("vit", {"hidden_size": 768, "intermediate_size": 3072, "patch_size": 16}, 85_798_656),
]


@pytest.mark.parametrize(("family", "sizes", "published"), PUBLISHED)
def test_counts_of_published_towers_are_right_to_the_unit(family: str, sizes: dict, published: int):
    """CLIP ViT-L/14, EVA ViT-g with 39 blocks, ViT-B/16."""
    assert Encoder(family=family, **sizes).parameters() == published


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula_counts_what_is_built(saved: dict[str, Checkpoint], kind: str):
    """On odd sizes, for every family, with and without its optional parts."""
    source = f"{saved[kind].folder}#{TOWERS[kind]}"
    for options in ({}, {"qkv_bias": False}, {"attention_head": False}):
        if kind in ("clip", "siglip", "llava") and "qkv_bias" in options:
            continue  # their queries, keys and values always have biases
        formula, built = counts(configured(REGISTRY, "vision/encoder", source, **options))
        assert formula == built


@pytest.mark.parametrize("family", STYLES)
def test_the_encoder_keeps_its_declaration(family: str):
    """Ports, repeatability, batches, count and saved state, at odd sizes."""
    sizes = {
        "hidden_size": 12,
        "intermediate_size": 19,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 21,
        "patch_size": 7,
    }
    conform(Encoder, {"family": family, **sizes})
    conform(Encoder, {"family": family, **sizes, "many": True})


def test_preprocess_converts_a_picture_with_palette_and_transparency():
    """A palette with transparency becomes RGB without a warning."""
    given = Image.new("P", (7, 5), 1)
    given.info["transparency"] = 0
    assert open_node(Preprocess).loaded.call([given]).shape == (1, 3, 224, 224)


def test_a_strip_that_would_fill_the_memory_is_refused():
    """One pixel by ten million is a small file; with its shorter side enlarged it is none."""
    prepare = open_node(Preprocess, {"size": {"shortest_edge": 15}}).loaded.call
    with pytest.raises(InputError, match=r"a picture of 1 x 10000000 becomes 15 x 150000000 .*, more than 100,000,000 pixels: crop it"):
        prepare([Image.new("L", (1, 10_000_000))])


def test_a_deviation_of_zero_is_refused():
    """Pixels cannot be divided by it."""
    with pytest.raises(ValueError, match="greater than 0"):
        Preprocess(image_std=(0.5, 0.0, 0.5))


@given(st.tuples(*[st.integers(1, 11)] * 4))
def test_a_crop_of_any_size_is_that_of_transformers(sizes: tuple[int, int, int, int]):
    """Also where the picture is smaller than the crop, and where what is over or lacking is odd."""
    had, across, height, width = sizes
    pixels = np.random.default_rng(0).integers(1, 255, (had, across, 3), dtype=np.uint8)
    config = {"do_resize": False, "do_rescale": False, "do_normalize": False, "do_center_crop": True}
    prepare = open_node(Preprocess, {**config, "crop_size": {"height": height, "width": width}}).loaded.call
    expected = hf.image_transforms.center_crop(pixels, (height, width), input_data_format="channels_last")
    assert np.array_equal(prepare([Image.fromarray(pixels)])[0].transpose(1, 2, 0), expected)


def test_normalising_by_nothing_is_refused():
    """Without a mean there is nothing to subtract."""
    with pytest.raises(InputError, match="do_normalize needs image_mean and image_std; give both, or set do_normalize: false"):
        open_node(Preprocess, {"image_mean": None})


def test_lists_of_pictures_are_filled_up_with_empty_ones():
    """Each picture as it is prepared alone; records that have fewer end with zeros."""
    size = {"size": {"height": 6, "width": 5}}
    one, many = open_node(Preprocess, size).loaded.call, open_node(Preprocess, {**size, "many": True}).loaded.call
    first, second, third = picture(30, 20), picture(20, 40), picture(9, 9)
    found = many([[first, second], [], [third]])
    assert found.shape == (3, 2, 3, 6, 5)
    assert np.array_equal(found[0], one([first, second]))
    assert np.array_equal(found[2, 0], one([third])[0])
    assert not found[1].any()
    assert not found[2, 1].any()
    with pytest.raises(InputError, match="no record has a picture: give at least one"):
        many([[], []])


def test_the_residual_network_keeps_its_declaration():
    """Ports, repeatability, batches, count and saved state, with and without a map behind the attention."""
    conform(ResNet, {"layers": (1, 2, 1, 1), "width": 2, "num_attention_heads": 4, "image_size": 64})
    conform(ResNet, {"layers": (1, 1, 1, 2), "width": 4, "num_attention_heads": 2, "image_size": 32, "projection_size": 5})
