"""Units of speech: features, centres, runs, and what they are refused for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.cluster import MiniBatchKMeans

import modelgraft as mg
from modelgraft import InputError
from modelgraft.installed.discovery import assemble, discover
from modelgraft.testing import conform, open_node, run_node
from modelgraft_plugins import units
from modelgraft_plugins.units import Dedup, Kmeans, Mfcc, Pieces
from support.open_part import configured, counts, open_part

REGISTRY = assemble({"units": units})
SMALL = {"clusters": 7, "width": 6}


def centres(path: Path, *shape: int, seed: int = 0, **said: str) -> Path:
    """A file of random centres that says what it is told to."""
    generator = torch.Generator().manual_seed(seed)
    save_file({"cluster_centers_": torch.randn(shape, generator=generator)}, path, metadata=said)
    return path


# -- components ---------------------------------------------------------------------------------------------------------


def test_components_keep_their_declaration():
    """Ports, batch, state; the rows of a batch have as many runs, so that none is filled up."""
    samples = torch.randn(2, 1500, generator=torch.Generator().manual_seed(0))
    conform(Mfcc, {}, samples=samples)
    conform(Mfcc, {"sample_rate_hz": 8000, "use_energy": True, "derivatives": 1}, samples=samples)
    conform(Kmeans, SMALL)
    conform(Kmeans, {**SMALL, "books": 3})
    conform(Kmeans, SMALL, mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))
    conform(Pieces, {"seconds": 0.05}, samples=samples, mask=torch.ones(2, 1500, dtype=torch.bool))
    conform(Dedup, {}, units=torch.tensor([[3, 3, 1, 0], [2, 2, 5, 4]]))


def test_units_are_those_of_scikit_learn():
    """An estimator that was fitted there, and its centres here; frames that the mask leaves out have none."""
    generator = np.random.default_rng(3)
    frames = generator.standard_normal((300, 6)).astype(np.float32)
    theirs = MiniBatchKMeans(7, random_state=0, n_init=1).fit(frames)
    given = torch.from_numpy(frames).reshape(3, 100, 6)
    mask = torch.arange(100)[None] < torch.tensor([[100], [61], [1]])
    trial = open_centres(torch.from_numpy(theirs.cluster_centers_), given, mask)
    wanted = torch.from_numpy(theirs.predict(frames).astype(np.int64)).reshape(3, 100)
    assert torch.equal(trial, torch.where(mask, wanted, -1))


def open_centres(found: torch.Tensor, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The units that a module with these centres gives."""
    books, clusters, width = found.shape if found.dim() == 3 else (1, *found.shape)
    config = {"clusters": clusters, "width": books * width, "books": books}
    trial = open_node(Kmeans, config, state={"centres": found.reshape(books, clusters, width)})
    return trial(features, mask)["units"]


def test_a_book_for_each_part_of_a_frame_looks_at_that_part_alone(tmp_path: Path):
    """Three books over three pairs of numbers give what three estimators of pairs give."""
    path = centres(tmp_path / "books.safetensors", 3, 7, 2)
    part, features = open_part(REGISTRY, "units/kmeans", str(path)), torch.randn(2, 11, 6)
    alone = [open_centres(part.module.centres.detach()[book], features[:, :, 2 * book : 2 * book + 2]) for book in range(3)]
    assert torch.equal(part(features), torch.stack(alone, -1))
    assert part.outputs == {"units": "int64[batch frames 3]"}
    assert counts(configured(REGISTRY, "units/kmeans", str(path))) == (42, 42)


def test_runs_last_as_long_as_the_units_they_stand_for():
    """Rows of a batch that have fewer are filled up; of frames without a unit nothing is left."""
    found = run_node(Dedup, units=torch.tensor([[4, 4, 2, 4, -1], [0, 0, 0, 0, 0], [-1, -1, -1, -1, -1]]))
    assert found["units"].tolist() == [[4, 2, 4], [0, -1, -1], [-1, -1, -1]]
    assert found["durations"].tolist() == [[2, 1, 1], [5, 0, 0], [0, 0, 0]]


def test_silence_has_cepstra_and_a_sound_shorter_than_a_frame_has_none():
    """Silence has energies all the same, and 25 ms are the least."""
    found = run_node(Mfcc, samples=torch.zeros(1, 800))["features"]
    assert found.isfinite().all()
    assert found.shape == (1, 3, 39)
    with pytest.raises(
        InputError, match=r"the sound has 399 samples at 16,000 Hz, and one frame looks at 400 \(25 ms\): give a longer one"
    ):
        run_node(Mfcc, samples=torch.randn(1, 399))


# -- files of centres ---------------------------------------------------------------------------------------------------


