"""Reading text in pictures. Needs the package rapidocr: pip install 'modelgraft[ocr]'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from modelgraft import Config, Ports, component, hookimpl


@component("ocr/rapidocr", kind="encoder", load="modelgraft_plugins.ocr.reader:load", keywords=("text", "scan", "document"))
class RapidOCR(Config):
    """Find lines of text in a picture and read them, in the order in which they stand on the page.

    Detection, turning of upside-down lines, and recognition by PP-OCRv6, whose files lie in the package rapidocr.
    """

    min_score: float = Field(0.5, ge=0, le=1, description="a line that was read with less confidence is left out")

    def ports(self) -> Ports:
        """A picture in; the whole text, its lines, and where each stands, out."""
        return Ports.of({"image": "image"}, {"text": "text", "lines": "list[text]", "boxes": "boxes"})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(RapidOCR)
