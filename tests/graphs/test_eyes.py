"""Eyes that are one card each: equal to transformers element by element, and graphs that run as `modelgraft import` writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

import modelgraft as mg
from modelgraft.tools.importer import import_graph
from support import checkpoints
from support.checkpoints import randomise
from support.installed import registry
from support.open_part import configured, counts, open_part
from support.pictures import picture

REGISTRY = registry()
SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 5}
INNER = {**SIZES, "intermediate_size": 37}
DEALT = {**INNER, "num_attention_heads": 2, "image_size": 15}  # heads of a multiple of four, which rotations in two directions need
OBLONG, SQUARE = (2, 3, 15, 20), (2, 3, 15, 15)


def bit() -> Any:
    return BitImageProcessorPil(size={"shortest_edge": 17}, crop_size={"height": 15, "width": 15})


def clip() -> Any:
    return CLIPImageProcessorPil(size={"shortest_edge": 17}, crop_size={"height": 15, "width": 15})


def patches() -> Any:
    return Siglip2ImageProcessorPil(max_num_patches=14, patch_size=5, do_convert_rgb=True)


@dataclass(frozen=True)
class Row:
    """A family: its model with tiny weights, its processor, the pixels that it takes, and what it gives.

    lead  tokens that are no patches;  tokens  their number, where the declaration knows it;  part  of a whole
    """

    model: Callable[[], Any]
    processor: Callable[[], Any]
    pixels: tuple[int, ...]
    lead: int = 0
    tokens: int | None = None
    pooled: bool = True
    part: str = ""


def dinov3(**facts: Any) -> Any:
    return hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**DEALT, **facts))


def aimv2_whole() -> Any:
    text = {"hidden_size": 18, "intermediate_size": 29, "num_hidden_layers": 1, "num_attention_heads": 3, "vocab_size": 31}
    return hf.Aimv2Model(hf.Aimv2Config(text_config=text, vision_config={**INNER, "image_size": 15}, projection_dim=13))


def siglip2_whole() -> Any:
    text = {"hidden_size": 24, "intermediate_size": 29, "num_hidden_layers": 1, "num_attention_heads": 3, "vocab_size": 31}
    return hf.Siglip2Model(hf.Siglip2Config(text_config=text, vision_config={**INNER, "num_patches": 16}))


ROWS: dict[str, Row] = {
    "dinov2": Row(lambda: hf.Dinov2Model(hf.Dinov2Config(**SIZES, image_size=25)), bit, OBLONG, lead=1),
    "dinov2, gated": Row(lambda: hf.Dinov2Model(hf.Dinov2Config(**SIZES, image_size=25, use_swiglu_ffn=True)), bit, OBLONG, lead=1),
    "dinov2 with registers": Row(
        lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**SIZES, image_size=20, num_register_tokens=3)),
        bit,
        OBLONG,
        lead=4,
    ),
    "dinov3": Row(lambda: dinov3(num_register_tokens=2), bit, OBLONG, lead=3),
    "dinov3, gated": Row(lambda: dinov3(num_register_tokens=1, use_gated_mlp=True, key_bias=True, mlp_bias=False), bit, OBLONG, lead=2),
    "aimv2": Row(lambda: hf.Aimv2VisionModel(hf.Aimv2VisionConfig(**INNER, image_size=15)), clip, SQUARE, tokens=9),
    "aimv2, native, without a head": Row(
        lambda: hf.Aimv2VisionModel(hf.Aimv2VisionConfig(**INNER, image_size=15, is_native=True, use_head=False)),
        clip,
        OBLONG,
        pooled=False,
    ),
    "aimv2 in a whole": Row(aimv2_whole, clip, SQUARE, tokens=9, part="vision_model"),
    "siglip2": Row(lambda: hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**INNER, num_patches=16)), patches, OBLONG),
    "siglip2 in a whole": Row(siglip2_whole, patches, OBLONG, part="vision_model"),
}  # fmt: skip


@pytest.fixture(scope="module", params=ROWS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Row, Any, Path]:
    """A row with its model, and the folder that transformers saved it to."""
    row, folder = ROWS[request.param], tmp_path_factory.mktemp("eye")
    model = row.model()
    randomise(model, seed=7)
    model.eval().save_pretrained(folder)
    row.processor().save_pretrained(folder)
    return row, getattr(model, row.part) if row.part else model, folder


def source(row: Row, folder: Path) -> str:
    return f"{folder}#{row.part}" if row.part else str(folder)


def theirs(eye: Any, pixels: torch.Tensor) -> Any:
    """What transformers' own tower gives; SigLIP 2 wants its patches in a row."""
    with torch.no_grad():
        if eye.config.model_type != "siglip2_vision_model":
            return eye(pixels, output_hidden_states=True)
        batch, _, height, width = pixels.shape
        side = eye.config.patch_size
        rows = [
            torch.stack(
                [
                    one[:, y : y + side, x : x + side].permute(1, 2, 0).flatten()
                    for y in range(0, height, side)
                    for x in range(0, width, side)
                ]
            )
            for one in pixels
        ]
        mask = torch.ones(batch, len(rows[0]), dtype=torch.int64)
        return eye(torch.stack(rows), mask, torch.tensor([[height // side, width // side]] * batch), output_hidden_states=True)


CLOSE = {"rtol": 0.0, "atol": 3e-6}  # numbers up to 2, summed in another order where patches are cut elsewhere, which differs by processor


def noise(row: Row) -> torch.Tensor:
    return torch.randn(row.pixels, generator=torch.Generator().manual_seed(5))


def test_tokens_and_pooled_are_those_of_transformers(saved):
    row, eye, folder = saved
    given, expected = open_part(REGISTRY, "vision/encoder", source(row, folder))(noise(row)), theirs(eye, noise(row))
    tokens = given["tokens"] if row.pooled else given
    torch.testing.assert_close(tokens, expected.last_hidden_state, **CLOSE)
    if row.pooled:
        torch.testing.assert_close(given["pooled"], expected.pooler_output, **CLOSE)


@pytest.mark.parametrize("layer", [-2, -1, 0, 1])
def test_every_layer_is_the_one_of_hidden_states_without_what_is_no_patch(saved, layer: int):
    row, eye, folder = saved
    given = open_part(REGISTRY, "vision/encoder", source(row, folder), layer=layer, select="patches")(noise(row))
    torch.testing.assert_close(given, theirs(eye, noise(row)).hidden_states[layer][:, row.lead :], rtol=0, atol=1e-6)


def test_ports_and_counts_are_known_without_building(saved):
    row, eye, folder = saved
    node = configured(REGISTRY, "vision/encoder", source(row, folder))
    count = "tokens" if row.tokens is None else row.tokens
    pooled = {"pooled": "float[batch 24]"} if row.pooled else {}
    assert {name: str(port) for name, port in node.out_ports.items()} == {"tokens": f"float[batch {count} 24]", **pooled}
    open_part(REGISTRY, "vision/encoder", source(row, folder))  # after which a count without a formula is remembered
    assert counts(node) == (sum(each.numel() for each in eye.parameters()),) * 2


def test_an_imported_graph_sees_what_transformers_sees(tmp_path: Path, saved):
    """Processor and tower of the folder, from a picture to its vectors."""
    row, eye, folder = saved
    path = tmp_path / "eye.yaml"
    path.write_text(import_graph(str(folder), folder=tmp_path))
    assert not mg.check(path).warnings
    image = picture(31, 23)
    prepared = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")(image, return_tensors="pt")
    with torch.no_grad():
        expected = eye(**prepared)
    with mg.open(path) as pipeline:
        result = pipeline.run(image=image)
    there = int(prepared["spatial_shapes"].prod()) if "spatial_shapes" in prepared else None  # the others fill up
    torch.testing.assert_close(result["tokens"], expected.last_hidden_state[:, :there], rtol=0, atol=1e-5)
    if row.pooled:
        torch.testing.assert_close(result["pooled"], expected.pooler_output, rtol=0, atol=1e-5)


def test_a_picture_that_is_no_whole_patches_is_refused(tmp_path: Path):
    model = ROWS["siglip2"].model()
    model.save_pretrained(tmp_path)
    eye = open_part(REGISTRY, "vision/encoder", str(tmp_path))
    with pytest.raises(mg.InputError, match=r"15 x 16 pixels \(height x width\), which patches of 5 do not divide"):
        eye(torch.zeros(1, 3, 15, 16))


@pytest.mark.slow
def test_on_onnx_an_eye_sees_the_same(tmp_path: Path, saved):
    """Exported once, also where pictures may have any size: what is tried are whole patches."""
    row, _, folder = saved
    path = tmp_path / "eye.yaml"
    path.write_text(import_graph(str(folder), folder=tmp_path))
    with mg.open(path) as plain, mg.open(path, backend="onnx") as exported:
        for image in (picture(31, 23), picture(19, 40)):
            wanted, given = plain.run(image=image), exported.run(image=image)
            for name in ("tokens", "pooled") if row.pooled else ("tokens",):
                torch.testing.assert_close(given[name], wanted[name], rtol=0, atol=1e-4)


def test_open_sizes_of_examples_are_whole_patches(saved):
    """So that a gate of 16 pixels to a patch is not tried with five."""
    row, _, folder = saved
    times = configured(REGISTRY, "vision/encoder", source(row, folder)).config.multiples()
    assert times == ({} if row.pixels == SQUARE else {"height": 5, "width": 5})


TALKS = """
modelgraft: 1
name: talks
params: {eye: null, tongue: null}
inputs: {image: image, prompt: text}
nodes:
  pixels:  {use: vision/preprocess, from: "${eye}", in: {image: inputs.image}}
  vision:  {use: vision/encoder, from: "${eye}", with: {layer: -2, select: patches}, in: {pixels: pixels}, frozen: true}
  project: {use: projector/mlp, in: {x: vision}}
  llm:
    use: llm/causal
    from: "${tongue}"
    with: {prompt: "{image}{prompt}", max_new_tokens: 5}
    in: {image: project, prompt: inputs.prompt}
outputs: {text: llm.text}
"""


@pytest.mark.parametrize("name", ["dinov2", "dinov2 with registers", "dinov3"])
def test_an_eye_that_learned_from_pictures_alone_stands_before_a_language_model(tmp_path: Path, name: str):
    """Without its class token and registers, through a projector whose widths are solved: what the language model reads is its patches."""
    row = ROWS[name]
    model = row.model()
    randomise(model, seed=7)
    model.eval().save_pretrained(tmp_path / "eye")
    row.processor().save_pretrained(tmp_path / "eye")
    checkpoints.llama(tmp_path / "tongue")
    path = tmp_path / "talks.yaml"
    path.write_text(TALKS)
    wanted = theirs(model, open_part(REGISTRY, "vision/preprocess", str(tmp_path / "eye"))([picture(31, 23)])).hidden_states[-2]
    with mg.open(path, params={"eye": str(tmp_path / "eye"), "tongue": str(tmp_path / "tongue")}, init="random") as pipeline:
        result = pipeline.run(image=picture(31, 23), prompt="a cat", outputs=["vision", "llm.prompt_ids", "text"])
    torch.testing.assert_close(result["vision"], wanted[:, row.lead :], rtol=0, atol=1e-5)
    assert (result["llm.prompt_ids"] == -1).sum() == 9
