"""A drawing as a PNG, by resvg: a program without other parts, in the extra `png`."""

from __future__ import annotations

from modelgraft.kernel.words.errors import InputError

ZOOM = 2  # twice the size of the SVG: sharp on today's screens


def draw_png(svg: str) -> bytes:
    """Make a picture of an SVG. Raises InputError when the extra `png` is not installed."""
    try:
        import resvg_py
    except ImportError as error:
        raise InputError("drawings as PNG need the package resvg-py: pip install 'modelgraft[png]'; --format svg needs nothing") from error
    found: bytes = bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=ZOOM, sans_serif_family="DejaVu Sans"))
    return found
