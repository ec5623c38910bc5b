"""CLIP equals its independent implementations: towers, losses, pictures and token ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import modelgraft as mg
from support.installed import registry
from support.open_part import counts, open_part
from support.oracles import Case, Oracle, cases, fed, must_differ, oracle

REGISTRY = registry()


def square(tokens: torch.Tensor) -> torch.Tensor:
    """Vectors of cells, row by row, as a map: [batch cells width] -> [batch width side side]."""
    side = round(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def resnet(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
    """The residual tower, from a folder with the words of its own code and its official keys."""
    with TemporaryDirectory() as folder:
        home = given.as_folder(Path(folder), {"model_type": "clip_resnet", **given.config})
        found = open_part(REGISTRY, "clip/resnet", str(home))(case.inputs["image"])
    return {"feature_map": square(found["tokens"]), "features": found["pooled"]}


@pytest.mark.parametrize("case", cases("clip_resnet"))
def test_the_residual_tower_equals_the_published_code(case: Case):
    """The map of the last block, and what attention gathers from it."""
    case.compare_all(resnet(oracle("clip_resnet"), case))


def test_a_weight_of_the_residual_tower_that_is_off_shows():
    """Any of them."""
    must_differ("clip_resnet", resnet)


@pytest.mark.parametrize("case", cases("clip_resnet"))
def test_the_residual_tower_equals_it_in_a_graph_from_its_file_alone(tmp_path: Path, case: Case):
    """Sizes come from the shapes of the tensors; heads are said, since those of the fixture may have another width than published ones."""
    given = oracle("clip_resnet")
    file, side = given.as_file(tmp_path / "tower.safetensors"), given.config["input_resolution"]
    path = fed(tmp_path, "clip/resnet", {"vision.pixels": f"float[batch 3 {side} {side}]"}, {}, without=("pixels", "inputs.image"))
    path.write_text(f"{path.read_text()}params.part.default: ''\nnodes.vision.with: {{num_attention_heads: {given.config['heads']}}}\n")
    with mg.open(path, params={"checkpoint": str(file)}) as pipeline:
        found = pipeline.run(vision_pixels=case.inputs["image"])
    case.compare_all({"feature_map": square(found["tokens"]), "features": found["pooled"]})


def test_the_residual_tower_is_counted_to_the_unit(tmp_path: Path):
    """By its formula, as it is built, and in the file."""
    given = oracle("clip_resnet")
    home = given.as_folder(tmp_path, {"model_type": "clip_resnet", **given.config})
    held = sum(tensor.numel() for key, tensor in given.weights.items() if "running" not in key)
    assert counts(open_part(REGISTRY, "clip/resnet", str(home)).node) == (held, held)


# -- the whole -----------------------------------------------------------------------------------------------------------


def whole(given: Oracle) -> dict[str, Any]:
    """The words of open_clip for it; the fixture was made with the quick GELU, as OpenAI's models were."""
    return {"quick_gelu": True, **given.config}


def open_clip_folder(given: Oracle, folder: Path) -> Path:
    """As open_clip saves it: its config, and its file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": whole(given), "preprocess_cfg": {"interpolation": "bicubic"}}))
    given.as_file(folder / "open_clip_model.safetensors")
    return folder


def embedding(given: Oracle, folder: Path, more: str = "") -> Path:
    """The graph of both vectors, fed with tensors, and with the loss of pairs."""
    side, long = given.config["vision_cfg"]["image_size"], given.config["text_cfg"]["context_length"]
    feeds = {"vision.pixels": f"float[batch 3 {side} {side}]", "reader.ids": f"int64[batch {long}]"}
    without = ("pixels", "tokens", "inputs.image", "inputs.text")
    path = fed(folder, "clip/embed", feeds, {"image": "vision_proj", "text": "text_proj", "loss": "fit"}, without=without)
    loss = 'nodes.fit: {use: loss/contrastive, from: "${checkpoint}", in: {x: vision_proj, y: text_proj}}\n'
    path.write_text(f"{path.read_text()}nodes.reader.in.mask: null\n{loss}{more}")
    return path


def choice(given: Oracle, folder: Path) -> Path:
    """The graph of choosing a text, fed with tensors."""
    side, long = given.config["vision_cfg"]["image_size"], given.config["text_cfg"]["context_length"]
    feeds = {"vision.pixels": f"float[batch 3 {side} {side}]", "text.ids": f"int64[batch texts {long}]"}
    outputs = {"logits": "similarity"}
    without = ("pixels", "tokens", "answer", "inputs.image", "inputs.labels", "outputs.label", "outputs.probabilities")
    path = fed(folder, "clip", feeds, outputs, without=without)
    path.write_text(f"{path.read_text()}nodes.text.in.mask: null\n")
    return path


def answers(pipeline: mg.Pipeline, case: Case) -> dict[str, torch.Tensor]:
    """Both vectors of a case; pictures and texts go separately, since there may be more of one. And the loss where they are pairs."""
    pictures, ids = case.inputs["image"], case.inputs["ids"]
    found = {
        "image_features": pipeline.run(vision_pixels=pictures, outputs=["image"])["image"],
        "text_features": pipeline.run(reader_ids=ids, outputs=["text"])["text"],
    }
    if "loss" in case.outputs:
        found["loss"] = pipeline.run(vision_pixels=pictures, reader_ids=ids, outputs=["loss"])["loss"].mean()
    return found


def clip(given: Oracle, case: Case) -> Mapping[str, torch.Tensor]:
    """Every output through the shipped graphs, from a folder of open_clip."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = {"checkpoint": str(open_clip_folder(given, folder / "saved"))}
        with mg.open(embedding(given, folder), params=source) as pipeline:
            found = answers(pipeline, case)
        pictures, ids = case.inputs["image"], case.inputs["ids"]
        with mg.open(choice(given, folder), params=source) as pipeline:
            each = pipeline.run(vision_pixels=pictures, text_ids=ids.expand(len(pictures), *ids.shape))
    return {**found, "logits_per_image": each["logits"].reshape(len(pictures), len(ids))}


