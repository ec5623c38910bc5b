"""Whatever a file says about pictures, and wherever it is silent, pixels are those of transformers' own image processor."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.processing_utils import ImagesKwargs

from modelgraft.installed.discovery import assemble
from modelgraft.kernel.words.errors import InputError, SourceError
from modelgraft.records.pictures import PICTURE_PIXELS
from modelgraft.sources.families import families
from modelgraft_plugins import processor_files, vision
from modelgraft_plugins.pictures import IDLE, KEYS, MOST_PIXELS
from modelgraft_plugins.vision import Preprocess
from support.open_part import configured, open_part
from support.pictures import gallery, on_white, picture

REGISTRY = assemble({"vision": vision})
ELSEWHERE = {"DINOv3ViT"}  # its class wants torchvision: see test_pixels_that_are_not_rounded
PROCESSORS = {name: card for name, card in families().pictures.items() if name not in ELSEWHERE}
BY_MODEL = {kind: whole.pictures for kind, whole in families().wholes.items() if whole.pictures in PROCESSORS}
OLD = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "size": 9}


def folder(path: Path, *, config: Any = None, **files: Any) -> Path:
    """A checkpoint folder with nothing but configs."""
    for name, content in {"config": config or {"model_type": "clip"}, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def ours(path: Path, image: Any) -> torch.Tensor:
    found = open_part(REGISTRY, "vision/preprocess", str(path))
    pixels = found([image])
    return pixels if found.node.config.max_num_patches is None else cut(pixels, found.node.config.patch_size)


def cut(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """A picture in whole patches, row by row: float[1 patches values], the colours of a pixel innermost."""
    rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
    patches = [
        pixels[0, :, row * side : (row + 1) * side, column * side : (column + 1) * side].permute(1, 2, 0).flatten()
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.stack(patches)[None]


def theirs(path: Path, image: Any) -> torch.Tensor:
    found = hf.AutoImageProcessor.from_pretrained(path, backend="pil")(image, return_tensors="pt")
    if not isinstance(found, torch.Tensor) and "spatial_shapes" in found:  # without the empty patches that fill them up
        return found["pixel_values"][:, : int(found["spatial_shapes"].prod())]
    return found if isinstance(found, torch.Tensor) else found["pixel_values"]  # IDEFICS' own gives them alone


def class_of(name: str) -> Any:
    return getattr(hf, f"{name}ImageProcessorPil")


WRITTEN: dict[str, dict[str, Any]] = {
    "silent": {},
    "one number": {"size": 13},
    "one number, a square": {"size": 13, "default_to_square": True},
    "one number, the shorter side": {"size": 13, "default_to_square": False},
    "a pair": {"size": [11, 14], "crop_size": [9, 10], "do_center_crop": True},
    "named": {"size": {"height": 12, "width": 17}, "crop_size": 10, "do_center_crop": True},
    "null is no": {"do_resize": None, "size": 13, "do_center_crop": None, "crop_size": None, "do_convert_rgb": None},
    "null is no number": {
        "size": 13,
        "do_rescale": None,
        "rescale_factor": None,
        "do_normalize": None,
        "image_mean": None,
        "image_std": None,
    },
    "null is not square": {"size": 13, "default_to_square": None},
    "one mean for all colours": {"size": 13, "image_mean": 0.4, "image_std": 0.3},
    "another filter and scale": {"size": 13, "resample": 1, "rescale_factor": 0.01},
    "no normalising": {"size": 13, "do_normalize": False, "do_center_crop": False},
    "bytes as they are": {"size": 13, "do_rescale": False},
    "a size as IDEFICS says it": {"size": 13, "image_size": 9},
    "keys of other classes": {"size": 13, "image_size": 7, "use_square_size": True, "crop_pct": 0.9, "_valid_processor_keys": ["x"]},
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_of_every_class_are_those_of_transformers(tmp_path: Path, name: str, written: str):
    path = folder(tmp_path, preprocessor_config={"image_processor_type": f"{name}ImageProcessor", **WRITTEN[written]})
    image = (
        picture(48, 32) if "patches" in PROCESSORS[name].own.values() else picture(31, 23)
    )  # whole patches, also where it is not resized
    assert torch.equal(ours(path, image), theirs(path, image))


@pytest.mark.parametrize("name", gallery())
@pytest.mark.parametrize("mean", [[0.4, 0.5, 0.6], [0.0, 0.999, 0.25]])
def test_a_picture_is_filled_up_to_a_square_as_by_transformers(tmp_path: Path, name: str, mean: list[float]):
    """With the colour of the mean, in pictures of every shape."""
    written = {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "size": 13, "crop_size": 13, "image_mean": mean}
    path = folder(tmp_path, preprocessor_config=written)
    assert torch.equal(ours(path, gallery()[name]), theirs(path, on_white(gallery()[name])))


def test_a_strip_that_would_fill_the_memory_is_refused(tmp_path: Path):
    path = folder(tmp_path, preprocessor_config={"image_processor_type": "LlavaImageProcessor", "do_pad": True})
    with pytest.raises(InputError, match="becomes 99999 x 99999 when it is filled up to a square"):
        ours(path, Image.new("RGB", (99_999, 1)))


@pytest.mark.parametrize(
    "entry", [OLD, {**OLD, "image_processor_type": "ViTImageProcessor"}, {}, None], ids=["clip", "vit", "empty", "null"]
)
def test_the_image_processor_of_a_processor_goes_over_the_older_file(tmp_path: Path, entry: Any):
    """A folder that transformers 5 saved over an older one has both files."""
    older = {"image_processor_type": "CLIPImageProcessor", "size": 7, "crop_size": 7, "image_mean": [0.1, 0.2, 0.3]}
    path = folder(tmp_path, preprocessor_config=older, processor_config={"image_processor": entry, "processor_class": "CLIPProcessor"})
    image = picture(31, 23)
    assert torch.equal(ours(path, image), theirs(path, image))


def test_a_processor_without_an_image_processor_leaves_it_to_the_other_file(tmp_path: Path):
    path = folder(tmp_path, preprocessor_config=OLD, processor_config={"image_token": "<image>", "video_processor": {"size": 3}})
    assert torch.equal(ours(path, picture(31, 23)), theirs(path, picture(31, 23)))


@pytest.mark.parametrize("model", sorted(set(BY_MODEL) & set(IMAGE_PROCESSOR_MAPPING_NAMES)))  # the library does not have all
def test_a_file_that_names_no_class_means_that_of_the_model(model: str):
    assert class_of(BY_MODEL[model]).__name__ == IMAGE_PROCESSOR_MAPPING_NAMES[model]["pil"]


def test_every_model_with_a_class_that_is_served_is_known():
    served = {f"{name}ImageProcessorPil" for name in PROCESSORS}
    wanted = {model for model, classes in IMAGE_PROCESSOR_MAPPING_NAMES.items() if classes.get("pil") in served}
    assert wanted == set(BY_MODEL) & set(IMAGE_PROCESSOR_MAPPING_NAMES)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_table_holds_what_a_class_does_by_itself(name: str):
    """A change of a default in the library fails here."""
    processor, known = class_of(name)(), PROCESSORS[name]
    for key, value in known.defaults.items():
        found = getattr(processor, key)
        if key in ("size", "crop_size") and found is not None:
            found = {side: pixels for side, pixels in dict(found).items() if pixels is not None}
        assert found == value or (found is None and value is False), key
    assert class_of(name).default_to_square == known.is_square


@pytest.mark.parametrize("name", PROCESSORS)
def test_every_key_of_a_class_is_heeded_idle_or_refused(name: str):
    """A new key of the library fails here until it is known what it does."""
    keys = {*ImagesKwargs.__annotations__, *class_of(name).valid_kwargs.__annotations__} - {"transform"}  # code, which no file holds
    assert keys <= {*KEYS, *PROCESSORS[name].own, *IDLE, *processor_files.BOOKKEEPING}


@pytest.mark.parametrize("size", [(31, 23), (9, 40)])
def test_pixels_that_are_not_rounded(tmp_path: Path, size: tuple[int, int]):
    """DINOv3: numbers first, then the size, then the mean, in the operations that its class takes from torch."""
    path = folder(
        tmp_path, preprocessor_config={"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 14, "width": 17}}
    )
    image = picture(*size)
    numbers = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None] / 255
    resized = torch.nn.functional.interpolate(numbers, (14, 17), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(ours(path, image), (resized - mean) / std, rtol=0, atol=1e-5)
    rounded = open_part(REGISTRY, "vision/preprocess", str(path), rounds=True)([image])
    assert (rounded - (resized - mean) / std).abs().max() > 1e-3


def test_a_key_that_nothing_knows_is_told(tmp_path: Path):
    path = folder(tmp_path, preprocessor_config={**OLD, "aspect_ratio_setting": "anyres", "crop_pct": 0.9})
    source = configured(REGISTRY, "vision/preprocess", str(path)).source
    assert source is not None
    ((sentence, _),) = Preprocess.unheeded(source)
    assert sentence == f"{path}/preprocessor_config.json states aspect_ratio_setting, crop_pct, which vision/preprocess does not read"


PROCESSOR_CLASSES = (
    "Llava",
    "Blip2",
    "InstructBlip",
    "CLIP",
    "ChineseCLIP",
    "Siglip",
    "Idefics",
    "Blip",
    "Whisper",
    "Kosmos2",
    "Qwen2Audio",
    "PaliGemma",
)


@pytest.mark.parametrize("name", PROCESSOR_CLASSES)
def test_every_setting_of_a_processor_is_known(name: str):
    """A new one of the library fails here until it is known what it does."""
    settings = set(inspect.signature(getattr(hf, f"{name}Processor").__init__).parameters) - {"self", "kwargs"}
    assert settings <= processor_files.OF_PROCESSORS


def test_a_setting_of_a_processor_that_nothing_knows_is_told(tmp_path: Path):
    path = folder(tmp_path, preprocessor_config=OLD, processor_config={"image_token": "<image>", "patch_size": 14, "tile_size": 7})
    source = configured(REGISTRY, "vision/preprocess", str(path)).source
    assert source is not None
    assert [sentence for sentence, _ in Preprocess.unheeded(source)] == [
        f"{path}/processor_config.json states tile_size, which nothing reads"
    ]


def test_published_files_hold_no_key_that_is_unknown():
    """Nor do those of the shipped presets: their graphs are checked without a warning."""
    from modelgraft.installed.discovery import discover

    registry = discover()
    for name in registry.recorded_configs:
        node_source = configured_source(registry, name)
        if node_source is not None:
            assert list(Preprocess.unheeded(node_source)) == []


def configured_source(registry: Any, name: str) -> Any:
    try:
        return configured(registry, "vision/preprocess", name).source
    except ValueError:  # it has no picture to prepare
        return None


BAD: list[Any] = [[], {}, "x", "true", -1, 0.5, True, [1, 2, 3, 4], {"height": "a"}, float("nan"), 10**30, [[1, 2]], {"shortest_edge": -3}]


@pytest.mark.parametrize("key", sorted(KEYS))
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_value_of_another_kind_is_refused_by_file_and_key_or_has_a_meaning(tmp_path: Path, key: str, value: Any):
    """No value of a wild file ends in anything but a sentence that names the key."""
    path = folder(tmp_path, preprocessor_config={"image_processor_type": "CLIPImageProcessor", key: value})
    try:
        configured(REGISTRY, "vision/preprocess", str(path))
    except (SourceError, ValueError) as error:
        assert key in str(error) or "ImageProcessor" in str(error) or "size" in str(error)  # noqa: PT017 either way is right


@pytest.mark.parametrize("entry", [[], "CLIPImageProcessor", 3])
def test_an_entry_that_is_no_mapping_is_refused_by_its_place(tmp_path: Path, entry: Any):
    path = folder(tmp_path, preprocessor_config=OLD, processor_config={"image_processor": entry})
    with pytest.raises(SourceError, match=r"processor_config\.json \(image_processor\) is .*, wanted a mapping"):
        configured(REGISTRY, "vision/preprocess", str(path))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("size", {"height": 5}, "wanted {height, width} or {shortest_edge}"),
        ("size", {"height": 0, "width": 5}, "in pixels above 0"),
        ("size", {"shortest_edge": 10**9}, "more than 100,000,000 pixels"),
        ("crop_size", {"shortest_edge": 5}, "wanted {height, width}"),
        ("image_mean", (0.5,), "wanted one for red, green and blue each"),
        ("resample", 9, "less than or equal to 5"),
    ],
)
def test_what_no_picture_can_be_is_refused_with_the_check(field: str, value: Any, said: str):
    with pytest.raises(ValueError, match=said.replace("{", r"\{")):
        Preprocess(**{field: value})


def test_a_prepared_picture_may_have_as_many_pixels_as_one_that_is_read():
    assert MOST_PIXELS == PICTURE_PIXELS


@pytest.mark.parametrize(
    ("switch", "key"), [("do_resize", "size"), ("do_resize", "resample"), ("do_center_crop", "crop_size"), ("do_normalize", "image_std")]
)
def test_a_step_without_its_numbers_is_refused(tmp_path: Path, switch: str, key: str):
    path = folder(tmp_path, preprocessor_config={"image_processor_type": "CLIPImageProcessor", switch: True, key: None})
    with pytest.raises(ValueError, match=f"has {switch} and no {key}"):
        configured(REGISTRY, "vision/preprocess", str(path))
