"""Vectors that were made elsewhere: read without carrying out what a pickle orders, and indexed under the model that made them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import modelgraft as mg
from modelgraft.plugin import InputError
from modelgraft_plugins.retrieval.filed import read_index
from modelgraft_plugins.retrieval.given import read_given
from support.album import commands, indexed

NAMES = [f"http://example.org/{number}.jpg" for number in range(5)]
VECTORS = np.random.default_rng(4).standard_normal((5, 3)).astype("f4")


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", ["array", "turned", "list", "half", "double", "other_bytes"])
def test_arrays_of_numpy_are_read(tmp_path: Path, kind: str, protocol: int):
    """In every layout in which numpy writes them."""
    forms = {
        "array": VECTORS, "turned": np.asfortranarray(VECTORS), "list": list(VECTORS), "half": VECTORS.astype("f2"),
        "double": VECTORS.astype("f8"), "other_bytes": VECTORS.astype(">f4"),
    }  # fmt: skip
    file = tmp_path / "vectors.pkl"
    file.write_bytes(pickle.dumps({"paths": NAMES, "embeddings": forms[kind]}, protocol=protocol))
    paths, found = read_given(file)
    assert paths == NAMES
    np.testing.assert_allclose(found, VECTORS, atol=2e-3 if kind == "half" else 1e-7)


class Calls:
    """What runs code where a pickle is opened as Python opens it."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("carried-out"),)


BAD = {
    "calls": ({"paths": NAMES, "embeddings": Calls()}, "it calls"),
    "objects": ({"paths": ["a"], "embeddings": np.array([[object()]])}, "it calls builtins.object"),
    "list": (NAMES, "it holds a list"),
    "fewer-names": ({"paths": NAMES[:3], "embeddings": VECTORS}, "it has 5 vectors"),
    "whole-numbers": ({"paths": NAMES, "embeddings": VECTORS.astype("i4")}, "no float numbers"),
    "one-axis": ({"paths": NAMES, "embeddings": VECTORS[0]}, "an array of the shape"),
    "no-vectors": ({"paths": []}, "'embeddings'"),
    "keys": ({("a", "b"): 3}, "keys are not texts"),
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_refused_before_it_is_made(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    value, told = BAD[case]
    file = tmp_path / "vectors.pkl"
    file.write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match=told) as caught:
        read_given(file)
    assert "wanted: a pickle of" in str(caught.value)
    assert not Path("carried-out").exists()


def test_bytes_that_are_no_pickle_are_refused(tmp_path: Path):
    file = tmp_path / "vectors.pkl"
    for content in (b"", b"hello", pickle.dumps({"paths": NAMES, "embeddings": VECTORS})[:-30]):
        file.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as vectors"):
            read_given(file)


def test_they_are_indexed_under_the_model_that_made_them(monkeypatch, tmp_path, capsys):
    """Asked like any index; not kept up with a folder; of another width they are refused, and both are named."""
    run = commands(monkeypatch, tmp_path, capsys)
    code, _, err = indexed(run)
    assert code == 0, err
    made = read_index(Path("photos.safetensors"))
    names = [f"http://example.org/{entry.path}" for entry in made.entries]
    Path("given.pkl").write_bytes(pickle.dumps({"paths": names, "embeddings": 3 * made.vectors}))
    words = ("index", "clip/embed", "given.pkl", "--out", "given.safetensors", "--set", "checkpoint=./clip")
    code, _, err = run(*words)
    assert code == 0, err
    assert "are taken to be those of" in err
    np.testing.assert_allclose(read_index(Path("given.safetensors")).vectors, made.vectors, atol=1e-6)
    with mg.open("clip/retrieval", params={"checkpoint": "./clip", "index": "given.safetensors", "count": 2}) as pipeline:
        found = pipeline.run(image=Path("photos") / made.entries[3].path)
    assert found["paths"][0] == names[3]
    assert "is there already" in run(*words)[2]
    assert "holds vectors that were given" in run("index", "clip/embed", "photos", *words[3:])[2]
    Path("other.pkl").write_bytes(pickle.dumps({"paths": NAMES, "embeddings": VECTORS}))
    assert "vectors of 3 numbers" in run("index", "clip/embed", "other.pkl", "--out", "o.safetensors", *words[5:])[2]