@pytest.mark.parametrize("case", cases("clip_openclip"))
def test_clip_equals_open_clip(case: Case):
    """Vectors of both sides, logits of each picture with each text, and the loss of pairs."""
    case.compare_all(clip(oracle("clip_openclip"), case))


def test_a_weight_of_clip_that_is_off_shows():
    """Any of them."""
    must_differ("clip_openclip", clip)


class Named(torch.nn.Module):
    """Tensors under their names with dots, and nothing that computes: what an archive of TorchScript holds."""

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        inner: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in state.items():
            first, _, rest = key.partition(".")
            if rest:
                inner.setdefault(first, {})[rest] = tensor
            else:
                self.register_buffer(first, tensor)
        for name, tensors in inner.items():
            self.add_module(name, Named(tensors))

    def forward(self) -> int:
        return 0


def archive(given: Oracle, path: Path) -> Path:
    """As OpenAI publishes: an archive of TorchScript in half precision, with three numbers among its tensors."""
    numbers = {"input_resolution": given.config["vision_cfg"]["image_size"], "context_length": given.config["text_cfg"]["context_length"]}
    state: dict[str, torch.Tensor] = {key: tensor.half() for key, tensor in given.weights.items()}
    state |= {key: torch.tensor(value) for key, value in {**numbers, "vocab_size": given.config["text_cfg"]["vocab_size"]}.items()}
    torch.jit.script(Named(state)).save(str(path))
    return path


def trained(given: Oracle, path: Path) -> Path:
    """As a training on several devices saves: every key behind `module.`, and counters beside the weights."""
    torch.save({"epoch": 3, "name": "run", "state_dict": {f"module.{key}": tensor for key, tensor in given.weights.items()}}, path)
    return path


FILES = {
    "weights.safetensors": lambda given, path: given.as_file(path),
    "weights.pt": lambda given, path: given.as_file(path),
    "epoch_3.pt": trained,
    "text.pt": lambda given, path: torch.save(_apart(given.weights), path) or path,  # texts in a module of their own
}


def _apart(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key if key.startswith("visual.") or key == "logit_scale" else f"text.{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_the_authors_are_read_by_their_tensors_alone(tmp_path: Path, name: str):
    """Sizes follow from shapes, the GELU is the quick one; heads are said here, since those of the fixture are not 64 wide."""
    given = oracle("clip_openclip")
    eye, text = given.config["vision_cfg"], given.config["text_cfg"]
    more = f"nodes.vision.with: {{num_attention_heads: {eye['width'] // eye['head_width']}}}\n"
    graph = embedding(given, tmp_path, f"{more}nodes.reader.with: {{num_attention_heads: {text['heads']}}}\n")
    file = FILES[name](given, tmp_path / name)
    with mg.open(graph, params={"checkpoint": str(file)}) as pipeline:
        for case in given.cases.values():
            found = answers(pipeline, case)
            case.compare(**found)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_an_archive_in_half_precision_computes_in_whole(tmp_path: Path):
    """As OpenAI publishes its models: the answers are those of the same numbers in a plain file, to the last bit."""
    given = oracle("clip_openclip")
    eye, text = given.config["vision_cfg"], given.config["text_cfg"]
    more = f"nodes.vision.with: {{num_attention_heads: {eye['width'] // eye['head_width']}}}\n"
    graph = embedding(given, tmp_path, f"{more}nodes.reader.with: {{num_attention_heads: {text['heads']}}}\n")
    rounded = replace(given, weights={key: tensor.half().float() for key, tensor in given.weights.items()})
    case, found = next(iter(given.cases.values())), []
    for file in (archive(given, tmp_path / "archive.pt"), rounded.as_file(tmp_path / "plain.pt")):
        with mg.open(graph, params={"checkpoint": str(file)}) as pipeline:
            found.append(answers(pipeline, case))
    for key, tensor in found[0].items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, found[1][key]), key