def test_a_file_says_what_its_centres_belong_to(tmp_path: Path):
    """Sizes by the shape, model and layer by the metadata."""
    path = centres(tmp_path / "km.safetensors", 7, 6, model="hubert, weights 012345", layer="9", frames="1000")
    node = configured(REGISTRY, "units/kmeans", str(path))
    assert node.config == Kmeans(**SMALL, model="hubert, weights 012345", layer=9)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"colour": "red"}, "says colour, which files of centres do not have"),
        ({"layer": "nine"}, "says layer: 'nine', wanted a natural number"),
        ({"layer": "-1"}, "says layer: '-1', wanted a natural number"),
        ({"clusters": "500"}, "says clusters: 500, and its centres have 7"),
    ],
)
def test_a_file_that_says_what_cannot_be_is_refused(tmp_path: Path, said: dict[str, str], told: str):
    """In its own words."""
    with pytest.raises(ValueError, match=told):
        configured(REGISTRY, "units/kmeans", str(centres(tmp_path / "km.safetensors", 7, 6, **said)))


def test_what_is_no_file_of_centres_is_refused(tmp_path: Path):
    """Other tensors, other shapes, and pickles, which are not opened: the way out is a plain array."""
    save_file({"weight": torch.ones(2, 3)}, tmp_path / "other.safetensors")
    save_file({"cluster_centers_": torch.ones(2, 3), "weight": torch.ones(2)}, tmp_path / "more.safetensors")
    (tmp_path / "km500.bin").write_bytes(b"\x80\x04\x95 a pickle of an estimator")
    for name, told in (
        ("other.safetensors", "has none that can be read: `modelgraft units convert"),
        ("more.safetensors", "holds weight beside 'cluster_centers_': it is no file of centres"),
        ("km500.bin", "has none that can be read: `modelgraft units convert"),
    ):
        with pytest.raises(ValueError, match=told):
            configured(REGISTRY, "units/kmeans", str(tmp_path / name))
    with pytest.raises(ValueError, match=r"is \[6\], wanted \[clusters width\]"):
        configured(REGISTRY, "units/kmeans", str(centres(tmp_path / "flat.safetensors", 6)))


GRAPH = """modelgraft: 1
name: cepstra
params: {units: "SOURCE"}
inputs: {samples: "float[batch samples]"}
nodes:
  cepstra: {use: units/mfcc, with: {coefficients: 2, mels: 5}, in: {samples: inputs.samples}}
  units: {use: units/kmeans, from: "${units}", in: {features: cepstra.features, mask: cepstra.mask}}
outputs: {units: units}
"""


def checked(folder: Path, path: Path, **changes: str) -> mg.SolvedGraph:
    """The graph above with a file of centres."""
    text = GRAPH
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "graph.yaml").write_text(text, encoding="utf-8")
    return mg.check(mg.load(folder / "graph.yaml", params={"units": str(path)}, registry=discover(only=("units", "torch"))))


def test_centres_of_another_model_or_layer_are_refused_before_anything_runs(tmp_path: Path):
    """Both are named, and where each comes from; what a graph decides to take is taken."""
    mine = Mfcc(coefficients=2, mels=5).identity
    good = centres(tmp_path / "good.safetensors", 7, 6, model=mine, layer="0")
    assert not checked(tmp_path, good).warnings
    for wrong, told in (
        ({"model": "hubert, weights 012345", "layer": "0"}, rf"model is {mine}.*, wanted hubert, weights 012345"),
        ({"model": mine, "layer": "9"}, r"layer is 0.*, wanted 9"),
    ):
        other = centres(tmp_path / "other.safetensors", 7, 6, **wrong)
        with pytest.raises(mg.GraphError, match="space-mismatch") as caught:
            checked(tmp_path, other)
        assert re.search(told, str(caught.value)), str(caught.value)
        assert "put a component between them that gives the features that units takes" in str(
            caught.value
        )  # centres are no source of features
    checked(tmp_path, other, **{'from: "${units}"': 'from: "${units}", with: {layer: 0}'})


def test_centres_that_do_not_say_what_they_are_of_are_taken_and_it_is_told(tmp_path: Path):
    """Once for the model, once for the layer; a graph that says it is not told."""
    bare = centres(tmp_path / "bare.safetensors", 7, 6)
    told = [str(problem) for problem in checked(tmp_path, bare).warnings]
    assert ["do not say which model" in text for text in told] == [True, False], told
    assert "do not say which layer" in told[1]
    with pytest.raises(mg.GraphError, match=r"dim-mismatch"):
        checked(tmp_path, centres(tmp_path / "wide.safetensors", 7, 39))


def test_what_is_read_is_what_was_written(tmp_path: Path):
    """A folder with a config.json says the same as the metadata of a file."""
    folder = tmp_path / "km"
    folder.mkdir()
    centres(folder / "model.safetensors", 7, 6)
    (folder / "config.json").write_text(json.dumps({"model_type": "kmeans", "model": "x", "layer": 3, "clusters": 7, "width": 6}))
    assert configured(REGISTRY, "units/kmeans", str(folder)).config == Kmeans(**SMALL, model="x", layer=3)
