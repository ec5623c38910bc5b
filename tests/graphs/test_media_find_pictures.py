"""imagebind/retrieval: each of seven media finds the pictures whose vectors are nearest to its own, in a folder of real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.records.shipped import SHIPPED
from modelgraft_plugins.retrieval.filed import read_index
from support.album import small_clip

pytestmark = pytest.mark.slow  # seven towers at the published sides, an index for each

OUT = Path("photos.safetensors")
PRESET = "plugins/modelgraft_plugins/embedding/presets/imagebind-huge/config.json"
PARAMS = {"checkpoint": "./tiny", "words": str(small_clip())}
SMALL = {f"{medium}_{size}": number for medium in ("vision", "text", "audio", "depth", "thermal", "imu")
         for size, number in (("embed_dim", 24), ("num_blocks", 1), ("num_heads", 2))}  # fmt: skip
MEDIA = {"vision": "image", "video": "video", "text": "text", "audio": "audio", "depth": "depth", "thermal": "thermal", "imu": "imu"}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Pieces of photographs, the config of an ImageBind of the published sides and small widths, and an index of both."""
    data = pytest.importorskip("skimage.data", reason="the photographs ship with scikit-image")
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        whole = Image.fromarray(getattr(data, name)()).convert("RGB")
        for number in range(3):
            whole.crop((40 * number, 20, 40 * number + 230, 220)).save(f"photos/{name}-{number}.png")
    published = json.loads((Path(mg.__file__).parents[2] / PRESET).read_text())
    Path("tiny").mkdir()
    Path("tiny/config.json").write_text(
        json.dumps(
            {**published, **SMALL, "out_embed_dim": 14, "kernel_size": [2, 56, 56], "depth_kernel_size": 56, "thermal_kernel_size": 56}
        )
    )
    words = ("index", "imagebind/embed", "photos", "--out", str(OUT), "--set", "checkpoint=./tiny", "--init", "random")
    assert main(words) == 0


def given(medium: str) -> object:
    """A record of a medium; of pictures one of the folder."""
    return {"vision": "photos/coffee-1.png", "text": "low wide"}.get(medium) or SHIPPED[MEDIA[medium]].example(0)


@pytest.mark.parametrize("medium", MEDIA)
def test_every_medium_finds_the_pictures_that_are_nearest_to_it(world, medium):
    """By brute force over the vectors that imagebind/embed gives; nothing of the other media is loaded."""
    with mg.open("imagebind/embed", params=PARAMS, init="random") as pipeline:
        asked = pipeline.run(outputs=[medium], **{medium: given(medium)})[medium].numpy()
    index = read_index(OUT)
    scores = (index.vectors @ (asked / np.linalg.norm(asked))[0]).astype(float)
    order = np.argsort(-scores, kind="stable")[:5]
    with mg.open("imagebind/retrieval", params={**PARAMS, "index": str(OUT), "count": 5}, init="random") as pipeline:
        found = pipeline.run(**{medium: given(medium)})
        towers = {"see", "watch", "read", "hear", "reach", "warm", "move"} & set(pipeline._loader.loaded())
    np.testing.assert_allclose(found["scores"][0].numpy(), scores[order], atol=3e-6)
    assert found["paths"] == [str(Path("photos").resolve() / index.entries[row].path) for row in order]
    assert len(towers) <= 2, "a film uses the weights of the tower of pictures"
    if medium == "vision":
        assert found["paths"][0].endswith("coffee-1.png")
    assert found["sheet"].width > 300


def test_weights_of_another_seed_are_another_model(world):
    params = {**PARAMS, "index": str(OUT)}
    changed = "random weights of seed 0 when it was made, and are random weights of seed 4 now"
    with mg.open("imagebind/retrieval", params=params, init="random", seed=4) as pipeline, pytest.raises(mg.InputError, match=changed):
        pipeline.run(vision="photos/coffee-1.png")