def test_a_file_says_where_it_is_silent(tmp_path: Path):
    """Heads that cannot be 64 wide are asked for; which GELU it is, is told for a file that does not say."""
    given = oracle("clip_openclip")
    file = given.as_file(tmp_path / "weights.safetensors")
    if given.config["vision_cfg"]["width"] % 64:
        with pytest.raises(mg.GraphError, match="the files do not say how many heads share the width; say it with num_attention_heads"):
            mg.check(mg.load("clip/embed", params={"checkpoint": str(file)}))
    told = [str(warning) for warning in mg.check(published(tmp_path, dict(given.weights))).warnings]
    assert any("nothing in it says which GELU it was trained with" in text for text in told), told
    marked = {**given.weights, "input_resolution": torch.tensor(given.config["vision_cfg"]["image_size"])}
    assert not any("GELU" in str(warning) for warning in mg.check(published(tmp_path, marked)).warnings)


def published(folder: Path, state: dict[str, torch.Tensor]) -> Any:
    """The pictures' side of a graph on a file with these tensors, with heads that are said."""
    save_file(state, folder / "other.safetensors")
    eye = oracle("clip_openclip").config["vision_cfg"]
    path = folder / "pictures.yaml"
    path.write_text(
        "modelgraft: 1\nparams.checkpoint: ./other.safetensors\ninputs: {image: image}\nnodes:\n"
        '  pixels: {use: vision/preprocess, from: "${checkpoint}", in: {image: inputs.image}}\n'
        '  vision: {use: vision/encoder, from: "${checkpoint}#vision_model", in: {pixels: pixels},'
        f" with: {{num_attention_heads: {eye['width'] // eye['head_width']}}}}}\n"
        "outputs: {pooled: vision.pooled}\n"
    )
    return path


