"""A folder of pictures, a tiny CLIP, and an index of them as `modelgraft index` makes it."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from modelgraft.cli import main
from support import checkpoints
from support.pictures import picture

NAMES = ("a.png", "b.jpg", "deep/c.png", "deep/deeper/d.webp", "e.jpg", "f.png", "g.png")
Run = Callable[..., tuple[int, str, str]]


def fill(folder: Path) -> None:
    """Seven pictures of unlike sizes, in folders in folders."""
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(40 + 3 * number, 31 + 5 * number, seed=number).save(path, lossless=True, quality=95)


@functools.cache
def small_clip(seed: int = 1) -> Path:
    """The checkpoint of a tiny CLIP, made once in this process."""
    folder = Path(tempfile.mkdtemp(prefix="album-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return checkpoints.clip(folder / "clip", seed=seed).folder


def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """What runs a command in a folder with `photos` and the checkpoint `clip`; gives the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos")
    shutil.copytree(small_clip(), "clip")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err, captured.err
        return code, captured.out, captured.err

    return run


def indexed(run: Run, *words: str, checkpoint: str = "./clip") -> tuple[int, str, str]:
    """Index the folder into photos.safetensors."""
    given = ("index", "clip/embed", "photos", "--out", "photos.safetensors", "--set", f"checkpoint={checkpoint}")
    return run(*given, *words)


def embedded(files: list[Path]) -> np.ndarray:
    """The vectors of pictures as transformers makes them, of length 1."""
    import torch
    import transformers

    model = transformers.CLIPModel.from_pretrained(small_clip()).eval()
    pictures = CLIPImageProcessorPil.from_pretrained(small_clip())

    with torch.inference_mode():
        pixels = pictures([Image.open(file).convert("RGB") for file in files], return_tensors="pt")
        found = model.get_image_features(pixel_values=pixels["pixel_values"]).pooler_output.numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)
