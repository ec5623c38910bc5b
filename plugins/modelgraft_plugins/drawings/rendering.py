"""Drawings as square pictures on white, by resvg: fast, the same on every machine, and without libraries of the system."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from modelgraft.plugin import InputError

USUAL_SIDE = 16  # what Iconify assumes of an icon that says none
PIXELS = {"": 1, "px": 1, "pt": 4 / 3, "pc": 16, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96}  # of a unit of length, by CSS
FINER = 4  # so many times the wanted side is drawn before it is cut to what it shows
MARGIN = 0.04  # of the side, around what is shown: about that of an emoji
END = b"IEND\xaeB`\x82"  # the last bytes of every whole PNG


def svg_of(icons: Mapping[str, Any], name: str) -> str:
    """Write an icon of an icon set, or an alias of one, as a square drawing with what it shows in the middle."""
    icon = icons["icons"].get(name) or icons["icons"][icons["aliases"][name]["parent"]]
    left, top = (icon.get(key, icons.get(key, 0)) for key in ("left", "top"))
    width, height = (icon.get(key, icons.get(key, USUAL_SIDE)) for key in ("width", "height"))
    side = max(width, height)
    box = f"{left - (side - width) / 2:g} {top - (side - height) / 2:g} {side:g} {side:g}"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} viewBox="{box}" width="{side:g}" height="{side:g}">{icon["body"]}</svg>'


def require_renderer() -> None:
    """Raise InputError, with the way out, where resvg is lacking: before packages of drawings are fetched, none of which could be drawn."""
    if importlib.util.find_spec("resvg_py") is None:
        raise InputError("drawings are rendered by the package resvg-py: pip install 'modelgraft[png]'")


def png_of(svg: str, side: int) -> bytes:
    """Draw a square SVG as a PNG of `side` pixels on white. Raises InputError where resvg is lacking or cannot read the drawing."""
    require_renderer()
    import resvg_py

    try:
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, background="white"))
    except ValueError as error:
        raise InputError(f"resvg cannot draw it: {error}") from error


def framed(svg: bytes) -> str:
    """Write an SVG that says where its drawing is and nothing of its size; "" for one that says neither.

    Where there is no `viewBox`, it is what width and height say.
    """
    drawing = ElementTree.fromstring(svg)  # noqa: S314 the hash of the package is pinned
    width, height = (_pixels(drawing.attrib.pop(side, "")) for side in ("width", "height"))
    if "viewBox" not in drawing.attrib and width and height:
        drawing.set("viewBox", f"0 0 {width:g} {height:g}")
    return ElementTree.tostring(drawing, encoding="unicode") if "viewBox" in drawing.attrib else ""


def _pixels(length: str) -> float:
    """A length of SVG in pixels, 0 for one of no fixed size, such as a percentage."""
    found = re.fullmatch(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*([a-z]*)\s*", length)
    return float(found[1]) * PIXELS.get(found[2], 0) if found else 0


def cropped_png_of(svg: str, side: int) -> bytes:
    """Draw what `framed` wrote as a PNG of `side` pixels: what is not white, in the middle of a square. Raises InputError as `png_of`."""
    from PIL import Image, ImageChops, ImageOps

    with Image.open(io.BytesIO(png_of(svg, FINER * side))) as drawn:
        picture = drawn.convert("RGB")
    box = ImageChops.invert(picture).getbbox()  # None: it is blank
    shown = picture.crop(box) if box else picture
    size = max(shown.size)
    edge = round(MARGIN * size)
    square = ImageOps.pad(shown, (size, size), color="white")
    file = io.BytesIO()
    ImageOps.expand(square, edge, "white").resize((side, side), Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


def is_blank(path: Path) -> bool:
    """Whether a picture is of one colour."""
    from PIL import Image

    with Image.open(path) as picture:
        return all(low == high for low, high in picture.convert("RGB").getextrema())  # type: ignore[misc]  # of RGB it is a pair for each colour


def is_whole(png: bytes) -> bool:
    """Whether the bytes of a PNG reach to its end."""
    return png.endswith(END)
