"""Reading text that was drawn on purpose, so that every letter of it is known."""

from __future__ import annotations

from functools import cache

import pytest
from PIL import Image, ImageDraw, ImageFont

from modelgraft.kernel.words.errors import SourceError
from modelgraft.testing import open_node
from modelgraft_plugins.ocr import RapidOCR

pytestmark = pytest.mark.slow  # it runs real models

pytest.importorskip("rapidocr", reason="the package rapidocr is not installed")

LINES = ("Graph runtime 2026", "total: 42.50 EUR", "Thank you!")


@cache
def reader():
    """The three models, opened once."""
    return open_node(RapidOCR)


def page(lines=LINES, *, mode: str = "RGB", size: int = 30) -> Image.Image:
    """Lines of black text on white, or on nothing where the mode can be transparent."""
    picture = Image.new(mode, (620, 70 * len(lines) + 40), (255,) * 3 if mode == "RGB" else 255 if mode == "L" else (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=size)
    for index, line in enumerate(lines):
        pen.text((40, 30 + 70 * index), line, font=font, fill=0 if mode == "L" else (0, 0, 0) if mode == "RGB" else (0, 0, 0, 255))
    return picture


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_drawn_text_is_read_to_the_letter_and_in_order(mode):
    """On white, in grey, and on a transparent ground."""
    found = reader()([page(mode=mode)])
    assert found["lines"] == [list(LINES)]
    assert found["text"] == ["\n".join(LINES)]


def test_boxes_stand_where_the_lines_were_drawn():
    """Each box holds its line: left edge, height and order."""
    (boxes,) = reader()([page()])["boxes"]
    for index, box in enumerate(boxes):
        middle = 30 + 70 * index + 18
        assert box["y0"] < middle < box["y1"]
        assert box["y1"] - box["y0"] < 70
        assert abs(box["x0"] - 40) < 15
        assert box["text"] == LINES[index]
        assert 0.9 < box["score"] <= 1


def test_a_picture_without_text_gives_nothing_and_the_masks_say_so():
    """An empty page is no error; a batch keeps its records apart."""
    found = reader()([Image.new("RGB", (97, 61), "white"), page(LINES[:1])])
    assert found["text"] == ["", LINES[0]]
    assert found["boxes"][0] == []
    assert found["has_text"].tolist() == [False, True]
    assert found["is_blank"].tolist() == [True, False]


def test_lines_that_are_too_short_are_left_out():
    """A stray letter is no text where more are asked for."""
    found = open_node(RapidOCR, {"min_characters": 3})([page(("OK", "Graph runtime"))])
    assert found["lines"] == [["Graph runtime"]]


def test_models_that_were_not_tried_out_are_refused(tmp_path, monkeypatch):
    """The files are compared by hash; nothing is downloaded in their place."""
    import rapidocr

    from modelgraft_plugins.ocr import reader as implementation

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "PP-OCRv6_det_small.onnx").write_bytes(b"something else")
    monkeypatch.setattr(rapidocr, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(SourceError, match=r"the installed package rapidocr has another PP-OCRv6_det_small\.onnx; wanted sha256 090f04ab"):
        implementation.load(RapidOCR(), None)
