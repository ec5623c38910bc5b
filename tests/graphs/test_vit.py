"""ViT through its graphs: published sizes, layouts of others, real pictures, exports, and what is not taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform
from modelgraft_plugins import formats, vision
from modelgraft_plugins.vision import Encoder, Map
from support import checkpoints
from support.checkpoints import randomise
from support.open_part import configured, counts, open_part
from support.pictures import gallery

REGISTRY = assemble({"vision": vision, "formats": formats})
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32, elementwise
SIZES = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 4}

# parameters without the classifier: timm's tables of results less a head of 1,000 classes (Ti to H); for g, G and e summed by hand from
# the widths, layers and places of arXiv 2106.04560 and 2209.06794
PUBLISHED = {
    "vit-ti-16": 5_717_416 - 193 * 1000, "vit-s-16": 22_050_664 - 385 * 1000, "vit-b-16": 86_567_656 - 769 * 1000,
    "vit-b-32": 88_224_232 - 769 * 1000, "vit-l-16": 304_326_632 - 1025 * 1000, "vit-h-14": 632_045_800 - 1281 * 1000,
}  # fmt: skip
LARGE = {"vit-g-14": (1408, 6144, 40), "vit-G-14": (1664, 8192, 48), "vit-e-14": (1792, 15360, 56)}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_published_sizes_are_counted_to_the_unit(name: str, published: int):
    assert mg.plan(mg.load("vit", params={"checkpoint": f"preset:{name}"})).nodes["vision"].parameters.total == published


@pytest.mark.parametrize(("name", "sizes"), LARGE.items())
def test_the_largest_are_counted_as_their_papers_describe_them(name: str, sizes: tuple[int, int, int]):
    """Patches of 14, 256 places and the class token, blocks with biases everywhere, one norm behind them."""
    width, inner, layers = sizes
    block = 3 * (width * width + width) + (width * width + width) + (width * inner + inner) + (inner * width + width) + 4 * width
    wanted = 3 * 14 * 14 * width + width + width + 257 * width + layers * block + 2 * width
    assert mg.plan(mg.load("vit/features", params={"checkpoint": f"preset:{name}"})).totals.parameters == wanted


def test_the_smallest_preset_is_what_is_built():
    graph = mg.load("vit", params={"checkpoint": "preset:vit-ti-16"})
    assert mg.plan(graph).totals.parameters == mg.plan(graph, exact=True).totals.parameters == 5_717_416


@pytest.mark.parametrize(
    "config",
    [
        {"interpolate": True, "positions": "official"},
        {"interpolate": True, "positions": "timm", "image_size": (12, 20)},
        {"image_size": (12, 20)},
        {"pre_logits": 29},
    ],
)
def test_the_eye_keeps_its_declaration(config: dict):
    """Ways of interpolation, a table that is no square, and the layer before the classifier."""
    pixels = torch.randn(2, 3, 12, 20 if "image_size" in config or "interpolate" in config else 12)
    conform(Encoder, {"family": "vit", "image_size": 12, **SIZES, **config}, pixels=pixels)


def test_the_map_of_the_patches_keeps_its_declaration():
    conform(Map, {"patch_size": 4}, tokens=torch.randn(2, 15, 7), pixels=torch.randn(2, 3, 12, 20))


# -- layouts -------------------------------------------------------------------------------------------------------------------


def timm_folder(folder: Path, **pretrained: object) -> dict[str, torch.Tensor]:
    """A folder as timm pushes it to the hub, of a tiny variant with four classes; its head is drawn, the body is noise."""
    generator = torch.Generator().manual_seed(5)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / max(shape[-1], 1) ** 0.5

    state = {
        "cls_token": drawn(1, 1, 24), "pos_embed": drawn(1, 16, 24), "patch_embed.proj.weight": drawn(24, 3, 4, 4),
        "patch_embed.proj.bias": drawn(24), "norm.weight": drawn(24), "norm.bias": drawn(24), "head.weight": drawn(4, 24),
        "head.bias": drawn(4),
    }  # fmt: skip
    for block in range(2):
        shapes = {
            "norm1": (24,), "attn.qkv": (72, 24), "attn.proj": (24, 24), "norm2": (24,), "mlp.fc1": (37, 24), "mlp.fc2": (24, 37),
        }  # fmt: skip
        for name, shape in shapes.items():
            state |= {f"blocks.{block}.{name}.weight": drawn(*shape), f"blocks.{block}.{name}.bias": drawn(shape[0])}
    config = {
        "architecture": "vit_tiny_patch4_12", "num_classes": 4, "num_features": 24, "global_pool": "token",
        "model_args": {"img_size": [12, 20], "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3},
        "label_names": ["n1", "n2", "n3", "n4"], "label_descriptions": {"n1": "tench", "n2": "goldfish"},
        "pretrained_cfg": {
            "tag": "augreg", "input_size": [3, 12, 20], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "squash",
            "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], **pretrained,
        },
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, folder / "model.safetensors")
    return state


def test_a_folder_of_timm_says_its_classes_and_how_pictures_are_prepared(tmp_path: Path):
    """Names by their descriptions; a picture is squashed, and the middle of it taken, as timm does for an answer."""
    timm_folder(tmp_path)
    image = gallery()["landscape"]
    with mg.open("vit", params={"checkpoint": str(tmp_path)}) as pipeline:
        found = pipeline.run(image=image, outputs=["pixels.pixels", "answer.label"])
        assert found["answer.label"] in ("tench", "goldfish", "n3", "n4")
    whole = np.asarray(image.resize((int(20 / 0.9), int(12 / 0.9)), Image.Resampling.BICUBIC), np.float32) / 255
    middle = whole[0:12, 1:21]  # of 13 x 22: half of 1 rounds to 0, half of 2 is 1
    expected = (middle - np.array([0.5, 0.4, 0.3], np.float32)) / np.array([0.2, 0.3, 0.4], np.float32)
    torch.testing.assert_close(found["pixels.pixels"].reshape(3, 12, 20), torch.from_numpy(expected).permute(2, 0, 1), rtol=0.0, atol=1e-6)


def test_queries_keys_and_values_of_timm_are_told_apart(tmp_path: Path):
    """Against transformers filled by hand; the grid is 3 x 5."""
    state = timm_folder(tmp_path)
    config = hf.ViTConfig(**SIZES, image_size=(12, 20), layer_norm_eps=1e-6)
    model = hf.ViTModel(config, add_pooling_layer=False).eval()
    named = {
        "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed", "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias", "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    }  # fmt: skip
    wanted = {name: state[key] for name, key in named.items()}
    places = {"o_proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2", "layernorm_before": "norm1", "layernorm_after": "norm2"}
    for name in model.state_dict():
        if name in wanted:
            continue
        _, block, *_, module, kind = name.split(".")
        if module in ("q_proj", "k_proj", "v_proj"):
            wanted[name] = state[f"blocks.{block}.attn.qkv.{kind}"].chunk(3)["qkv".index(module[0])]
        else:
            wanted[name] = state[f"blocks.{block}.{places[module]}.{kind}"]
    model.load_state_dict(wanted)
    pixels = torch.randn(2, 3, 12, 20)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
    torch.testing.assert_close(open_part(REGISTRY, "vision/encoder", f"{tmp_path}#vit")(pixels)["tokens"], expected, **CLOSE)


def test_tensors_of_timm_alone_say_all_but_their_heads(tmp_path: Path):
    """Unless a published variant has their width; and nothing says how pictures are prepared, which is told."""
    timm_folder(tmp_path / "whole")
    state = load_file(tmp_path / "whole" / "model.safetensors")
    state["pos_embed"] = torch.cat([state["pos_embed"], state["pos_embed"][:, :1]], 1)  # of a square: 4 x 4
    save_file(state, tmp_path / "alone.safetensors")
    graph = mg.load("vit", params={"checkpoint": str(tmp_path / "alone.safetensors")})
    with pytest.raises(mg.GraphError, match="the files do not say how many heads share the width; say it with num_attention_heads"):
        mg.check(graph)
    path = tmp_path / "heads.yaml"
    path.write_text("modelgraft: 1\nextends: vit\nnodes.vision.with: {num_attention_heads: 3}\n")
    warnings = mg.check(mg.load(path, params={"checkpoint": str(tmp_path / "alone.safetensors")})).warnings
    assert any("nothing beside these tensors says how pictures are prepared" in str(warning) for warning in warnings)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda state, _: state.update({"blocks.0.ls1.gamma": torch.ones(24)}),
            "it has 1 tensors that such a model has not: blocks.0.ls1.gamma",
        ),
        (lambda _, config: config.update(global_pool="avg"), "the vision transformer here has no global_pool: 'avg'"),
        (lambda _, config: config.update(new_key=3), "the vision transformer here has no new_key: 3"),
        (lambda _, config: config["model_args"].update(img_size=16), "pictures of 16 x 16 have 16 patches of 4, its table 15"),
        (lambda state, _: state.pop("blocks.1.mlp.fc1.bias"), r"1 missing: tower\.layers\.1\.mlp\.fc1\.bias"),
        (lambda state, _: state.update({"norm.bias": torch.ones(23)}), r"tower\.layernorm\.bias is \[23\], wanted \[24\]"),
    ],
)
def test_weights_of_another_variant_are_named(change: object, told: str, tmp_path: Path):
    """Keys that differ, shapes that differ, words that mean another model."""
    state = timm_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(state, config)  # type: ignore[operator]
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(mg.ModelgraftError, match=told), mg.open("vit/features", params={"checkpoint": str(tmp_path)}) as pipeline:
        pipeline.run(image=gallery()["square"])


def test_a_body_without_a_head_is_its_own_part(tmp_path: Path):
    """As transformers saves a ViTModel; asked for a class, the graph names the part that is not there."""
    model = hf.ViTModel(hf.ViTConfig(**SIZES, image_size=12)).eval()
    randomise(model, seed=2)
    model.save_pretrained(tmp_path)
    hf.ViTImageProcessorPil(size={"height": 12, "width": 12}).save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        expected = model(pixels)
    torch.testing.assert_close(open_part(REGISTRY, "vision/encoder", f"{tmp_path}#vit")(pixels)["pooled"], expected[0][:, 0], **CLOSE)
    before = open_part(REGISTRY, "vision/encoder", f"{tmp_path}#vit", pre_logits=24)
    torch.testing.assert_close(before(pixels)["pooled"], expected.pooler_output, **CLOSE)
    formula, built = counts(before.node)
    assert formula == built
    with pytest.raises(mg.GraphError, match="has no part 'classifier'"):
        mg.check(mg.load("vit", params={"checkpoint": str(tmp_path)}))


def test_classes_of_a_checkpoint_that_have_one_name_are_told(tmp_path: Path):
    """Published tables hold two cranes: the bird and the machine."""
    checkpoints.vit(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = dict(enumerate(["crane", "goldfish", "crane", " ", "hen"]))
    (tmp_path / "config.json").write_text(json.dumps(config))
    warnings = mg.check(mg.load("vit", params={"checkpoint": str(tmp_path)})).warnings
    assert [str(warning) for warning in warnings if "'crane' (2 times), one without a name" in str(warning)]


# -- any size ------------------------------------------------------------------------------------------------------------------


def test_a_size_that_patches_do_not_divide_is_refused_before_anything_runs(tmp_path: Path):
    """With the nearest that they divide; and a tensor of such a size when it comes."""
    checkpoints.vit(tmp_path)
    graph = mg.load("vit/any_size", params={"checkpoint": str(tmp_path), "height": 40, "width": 24})
    with pytest.raises(mg.GraphError, match=r"gets pictures of 40 x 24 pixels .*patches of 6 do not divide\n *prepare them at 42 x 24"):
        mg.check(graph)
    eye = open_part(REGISTRY, "vision/encoder", f"{tmp_path}#vit", interpolate=True)
    with pytest.raises(mg.InputError, match="got pictures of 25 x 24 pixels"):
        eye(torch.zeros(1, 3, 25, 24))


def test_a_picture_of_another_size_is_classified_as_transformers_does(tmp_path: Path):
    theirs = checkpoints.vit(tmp_path)
    image = gallery()["portrait"]
    params = {"checkpoint": str(tmp_path), "height": 42, "width": 30}
    with mg.open("vit/any_size", params=params) as pipeline:
        found = pipeline.run(image=image, outputs=["pixels.pixels", "head.y"])
    with torch.no_grad():
        expected = theirs.model(found["pixels.pixels"].reshape(1, 3, 42, 30), interpolate_pos_encoding=True).logits
    torch.testing.assert_close(found["head.y"].reshape(1, -1), expected, **CLOSE)


@pytest.mark.parametrize("layer", [None, -2])
def test_patches_are_given_in_a_row_and_as_a_map(layer: int | None, tmp_path: Path):
    theirs = checkpoints.vit(tmp_path)
    params = {"checkpoint": str(tmp_path), "height": 24, "width": 30, "layer": layer}
    with mg.open("vit/patches", params=params) as pipeline:
        found = pipeline.run(image=gallery()["rgba"], outputs=["tokens", "map", "pixels.pixels"])
    with torch.no_grad():
        seen = theirs.model.vit(found["pixels.pixels"].reshape(1, 3, 24, 30), interpolate_pos_encoding=True, output_hidden_states=True)
    expected = (seen.last_hidden_state if layer is None else seen.hidden_states[layer])[0, 1:]
    torch.testing.assert_close(found["tokens"].reshape(20, -1), expected, **CLOSE)
    torch.testing.assert_close(found["map"].reshape(-1, 4, 5)[:, 2, 3], expected[2 * 5 + 3], **CLOSE)


def test_tokens_with_a_class_token_are_no_map():
    trial = open_part(REGISTRY, "vision/map", "preset:vit-ti-16")
    with pytest.raises(mg.InputError, match=r"got 197 tokens of a picture that has 14 x 14 patches of 16; a class token must be left out"):
        trial(torch.zeros(1, 197, 192), torch.zeros(1, 3, 224, 224))


# -- real pictures, exports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["vit", "vit/any_size", "vit/features", "vit/patches"])
def test_a_photograph_goes_through_every_graph(graph: str, tmp_path: Path):
    """With random weights: no trained ones are at hand."""
    data = pytest.importorskip("skimage.data", reason="the photographs ship with scikit-image")
    checkpoints.vit(tmp_path)
    sizes = {} if graph in ("vit", "vit/features") else {"height": 54, "width": 36}
    with mg.open(graph, params={"checkpoint": str(tmp_path), **sizes}) as pipeline:
        found = pipeline.run(image=Image.fromarray(data.astronaut()))
    assert all(torch.isfinite(value).all() for value in found.outputs.values() if isinstance(value, torch.Tensor))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["official", "hf", "timm"])
def test_an_export_takes_any_size_as_torch_does(way: str, tmp_path: Path):
    checkpoints.vit(tmp_path / "vit")
    path = tmp_path / "way.yaml"
    path.write_text(
        "modelgraft: 1\nextends: vit/patches\ninputs.image: null\ninputs.given: 'float[batch 3 height width]'\nnodes.pixels: null\n"
        f"nodes.vision.in.pixels: inputs.given\nnodes.map.in.pixels: inputs.given\nnodes.vision.with: {{positions: {way}}}\n"
    )
    pictures = [torch.randn(2, 3, *sides) for sides in ((18, 18), (30, 12), (6, 36))]
    answers = {}
    for backend in ("torch", "onnx"):
        with mg.open(path, params={"checkpoint": str(tmp_path / "vit")}, backend=backend) as pipeline:
            answers[backend] = [pipeline.run(given=one) for one in pictures]
    for ours, theirs in zip(answers["onnx"], answers["torch"], strict=True):
        for name in ("tokens", "map"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=0.0, atol=1e-4)  # of the parity gate in float32


def test_ways_of_interpolation_that_a_config_states_are_taken(tmp_path: Path):
    """The authors' files mean theirs, timm's mean timm's, transformers' its own."""
    assert configured(REGISTRY, "vision/encoder", "preset:vit-s-16#vit").config.positions == "official"
    assert configured(REGISTRY, "vision/encoder", "preset:vit-b-16#vit").config.positions == "hf"
    timm_folder(tmp_path)
    assert configured(REGISTRY, "vision/encoder", f"{tmp_path}#vit").config.positions == "timm"
