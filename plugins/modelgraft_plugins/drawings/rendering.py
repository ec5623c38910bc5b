"""An icon as a square picture on white, by resvg: fast, the same on every machine, and without libraries of the system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import InputError

USUAL_SIDE = 16  # what Iconify assumes of an icon that says none
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


def png_of(svg: str, side: int) -> bytes:
    """Draw a square SVG as a PNG of `side` pixels on white. Raises InputError where resvg is lacking or cannot read the drawing."""
    try:
        import resvg_py
    except ImportError as error:
        raise InputError("drawings are rendered by the package resvg-py: pip install 'modelgraft[png]'") from error
    try:
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, background="white"))
    except ValueError as error:
        raise InputError(f"resvg cannot draw it: {error}") from error


def is_whole(png: bytes) -> bool:
    """Whether the bytes of a PNG reach to its end."""
    return png.endswith(END)
