"""Eyes whose graphs are put together from their tensors, against transformers and other code: every kind, precision and layer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import modelgraft as mg
from modelgraft.engine.modules.signatures import Signature
from modelgraft.kernel.words.ports import port
from modelgraft.records.arrays import as_tensor
from modelgraft_plugins.efficientnet import EfficientNet
from modelgraft_plugins.efficientnet.modules import EfficientNet as EfficientNetModule
from modelgraft_plugins.onnx import plain as exports
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import flat, open_fresh
from modelgraft_plugins.onnx.put_together import writing_of
from modelgraft_plugins.vision import Encoder, plain_kinds
from modelgraft_plugins.vision.modules import Encoder as Eye
from support.checkpoints import randomise

pytestmark = pytest.mark.slow  # it exports

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 15, "patch_size": 5}
WIDE = {**SIZES, "intermediate_size": 37}
KINDS: dict[str, Any] = {
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**WIDE), add_pooling_layer=False),
    "vit, no biases": lambda: hf.ViTModel(hf.ViTConfig(**WIDE, qkv_bias=False, hidden_act="relu"), add_pooling_layer=False),
    "vit, an inner width of whole pages": lambda: hf.ViTModel(hf.ViTConfig(**{**WIDE, "intermediate_size": 1024}), add_pooling_layer=False),
    "clip": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**WIDE)),
    "clip, gelu": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**WIDE, hidden_act="gelu")),
    "siglip": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**WIDE)),
    "siglip, no head": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**WIDE, vision_use_head=False)),
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**SIZES, mlp_ratio=2)),
    "dinov2, no mask token": lambda: hf.Dinov2Model(hf.Dinov2Config(**SIZES, mlp_ratio=2, use_mask_token=False)),
}
GRAPH = """
modelgraft: 1
name: seeing
inputs: {{pixels: "float[batch 3 {sides}]"}}
nodes: {{eye: {{use: vision/encoder, from: "./{folder}", with: {{{given}}}, in: {{pixels: inputs.pixels}}}}}}
outputs: {outputs}
"""
FAR = {"float32": 1e-5, "float16": 5e-3, "int8": 0.1, "w8": 0.05, "w4": 0.6}  # over the largest number: random weights of tiny towers


def saved(name: str, folder: Path) -> Any:
    """A tower of transformers in a folder."""
    torch.manual_seed(0)
    model = KINDS[name]().eval()
    randomise(model, seed=5)
    model.save_pretrained(folder)
    return model


def seen(folder: Path, pixels: torch.Tensor, *, backend: str, precision: str | None = None, given: str = "", pooled: bool = True) -> Any:
    """What the component gives, and the manifest of its export."""
    sides = "height width" if "interpolate" in given or "dinov2" in folder.name else "15 15"
    outputs = "{tokens: eye.tokens, pooled: eye.pooled}" if pooled else "{tokens: eye.tokens}"
    path = folder / "seeing.yaml"
    path.write_text(GRAPH.format(folder=".", sides=sides, given=given, outputs=outputs), encoding="utf-8")
    with mg.open(mg.load(path), backend=backend, precision=precision) as pipeline:
        found = pipeline.run(pixels=pixels)
        exported = pipeline.backend("onnx").exports.get("eye") if backend == "onnx" else None
        return found, exported.manifest if exported is not None else {}


def wanted(model: Any, pixels: torch.Tensor, layer: int | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What transformers gives."""
    with torch.no_grad():
        found = model(pixels, output_hidden_states=True)
    if layer is not None:
        return found.hidden_states[layer], None
    pooled = found.last_hidden_state[:, 0] if isinstance(model, hf.ViTModel) else found.pooler_output
    return found.last_hidden_state, pooled


def near(mine: torch.Tensor, theirs: torch.Tensor, precision: str = "float32") -> None:
    """Element by element, as a part of the largest number."""
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=0, atol=FAR[precision] * float(theirs.abs().max()))


