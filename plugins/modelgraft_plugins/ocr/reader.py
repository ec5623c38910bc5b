"""The work of ocr/rapidocr: the package rapidocr on the model files that lie in it; nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rapidocr
from PIL import Image

from modelgraft.plugin import LoadContext, NodeRuntime, Problem, SourceError, eight_bits, on_white, sha256_of

if TYPE_CHECKING:
    from modelgraft_plugins.ocr import RapidOCR

# step -> file in the package, sha256
MODELS: Mapping[str, tuple[str, str]] = {
    "Det": ("PP-OCRv6_det_small.onnx", "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"),
    "Cls": ("ch_ppocr_mobile_v2.0_cls_mobile.onnx", "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"),
    "Rec": ("PP-OCRv6_rec_small.onnx", "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"),
}


def load(config: RapidOCR, _context: LoadContext) -> Reader:
    """Open the three models, on the CPU, by an onnxruntime that reports nothing to its makers.

    Raises SourceError when the installed package does not hold the files that were tried out.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # which it asks when it is imported, and that is below
    parameters: dict[str, Any] = {"Global.text_score": config.min_score, "Global.log_level": "error"}
    for step, (name, sha256) in MODELS.items():
        parameters[f"{step}.model_path"] = str(_model_file(name, sha256))
    return Reader(rapidocr.RapidOCR(params=parameters), min_characters=config.min_characters)


def _model_file(name: str, sha256: str) -> Path:
    path = Path(rapidocr.__file__).parent / "models" / name
    if path.is_file() and sha256_of(path) == sha256:
        return path
    found = f"the installed package rapidocr has {'another ' if path.is_file() else 'no '}{name}; wanted sha256 {sha256}"
    raise SourceError(Problem("source-not-found", found, hint="pip install 'modelgraft[ocr]'"))


class Reader:
    """Reads pictures, one after the other; asks before each whether to go on."""

    def __init__(self, engine: Any, *, min_characters: int) -> None:
        self.engine, self.min_characters = engine, min_characters
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served."""
        self.runtime = runtime

    def __call__(self, image: list[Image.Image]) -> dict[str, Any]:
        """Give text, lines and boxes of each picture; all empty when there is no text in it."""
        pages = [self._read(picture) for picture in image]
        lines = [[box["text"] for box in page] for page in pages]
        has_text = np.array([bool(page) for page in lines], np.bool_)
        return {
            "text": ["\n".join(page) for page in lines], "lines": lines, "boxes": pages, "has_text": has_text, "is_blank": ~has_text,
        }  # fmt: skip

    def _read(self, picture: Image.Image) -> list[dict[str, Any]]:
        if self.runtime is not None:
            self.runtime.check()
        blue_first = np.ascontiguousarray(np.asarray(on_white(eight_bits(picture, "ocr/rapidocr")))[:, :, ::-1])
        found = self.engine(blue_first)
        lines = [] if found.txts is None else zip(found.boxes, found.txts, found.scores, strict=True)
        return [_box(corners, text, score) for corners, text, score in lines if len(text.strip()) >= self.min_characters]


def _box(corners: np.ndarray[Any, Any], text: str, score: float) -> dict[str, Any]:
    """The upright rectangle around four corners, in pixels."""
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return {"x0": left, "y0": top, "x1": right, "y1": bottom, "text": text, "score": float(score)}