def test_words_of_open_clip_that_make_another_model_are_refused(tmp_path: Path):
    """With the word and its value; words of training, and those at the values they have here, are not."""
    given = oracle("clip_openclip")
    saved = open_clip_folder(given, tmp_path)
    config = json.loads((saved / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] |= {"patch_dropout": 0.5, "no_ln_pre": False}
    (saved / "open_clip_config.json").write_text(json.dumps(config))
    assert not mg.check(mg.load("clip/embed", params={"checkpoint": str(saved), "tokenizer": "openai/clip-vit-base-patch32"})).warnings
    for side, word in (("vision_cfg", "attentional_pool"), ("text_cfg", "no_causal_mask")):
        other = json.loads(json.dumps(config))
        other["model_cfg"][side][word] = True
        (saved / "open_clip_config.json").write_text(json.dumps(other))
        with pytest.raises(mg.GraphError, match=f"here has no {word}: True"):
            mg.check(mg.load("clip/embed", params={"checkpoint": str(saved)}))


def test_weights_of_another_variant_are_named(tmp_path: Path):
    """The config is of another size than the tensors: keys and shapes stand in the error, and nothing runs."""
    given = oracle("clip_openclip")
    saved = open_clip_folder(given, tmp_path / "saved")
    config, eye = json.loads((saved / "open_clip_config.json").read_text()), given.config["vision_cfg"]
    patch = 1 if eye["patch_size"] == eye["image_size"] else eye["image_size"]
    config["model_cfg"]["vision_cfg"] |= {"patch_size": patch, "layers": eye["layers"] + 1}
    (saved / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(mg.GraphError) as caught, mg.open(embedding(given, tmp_path), params={"checkpoint": str(saved)}) as pipeline:
        pipeline.run(vision_pixels=torch.zeros(1, 3, eye["image_size"], eye["image_size"]), outputs=["image"])
    told = str(caught.value)
    assert "missing" in told
    assert "patch_embedding.weight is [" in told


# -- published sizes -------------------------------------------------------------------------------------------------------

PUBLISHED = {  # parameters that the published models hold
    "clip-vit-b-32": 151_277_313, "clip-vit-b-16": 149_620_737, "clip-vit-l-14": 427_616_513, "clip-vit-l-14-336": 427_944_193,
    "clip-rn50": 102_007_137, "clip-rn101": 119_688_033, "clip-rn50x4": 178_300_601, "clip-rn50x16": 290_979_217,
    "clip-rn50x64": 623_258_305, "open-clip-vit-h-14": 986_109_441,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_hold_what_was_published(name: str):
    """To the unit, from their configs alone."""
    assert mg.plan(mg.load("clip", params={"checkpoint": f"preset:{name}"})).totals.parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", ["clip-vit-b-32", "clip-rn50"])
def test_built_without_memory_they_hold_the_same(name: str):
    """One with each kind of eye."""
    assert mg.plan(mg.load("clip", params={"checkpoint": f"preset:{name}"}), exact=True).totals.parameters == PUBLISHED[name]


# -- a whole with a residual eye, and exports ------------------------------------------------------------------------------


def residual_clip(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of a CLIP with a residual eye, as its authors have it: the fixture's tower, and texts of the other fixture's reader."""
    tower, texts = oracle("clip_resnet"), oracle("clip_openclip")
    wide = tower.config["output_dim"]
    state = {f"visual.{key}": tensor for key, tensor in tower.weights.items()}
    state |= {key: tensor for key, tensor in texts.weights.items() if not key.startswith("visual.")}
    width = state["text_projection"].shape[0]
    state["text_projection"] = torch.randn(width, wide, generator=torch.Generator().manual_seed(1)) / width**0.5
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "residual.pt")
    return folder / "residual.pt", state


def residual_graph(folder: Path) -> Path:
    """The graph of both vectors fed with tensors, with heads that are said."""
    tower, text = oracle("clip_resnet").config, oracle("clip_openclip").config["text_cfg"]
    side = tower["input_resolution"]
    feeds = {"vision.pixels": f"float[batch 3 {side} {side}]", "reader.ids": f"int64[batch {text['context_length']}]"}
    outputs = {"image": "vision_proj", "text": "text_proj"}
    path = fed(folder, "clip/embed", feeds, outputs, without=("pixels", "tokens", "inputs.image", "inputs.text"))
    heads = f"nodes.vision.with: {{num_attention_heads: {tower['heads']}}}\nnodes.reader.with: {{num_attention_heads: {text['heads']}}}\n"
    path.write_text(f"{path.read_text()}nodes.reader.in.mask: null\n{heads}")
    return path


@pytest.mark.parametrize("case", cases("clip_resnet"))
def test_a_whole_with_a_residual_eye_is_the_same_graph(tmp_path: Path, case: Case):
    """Its last map leads into the shared space, as the projection of the others does."""
    file, _ = residual_clip(tmp_path / "saved")
    with mg.open(residual_graph(tmp_path), params={"checkpoint": str(file)}) as pipeline:
        found = pipeline.run(vision_pixels=case.inputs["image"], outputs=["image"])["image"]
    case.compare(features=found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "residual"])
def test_both_towers_are_exported_with_parity(tmp_path: Path, kind: str):
    """On ONNX Runtime every vector is what it is on torch, of batches of one and of more."""
    texts = next(iter(oracle("clip_openclip").cases.values()))
    if kind == "residual":
        graph, source = residual_graph(tmp_path), residual_clip(tmp_path / "saved")[0]
        pictures = next(iter(oracle("clip_resnet").cases.values())).inputs["image"]
    else:
        graph, source = embedding(oracle("clip_openclip"), tmp_path), open_clip_folder(oracle("clip_openclip"), tmp_path / "saved")
        pictures = texts.inputs["image"]
    pictures, ids = pictures[:1].repeat(3, 1, 1, 1), texts.inputs["ids"][:1].repeat(3, 1)
    pictures = pictures + 0.1 * torch.arange(3).reshape(3, 1, 1, 1)
    found = []
    for backend in ("torch", "onnx"):
        with mg.open(graph, params={"checkpoint": str(source)}, backend=backend) as pipeline:
            for batch in (slice(None), slice(1)):
                given = {"vision_pixels": pictures[batch], "reader_ids": ids[batch]}
                found.append(
                    [torch.as_tensor(pipeline.run(**given, outputs=[name])[name]) for name in ("image_embedding", "text_embedding")]
                )
    for torched, exported in zip(found[:2], found[2:], strict=True):
        for one, other in zip(torched, exported, strict=True):
            torch.testing.assert_close(other.float(), one, rtol=0, atol=1e-5)