@pytest.mark.parametrize("name", KINDS)
def test_a_plain_eye_gives_what_transformers_gives(name, tmp_path):
    """Its own module in torch, and its graph that was never traced, on a batch of another size than the gate's."""
    model, pixels = saved(name, tmp_path / name), torch.randn(5, 3, 15, 15)
    tokens, pooled = wanted(model, pixels)
    for backend in ("torch", "onnx"):
        found, manifest = seen(tmp_path / name, pixels, backend=backend, pooled=pooled is not None)
        near(found["tokens"], tokens)
        if pooled is not None:
            near(found["pooled"], pooled)
        assert backend == "torch" or (manifest["written"], manifest["repeated"]) == (True, 0)


@pytest.mark.parametrize(("name", "precision"), [("clip", "float16"), ("vit", "int8"), ("dinov2", "w8"), ("siglip", "w4")])
def test_a_plain_eye_is_put_together_in_every_precision(name, precision, tmp_path):
    """Matrices in fewer bits are made as the graph is written."""
    model, pixels = saved(name, tmp_path / name), torch.randn(2, 3, 15, 15)
    tokens, pooled = wanted(model, pixels)
    found, manifest = seen(tmp_path / name, pixels, backend="onnx", precision=precision)
    assert manifest["written"]
    near(found["tokens"].float(), tokens, precision)
    near(found["pooled"].float(), pooled, precision)


@pytest.mark.parametrize(("name", "layer"), [("vit", -2), ("clip", 0), ("siglip", 1), ("dinov2", -1)])
def test_an_inner_layer_is_given_as_it_is(name, layer, tmp_path):
    """And without the token that stands before those of the patches, where there is one."""
    model, pixels = saved(name, tmp_path / name), torch.randn(2, 3, 15, 15)
    lead = 0 if name == "siglip" else 1
    found, manifest = seen(tmp_path / name, pixels, backend="onnx", given=f"layer: {layer}, select: patches", pooled=False)
    assert manifest["written"]
    near(found["tokens"], wanted(model, pixels, layer)[0][:, lead:])


@pytest.mark.parametrize(("name", "given"), [("vit", "interpolate: true"), ("clip", "interpolate: true"), ("dinov2", "")])
def test_pictures_of_any_size_have_the_places_of_transformers(name, given, tmp_path):
    """An oblong grid that is neither that of the checkpoint nor one of the gate's."""
    model, pixels = saved(name, tmp_path / name), torch.randn(2, 3, 20, 35)
    with torch.no_grad():
        expected = model(pixels, **({"interpolate_pos_encoding": True} if given else {})).last_hidden_state
    for backend in ("torch", "onnx"):
        found, manifest = seen(tmp_path / name, pixels, backend=backend, given=given)
        near(found["tokens"], expected)
        assert backend == "torch" or manifest["written"]


@pytest.mark.parametrize(
    "config",
    [
        {"family": "vit", **WIDE, "pre_logits": 7},
        {"family": "clip", **WIDE, "hidden_act": "silu"},
        {"family": "eva", **WIDE},
        {"family": "auto", "model": {"model_type": "dinov2", **SIZES, "use_swiglu_ffn": True}, **SIZES},
        {"family": "auto", "model": {"model_type": "dinov2", **SIZES, "a_key_of_tomorrow": 1}, **SIZES},
        {"family": "auto", "model": {"model_type": "dinov2_with_registers", **SIZES}, **SIZES},
    ],
    ids=lambda config: " ".join([config["family"], *(key for key in config if key in {"pre_logits", "hidden_act"})]),
)
def test_what_is_not_known_to_the_last_key_is_left_to_transformers(config):
    """A config that says more than is read here would be obeyed in part."""
    assert plain_kinds.sizes_of(Encoder(**config)) is None


def test_a_tower_that_somebody_hooked_into_is_traced():
    """No tensor tells of a hook, and a graph put together would leave it out."""
    eye = Eye(Encoder(family="vit", **WIDE)).eval()
    signature = Signature(
        (("pixels", port("float[batch 3 15 15]")),), (("tokens", port("float[batch 10 24]")), ("pooled", port("float[batch 24]")))
    )
    module = flat(eye, ports=["pixels"], wired=["pixels"], outputs=["tokens", "pooled"])
    assert writing_of(module, signature, half=False) is not None
    eye.tower.blocks[1].mlp.register_forward_hook(lambda _module, _given, result: result * 2)
    assert writing_of(module, signature, half=False) is None


