"""Pictures in a terminal: small, and in the finest way that the terminal knows. Elsewhere the name of their file has to do."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from modelgraft.cli.screen import Screen

WISH = "MODELGRAFT_PICTURES"  # how pictures are shown, over what is found out about the terminal: a key of WAYS, or none
PIECE = 4096  # letters of a picture that kitty takes at a time
COLUMNS, ROWS = 40, 20  # at most so many letters of a terminal
WIDTH, HEIGHT = 320, 320  # at most so many pixels, where a terminal shows pixels
COLOURS = 64  # of a sixel picture: few enough to be written fast
SIXELS = ("mlterm", "foot", "contour", "yaft", "sixel", "wezterm")  # what TERM holds where a terminal shows sixels


def show(path: Path, screen: Screen) -> None:
    """Show a picture of a file, where the output is a terminal."""
    if path.suffix.lower() == ".png" and screen.out.isatty():
        from PIL import Image

        with Image.open(path) as image:
            show_image(image, screen)


def show_image(image: Image, screen: Screen) -> None:
    """Show a picture, where the output is a terminal that can."""
    way = WAYS.get(way_of(os.environ))
    if way is not None and screen.out.isatty():
        screen.write(way(image.convert("RGB")))
        screen.flush()


def way_of(environment: Mapping[str, str]) -> str:
    """How a terminal shows pictures, by what it says of itself: a key of WAYS, or "none"."""
    wish, term = environment.get(WISH, ""), environment.get("TERM", "")
    if wish:
        return wish if wish in WAYS else "none"
    program = environment.get("TERM_PROGRAM", "")
    if term.startswith(("tmux", "screen")):  # which hand on no pixels
        return "blocks"
    if term in ("xterm-kitty", "xterm-ghostty") or "KITTY_WINDOW_ID" in environment or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm"):
        return "iterm"
    if any(name in term for name in SIXELS):
        return "sixel"
    return "none" if term in ("", "dumb") or environment.get("NO_COLOR") else "blocks"


def _small(image: Image, width: int, height: int) -> Image:
    """A picture within so many pixels, in its own proportions."""
    share = min(width / image.width, height / image.height, 1.0)
    return image.resize((max(round(image.width * share), 1), max(round(image.height * share), 1)))


def _png(image: Image) -> str:
    told = io.BytesIO()
    _small(image, WIDTH, HEIGHT).save(told, "PNG")
    return base64.b64encode(told.getvalue()).decode("ascii")


def _kitty(image: Image) -> str:
    """sw.kovidgoyal.net/kitty/graphics-protocol: pieces of a PNG, of which all but the last say that more follows."""
    content = _png(image)
    pieces = [content[start : start + PIECE] for start in range(0, len(content), PIECE)]
    heads = ["a=T,f=100,", *[""] * (len(pieces) - 1)]
    told = (
        f"\033_G{head}m={int(number < len(pieces) - 1)};{piece}\033\\"
        for number, (head, piece) in enumerate(zip(heads, pieces, strict=True))
    )
    return "".join(told) + "\n"


def _iterm(image: Image) -> str:
    """iterm2.com/documentation-images.html."""
    return f"\033]1337;File=inline=1;preserveAspectRatio=1:{_png(image)}\a\n"


def _sixel(image: Image) -> str:
    """Six rows at a time, colour by colour, each column a letter of six bits (DEC VT340)."""
    small = _small(image, WIDTH, HEIGHT).quantize(COLOURS)
    palette: list[int] = small.getpalette() or []
    width, height = small.size
    pixels: Any = small.load()  # Any: as Pillow gives it
    told = [f'\033Pq"1;1;{width};{height}']
    for colour in range(len(palette) // 3):
        red, green, blue = (round(part * 100 / 255) for part in palette[3 * colour : 3 * colour + 3])
        told.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, height, 6):
        rows: dict[int, list[int]] = {}
        for y in range(top, min(top + 6, height)):
            for x in range(width):
                rows.setdefault(pixels[x, y], [0] * width)[x] |= 1 << (y - top)
        told += [f"#{colour}{_repeated(bits)}$" for colour, bits in rows.items()]
        told.append("-")
    return "".join(told) + "\033\\\n"


def _repeated(bits: list[int]) -> str:
    """Columns as letters, a run of equal ones as `!7~`."""
    told, start = "", 0
    for place in range(1, len(bits) + 1):
        if place == len(bits) or bits[place] != bits[start]:
            count, letter = place - start, chr(63 + bits[start])
            told += f"!{count}{letter}" if count > 3 else letter * count
            start = place
    return told


def _blocks(image: Image) -> str:
    """Two pixels in the place of a letter: the upper one is its ink, the lower one what it stands on."""
    small = _small(image, COLUMNS, 2 * ROWS)
    pixels: Any = small.load()
    told = []
    for y in range(0, small.height, 2):
        for x in range(small.width):
            low = pixels[x, y + 1] if y + 1 < small.height else None
            told.append(f"\033[38;2;{_colour(pixels[x, y])}m" + ("\033[49m" if low is None else f"\033[48;2;{_colour(low)}m") + "▀")
        told.append("\033[0m\n")
    return "".join(told)


def _colour(pixel: tuple[int, int, int]) -> str:
    return ";".join(map(str, pixel))


WAYS: Mapping[str, Callable[[Image], str]] = {"kitty": _kitty, "iterm": _iterm, "sixel": _sixel, "blocks": _blocks}
