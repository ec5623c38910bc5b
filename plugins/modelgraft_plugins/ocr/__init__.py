"""Reading text in pictures. Needs the package rapidocr: pip install 'modelgraft[ocr]'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from modelgraft import Config, Ports, component, hookimpl


@component("ocr/rapidocr", kind="encoder", load="modelgraft_plugins.ocr.reader:load", arrays=True, keywords=("text", "scan", "document"))
class RapidOCR(Config):
    """Find lines of text in a picture and read them, in the order in which they stand on the page.

    Detection, turning of upside-down lines, and recognition by PP-OCRv6, whose files lie in the package rapidocr.
    """

    min_score: float = Field(0.5, ge=0, le=1, description="a line that was read with less confidence is left out")
    min_characters: int = Field(1, ge=1, description="a shorter line is left out: in photographs a stray 0 or l is seldom text")

    def ports(self) -> Ports:
        """A picture in; the whole text, its lines, where each stands, and whether there is any, and whether there is none, out."""
        outputs = {"text": "text", "lines": "list[text]", "boxes": "boxes", "has_text": "mask[batch]", "is_blank": "mask[batch]"}
        return Ports.of({"image": "image"}, outputs)


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(RapidOCR)