@pytest.mark.parametrize("given", ["", ", interpolate: true"])
def test_several_pictures_of_a_record_are_traced(given, tmp_path):
    """The plain tower is traced as any other, one layer for all; places of other sizes stay open."""
    saved("vit", tmp_path / "vit")
    rows, columns = (20, 10) if given else (15, 15)
    path = tmp_path / "many.yaml"
    sides = "height width" if given else "15 15"
    path.write_text(f"""
modelgraft: 1
name: many
inputs: {{pixels: "float[batch images 3 {sides}]"}}
nodes: {{eye: {{use: vision/encoder, from: ./vit, with: {{many: true{given}}}, in: {{pixels: inputs.pixels}}}}}}
outputs: {{tokens: eye.tokens}}
""")
    pixels = torch.randn(2, 3, 3, rows, columns)
    with mg.open(mg.load(path), backend="torch") as pipeline:
        expected = pipeline.run(pixels=pixels)["tokens"]
    with mg.open(mg.load(path), backend="onnx") as pipeline:
        near(pipeline.run(pixels=pixels)["tokens"], expected)
        (entry,) = pipeline.backend("onnx").exports.values()
    assert (entry.manifest["written"], entry.manifest["repeated"]) == (False, 2)


def test_an_eye_and_what_reads_it_are_one_graph(tmp_path):
    """A segment of several modules that can all be put together: the class token times a matrix."""
    model, pixels = saved("vit", tmp_path / "vit"), torch.randn(2, 3, 15, 15)
    path = tmp_path / "both.yaml"
    path.write_text("""
modelgraft: 1
name: both
inputs: {pixels: "float[batch 3 15 15]"}
nodes:
  eye: {use: vision/encoder, from: ./vit, in: {pixels: inputs.pixels}}
  head: {use: projector/linear, with: {in_features: 24, out_features: 7, over: vector}, in: {x: eye.pooled}}
outputs: {logits: head}
""")
    with mg.open(mg.load(path), backend="torch") as pipeline:
        expected = pipeline.run(pixels=pixels)["logits"]
    with mg.open(mg.load(path), backend="onnx") as pipeline:
        near(pipeline.run(pixels=pixels)["logits"], expected)
        assert [entry.manifest["written"] for entry in pipeline.backend("onnx").exports.values()] == [True]
    assert model is not None


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_plain_eye_imports_no_transformers(backend, tmp_path):
    """Which takes longer than all else of a start: not to read the files, nor to compare, nor to run."""
    saved("vit", tmp_path / "vit")
    program = f"""
import sys, torch, modelgraft as mg
from pathlib import Path
Path("seeing.yaml").write_text({GRAPH.format(folder="vit", sides="15 15", given="", outputs="{tokens: eye.tokens}")!r})
with mg.open(mg.load("seeing.yaml"), backend={backend!r}) as pipeline:
    pipeline.run(pixels=torch.zeros(1, 3, 15, 15))
print(sorted({{"transformers", "onnxscript"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("config", [{}, {"variant": "lite1", "image_size": 75, "num_labels": 5}], ids=["lite0", "odd side"])
def test_an_efficientnet_is_put_together(config, tmp_path):
    """All three of its outputs are those of its module, whose numbers other code has confirmed (test_efficientnet.py)."""
    torch.manual_seed(0)
    own = EfficientNet(**config)
    module = EfficientNetModule(own).eval()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(std=0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    ports = own.ports()
    sizes = {"num_labels": own.num_labels, "tokens": own.tokens, "hidden_size": own.hidden_size}
    outputs = tuple((name, kind.bind(sizes)) for name, kind in ports.outputs.items())
    signature = Signature(tuple(ports.inputs.items()), outputs)
    whole = flat(module, ports=["pixels"], wired=["pixels"], outputs=[name for name, _ in outputs])
    facts, _ = exports.write(whole, signature, "float32", tmp_path)
    assert facts["written"]
    pixels = torch.randn(3, 3, own.side, own.side)
    with torch.no_grad():
        expected = module(pixels)
    for mine, (name, _) in zip(Exported(open_fresh(tmp_path / "model.onnx"), device="cpu")(pixels), outputs, strict=True):
        near(as_tensor(mine), expected[name])
