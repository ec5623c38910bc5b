"""A folder of a thousand pictures, cut out of real photographs: embedded once, found again, kept up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import modelgraft as mg
from modelgraft_plugins.retrieval.filed import read_index
from support.album import commands, embedded, indexed

pytestmark = pytest.mark.slow

COUNT = 1_000
OUT = Path("photos.safetensors")


def photographs():
    """Photographs that come with scikit-image."""
    data = pytest.importorskip("skimage.data", reason="the photographs ship with scikit-image")
    return [Image.fromarray(getattr(data, name)()).convert("RGB") for name in ("astronaut", "coffee", "chelsea", "rocket")]


def cut_out(folder: Path, numbers: range) -> None:
    """Pieces of photographs, no two alike, in several formats and modes."""
    whole, draw = photographs(), np.random.default_rng(5)
    for number in range(numbers.stop):
        width, height = (int(side) for side in draw.integers(40, 150, 2))
        source = whole[number % len(whole)]
        left, top = int(draw.integers(0, source.width - width)), int(draw.integers(0, source.height - height))
        if number not in numbers:
            continue
        piece = source.crop((left, top, left + width, top + height))
        if number % 7 == 0:
            piece = piece.convert("L")
        piece.save(folder / f"{number:04}.{('png', 'jpg', 'webp', 'bmp')[number % 4]}")


def test_a_thousand_pictures(monkeypatch, tmp_path, capsys):
    """Every one is found by itself, the scores are those of brute force over transformers' vectors, and a second start is nothing."""
    run = commands(monkeypatch, tmp_path, capsys)
    for file in list(Path("photos").rglob("*.*")):
        file.unlink()
    cut_out(Path("photos"), range(COUNT))
    Path("photos/0000.jpg").write_bytes(b"no picture")
    code, out, _ = indexed(run, "--approximate", "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["files"], list(told["left_out"]), told["encoded"]) == (COUNT, ["0000.jpg"], COUNT + 1)
    assert told["recall"] > 0.95
    index = read_index(OUT)
    files = [Path("photos") / entry.path for entry in index.entries]
    held = embedded(files)
    np.testing.assert_allclose(index.vectors, held, atol=3e-6)
    asked = files[::53]
    with mg.open("clip/retrieval", params={"checkpoint": "./clip", "index": str(OUT), "count": 5}) as pipeline:
        for file, row in zip(asked, range(0, len(files), 53), strict=True):
            found = pipeline.run(image=file)
            scores = held @ held[row]
            first = files.index(Path(found["paths"][0]).relative_to(Path.cwd()))
            assert scores[first] == pytest.approx(scores[row], abs=5e-6), file  # one that float32 cannot tell from it may be first
            np.testing.assert_allclose(found["scores"][0].numpy(), np.sort(scores)[::-1][:5], atol=5e-6)
    assert "as before: nothing to do" in indexed(run, "--approximate")[2]
    cut_out(Path("photos"), range(COUNT, COUNT + 3))
    files[7].unlink()
    told = json.loads(indexed(run, "--approximate", "--json")[1])
    assert (told["files"], told["encoded"], told["gone"]) == (COUNT + 2, 3, 1)


def test_how_far_it_is_is_told(monkeypatch, tmp_path, capsys):
    """A line now and then, where nobody watches a terminal; none with --quiet."""
    run = commands(monkeypatch, tmp_path, capsys)
    cut_out(Path("photos"), range(40))
    monkeypatch.setattr("modelgraft.cli.pacing.EVERY_S", 0.0)
    assert re.search(r"\d+ of 47 records", indexed(run)[2])
    OUT.unlink()
    assert not re.search(r"\d+ of 47 records", run("--quiet", *_words())[2])


def _words():
    return ("index", "clip/embed", "photos", "--out", str(OUT), "--set", "checkpoint=./clip")
